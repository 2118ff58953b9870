"""Random texts, configs and command lines, for ``faults.py``: no tracebacks, no hangs.

What is refused (status 2) must be so in one line, and must leave nothing behind.
"""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

from children import OBJECTIVES, TINY, Outcome, fresh, run, train, write_text

from minicpt import checkpoint
from minicpt.cli.main import parser
from minicpt.training.trainer import Trainer

VALUES = (
    "0 -1 1 2 3 7 nan inf -inf 1e308 1e-308 0.5 1.5 -0.0 999999999999999999999999 1e999 0x10 ٣"
    " true None [] {} ../.. / . x --"
).split() + ["", " ", "\n", "\0", "\ud800", "builtin:none", "no/such/file", "/dev/zero", "*" * 300]
CONFIG_VALUES = [0, -1, 1, 3, 10**6, 10**30, 0.5, 1e308, float("nan"), float("inf"), None, True]
CONFIG_VALUES += ["", "x", "gelu_new", [], [1], {}, {"a": 1}, [[[]]] * 9]


def fuzz(folder: Path, tries: int) -> Iterator[str | None]:
    """A third each of texts, configs and command lines."""
    draws = random.Random(4)
    text = write_text(folder / "text.txt")
    runs = {}
    for objective in OBJECTIVES:
        runs[objective] = fresh(folder / objective)
        run(train(objective, text, runs[objective], 1), folder)
    for number in range(tries):
        place = fresh(folder / "cwd")
        if number % 3 == 0:
            words = of_text(folder, draws)
        elif number % 3 == 1:
            words = of_config(folder, runs[draws.choice(OBJECTIVES)], draws)
        else:
            words = of_flags(text, runs, draws)
        outcome = run(words, folder, two_steps)
        problem = wrong(outcome, place)
        yield problem and f"{problem}: minicpt {words}: {outcome.error[-400:]}"


def two_steps() -> None:
    """A long training is no hang: in this process it ends after two steps."""
    advance = Trainer.advance

    def limited(trainer):
        if trainer.step >= 2:
            raise SystemExit(0)
        return advance(trainer)

    Trainer.advance = limited


def wrong(outcome: Outcome, place: Path) -> str | None:
    if outcome.status is None:
        return "a hang"
    if not outcome.clean or outcome.status not in (0, 1, 2):
        return f"status {outcome.status}"
    if outcome.status and not outcome.one_line:
        return "not one line"
    if outcome.status == 2 and (left := list(place.iterdir())):
        return f"left {left[0].name} behind"
    return None


def of_text(folder: Path, draws: Random) -> list[str]:
    path = folder / draws.choice(("fuzz.txt", "fuzz.jsonl", "fuzz.md"))
    path.write_bytes(random_text(draws, path.suffix))
    words = ["train", draws.choice(OBJECTIVES), "--corpus", str(path), "--steps", "1", *TINY]
    return [*words, *draws.choice(([], ["--blocks"], ["--held-out", "0.5"], ["--batch-size", "1"]))]


def random_text(draws: Random, suffix: str) -> bytes:
    pieces = [
        b"A cat. ", b"Two dogs ran? ", b"\n", b"\n\n", b"\r\n", b"\0", b"\xff\xfe", b"\xef\xbb\xbf",
        b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\xc3", b"{", b'"', b" ", b"\t", b"\x1b[31m", b"...",
        "é ÿ 漢字 😀 ".encode(), b"[MASK]", b"<|endoftext|>", b"x" * 3000,
        b'{"text": "a b. c d."}\n', b'{"text": "\\ud800"}\n', b'{"text": 3}\n',
        b"[" * 2000, draws.randbytes(30),
    ]  # fmt: skip
    if suffix == ".jsonl" and draws.random() < 0.7:
        pieces = [b'{"text": "A cat. It sat down. It ran."}\n', b"\n", draws.choice(pieces)]
    if draws.random() < 0.4:
        pieces = [b"A cat sat. ", b"It rained again. ", b"\n", draws.choice(pieces)]
    return b"".join(draws.choices(pieces, k=draws.choice((0, 1, 2, 30, 300))))


def of_config(folder: Path, run_of_it: Path, draws: Random) -> list[str]:
    """A folder of somebody else, with a config or another JSON file that is not sound."""
    trial = folder / "config"
    shutil.rmtree(trial, ignore_errors=True)
    shutil.copytree(checkpoint.find(run_of_it)[0], trial)
    ours = draws.random() < 0.3  # with a manifest that holds
    if not ours:
        for name in ("manifest.json", "training.json", "state.pt"):
            (trial / name).unlink()
    names = ["config.json", "config.json", "tokenizer.json", "tokenizer_config.json"]
    path = trial / draws.choice([*names, "training.json"] if ours else names)
    content = json.loads(path.read_text())
    for _ in range(draws.choice((1, 1, 2, 5))):
        change(content, draws)
    path.write_text(json.dumps(content))
    if ours:
        (trial / "manifest.json").unlink()
        checkpoint.write_manifest(trial)
        again = fresh(folder / "again") / "step-00000001"
        trial.rename(again)
        return ["resume", str(again.parent), *draws.choice(([], ["--accept-changes"]))]
    return ["generate", str(trial), "A cat sat.", "--length", "2"]


def change(content, draws: Random) -> None:
    """Another value, or none, somewhere in JSON content."""
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    if not keys:
        return
    key = draws.choice(keys)
    if isinstance(content[key], (dict, list)) and draws.random() < 0.7:
        change(content[key], draws)
    elif draws.random() < 0.2:
        del content[key]
    else:
        content[key] = draws.choice(CONFIG_VALUES)


def of_flags(text: Path, runs: dict[str, Path], draws: Random) -> list[str]:
    objective = draws.choice(OBJECTIVES)
    verbs = {
        "train": train(objective, text, Path("out"), 1),
        "evaluate": ["evaluate", str(runs[objective]), "--corpus", str(text)],
        "generate": ["generate", str(runs[objective]), "A cat sat."],
        "explain": ["explain", objective],
        "resume": ["resume", str(runs[objective])],
        "export": ["export", str(runs[objective]), "--to", "exported"],
        "verify": ["verify", "--nothing"],
    }
    words = verbs[draws.choice([*verbs, "train", "train", "train"])]
    flags = flags_of(words)
    for _ in range(draws.choice((1, 1, 2, 4))):
        kind = draws.random()
        if kind < 0.8 and flags:
            words = [*words, draws.choice(flags), draws.choice(VALUES)]
        elif kind < 0.9:
            words = [*words[: draws.randrange(len(words))], draws.choice(VALUES)]
        else:
            words = draws.sample(words, len(words))
    return words


def flags_of(words: list[str]) -> list[str]:
    """The flags of a verb (of an objective); --help and those that choose the length left out."""
    found, known = parser(words[0]), []
    for word in words[:2]:
        for action in found._actions:
            if isinstance(action.choices, dict) and word in action.choices:
                found = action.choices[word]
    for action in found._actions:
        known += [each for each in action.option_strings if each.startswith("--")]
    return [each for each in known if each not in ("--help", "--version")]
