"""Input that no training can use, one thing after the other, for ``faults.py``.

Each is refused in one line that names the place and what to do, with status 2, and nothing is left
behind. Text that is odd and sound is trained on.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers
from children import TINY, fresh, run, train, write_text

LONG = 10**8  # bytes of a line
HUGE = 30 << 30  # bytes of a file, more than most memories; it has holes, and takes no room
NOBODY = 65534  # a user who owns nothing
PROSE = b"On Monday the cat saw a boat. It sat down again. Then it rained for an hour. " * 4

# name -> what is in the file, and what the one line of error holds ("": there must be none)
TEXTS: dict[str, tuple[bytes | Callable[[Path], object], str]] = {
    "empty.txt": (b"", "is empty"),
    "blank.txt": (b" \n\t\n \xe2\x80\xa8\n", "holds only blank text"),
    "blank.jsonl": (b'{"text": " "}\n\n', "holds only blank text"),
    "binary.txt": (b"A cat.\0\1\2", "NUL byte at byte 6"),
    "utf-16.txt": ("A cat.".encode("utf-16"), "is UTF-16"),
    "invalid.txt": (b"A cat\xff sat.", "is not UTF-8 at byte 5"),
    "invalid-late.txt": (b"A cat. " * 400_000 + b"\xe2\x82", "is not UTF-8 at byte 2800000"),
    "invalid.jsonl": (b'{"text": "a"}\n{"text": "\xc3("}\n', "is not UTF-8 at byte 24"),
    "surrogate.jsonl": (b'{"text": "a \\ud800 b"}\n', "line 1 has half a surrogate pair"),
    "number.jsonl": (b'{"text": "a b."}\n{"text": 3}\n', "line 2 has no string 'text'"),
    "list.jsonl": (b"[1]\n", "line 1 has no string 'text'"),
    "broken.jsonl": (b'{"text": "a"\n', "line 1 is not JSON"),
    "deep.jsonl": (b"[" * 10**6 + b"\n", "line 1 is not JSON"),
    "short.txt": (b"Hi", "the training text gives 1 passages"),
    "one-word-long.txt": (b"x" * LONG, "without a space"),
    "one-word-long.jsonl": (b'{"text": "' + b"x" * LONG + b'"}\n', "without a space"),
    "longer.jsonl": (b'{"text": "' + b"x y " * (1 << 25) + b'"}\n', "has a line of 128 MiB"),
    "larger-than-memory.txt": (lambda path: os.truncate(path, HUGE), "NUL byte at byte 0"),
    "larger-than-memory.jsonl": (lambda path: os.truncate(path, HUGE), "NUL byte at byte 0"),
    "folder-of-nothing": (lambda path: (path.unlink(), path.mkdir()), "holds no text"),
    "pipe.txt": (lambda path: (path.unlink(), os.mkfifo(path)), "a pipe, a device"),
    "device.txt": (lambda path: link(path, "/dev/zero"), "a pipe, a device"),
    "itself.txt": (lambda path: link(path, path.name), "Too many levels of symbolic links"),
    "missing.txt": (Path.unlink, "no such file"),
    "denied.txt": (lambda path: path.chmod(0), "Permission denied"),
    "mark.txt": (b"\xef\xbb\xbf" + PROSE, ""),
    "separators.txt": (PROSE.replace(b" ", b"\xe2\x80\xa8"), ""),
    "separators.jsonl": (b'{"text": "' + PROSE.replace(b" ", b"\xe2\x80\xa8") + b'"}\n', ""),
    "returns.txt": (PROSE.replace(b". ", b".\r\n"), ""),
}
# What is wrong about the words, and the error. TEXT stands for a sound text, RUN for a run of it.
WORDS: dict[str, str] = {
    "train next-sentence --corpus ONE": "sentence",
    "train causal-lm --corpus TEXT --batch-size 100000": "batch",
    "train causal-lm --corpus TEXT --init RUN --window 1000": "window",
    "train causal-lm --corpus TEXT --learning-rate nan": "learning-rate",
    "train causal-lm --corpus TEXT --learning-rate -1": "learning-rate",
    "train causal-lm --corpus TEXT --steps 0": "steps",
    "train causal-lm --corpus TEXT --width 7 --num-heads 2": "width",
    "train causal-lm --corpus TEXT --width 1000000000": "",
    "train masked-lm --corpus TEXT --rate 2": "rate",
    "train masked-lm --corpus TEXT --tokenizer WORDS": "the tokenizer has no cls token",
    "train masked-lm --corpus TEXT --init RUN": "encoder",
    "train causal-lm --corpus TEXT --out RUN": "not empty",
    "train causal-lm --corpus TEXT --out FOREIGN": "not empty",
    "train causal-lm --corpus TEXT --out TEXT": "is a file",
    "resume FOREIGN": "not a run",
    "resume missing": "not a folder",
    "evaluate RUN --corpus missing.txt": "no such file",
    "generate RUN --length -1": "length",
    "export RUN --to \0": "cannot be the name of a folder",
}


def link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def inputs(folder: Path, tries: int) -> Iterator[str | None]:
    """Every text and all words of the catalogue, or some of them evenly chosen."""
    folder.chmod(0o755)  # its files are read by nobody as well
    names = {
        "TEXT": write_text(folder / "text.txt"),
        "RUN": fresh(folder / "run"),
        "FOREIGN": fresh(folder / "foreign"),
        "WORDS": fresh(folder / "words"),
        "ONE": folder / "one.txt",
    }
    names["ONE"].write_text("The one sentence of it all")
    (names["FOREIGN"] / "letter.txt").write_text("Keep me.")
    run(train("causal-lm", names["TEXT"], names["RUN"], 1), folder)
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, "[UNK]"))
    plain.save(str(names["WORDS"] / "tokenizer.json"))
    trials = [(name, expected) for name, (_, expected) in TEXTS.items()] + list(WORDS.items())
    for name, expected in trials[:: max(1, len(trials) // tries)]:
        if name in TEXTS:
            place = fresh(folder / "texts") / name
            content = TEXTS[name][0]
            place.write_bytes(content if isinstance(content, bytes) else b"")
            if callable(content):
                content(place)
            words = ["train", "causal-lm", "--corpus", str(place), "--steps", "1", *TINY]
        else:
            words = [str(names.get(word, word)) for word in name.split()]
            words += [] if words[0] != "train" else ["--steps", "1"] * ("--steps" not in words)
        working, before = fresh(folder / "cwd"), listing(folder)
        outcome = run(words, folder, be_nobody if name.startswith("denied") else None)
        problem = wrong(outcome, expected)
        if outcome.status and listing(folder) != before:
            problem = "something is left behind, or gone"
        yield problem and f"{name}: {problem}: {outcome.error[-300:]}"
        if not outcome.status:
            fresh(working)


def wrong(outcome, expected: str) -> str | None:
    if outcome.status is None:
        return "a hang, or more than 10 s of CPU"
    if not expected and outcome.status == 0 and outcome.clean:
        return None
    if outcome.status != 2 or not outcome.clean or not outcome.one_line:
        return f"status {outcome.status}"
    return None if re.search(expected, outcome.error) else f"{expected!r} is not said"


def be_nobody() -> None:
    """A user for whom permissions count; root may read everything."""
    if os.geteuid() == 0:
        os.chown(".", NOBODY, -1)
        os.setuid(NOBODY)


def listing(folder: Path) -> list[tuple[str, int]]:
    """Every file and its size; the log of the child apart."""
    found = ((path, path.lstat()) for path in sorted(folder.rglob("*")))
    return [(str(path), each.st_size) for path, each in found if path.name != "child.err"]
