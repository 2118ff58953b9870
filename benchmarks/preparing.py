"""How fast and in how much memory is text prepared?

Preparing is all that happens to text before training: it is read, checked and hashed, a part is
held out, all of it is tokenised, words and sentences are found, and what was found is written where
later runs map it into memory. ("again" is such a later run: it reads, checks and hashes the text,
and finds it tokenised.) Beside it stands ``tokenizers`` alone: the same tokenizer on the same text
in portions, ``encode_batch_fast`` and nothing else; neither reading the text nor taking the tokens
out of what it returns is counted. Both may use all cores; RAYON_NUM_THREADS limits them.

The text is the built-in code and prose with the lines of each document shuffled, again and again
until there is enough: as one file, as one .jsonl file of short documents, and as a folder of files.
The tokenizer is trained on a sample before, which is not counted, but shown. Each measurement has a
process of its own, in which the most memory that it held is measured; the two take turns. What the
C library does with freed memory is left as it is, in all of them.

Leaves out disks: what was just written is still in the system's memory.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from timing import (
    check_outputs,
    fill_in,
    machine,
    number,
    peak,
    plotting,
    run,
    table,
    write_outputs,
)

from minicpt.cli.main import Parser
from minicpt.common.errors import InputError, WorkError
from minicpt.data import cache
from minicpt.data.sources import read
from minicpt.data.split import sample, split
from minicpt.data.text import stretches
from minicpt.data.tokenizer import PORTION, Tokenizer

MEGABYTE = 10**6
SHAPES = {"file": "text.txt", "jsonl": "text.jsonl", "folder": "texts"}
SHORT = 2000  # characters of a document of the .jsonl file
WORKS = ("ours", "theirs", "again")
FULL = {"size": 1000, "rounds": 1, "shapes": ["file", "jsonl"], "vocabulary": 8192}
QUICK = {"size": 8, "rounds": 1, "shapes": list(SHAPES), "vocabulary": 2048}


# --- the text --------------------------------------------------------------------------------


def variations() -> Iterator[str]:
    """The documents of the built-in text without end, their lines in another order each time."""
    documents = [document.text.splitlines() for document in read(["builtin:docs", "builtin:code"])]
    order = random.Random(0)
    while True:
        order.shuffle(documents)
        for lines in documents:
            order.shuffle(lines)
            yield "\n".join(lines) + "\n\n"


def write_text(shape: str, path: Path, size: int) -> None:
    """``size`` bytes of text and a few more."""
    written = 0
    if shape == "folder":
        path.mkdir()
        for place, text in enumerate(variations()):
            written += Path(path, f"{place:06}.txt").write_text(text, encoding="utf-8")
            if written >= size:
                return
    with open(path, "w", encoding="utf-8") as file:
        for text in variations():
            if shape == "jsonl":
                parts = (text[at : at + SHORT] for at in range(0, len(text), SHORT))
                text = "".join(
                    json.dumps({"text": part}, ensure_ascii=False) + "\n"
                    for part in parts
                    if part.strip()
                )
            written += len(text.encode())
            file.write(text)
            if written >= size:
                return


# --- one measurement, in a process of its own ------------------------------------------------


def one(work: str, path: str, folder: str) -> dict:
    """Prepares the text with the tokenizer in ``folder``, or gives it to ``tokenizers`` alone.

    Gives seconds, cpu_seconds (of all threads), bytes, documents, tokens, resident_mib (the most),
    imports_mib (of that, what was held before it began).
    """
    tokenizer = Tokenizer.load(folder)
    before = peak()
    begun, busy = time.perf_counter(), time.process_time()
    if work == "theirs":
        found = alone(path, tokenizer)
    else:
        documents = read([path])
        parts = [cache.corpus(part, tokenizer) for part in split(documents)]
        found = {
            "seconds": time.perf_counter() - begun,
            "cpu_seconds": time.process_time() - busy,
            "bytes": documents.bytes,
            "documents": len(documents),
            "tokens": sum(len(corpus.tokens) for corpus in parts),
        }
    return found | {"resident_mib": peak(), "imports_mib": before}


def alone(path: str, tokenizer: Tokenizer) -> dict:
    """``tokenizers`` on all documents, some at a time and long ones in portions, as ours are."""
    counted = {"seconds": 0.0, "cpu_seconds": 0.0, "tokens": 0}
    together, size = [], 0

    def encode() -> None:
        begun, busy = time.perf_counter(), time.process_time()
        encoded = tokenizer.encodings(together)
        counted["seconds"] += time.perf_counter() - begun
        counted["cpu_seconds"] += time.process_time() - busy
        counted["tokens"] += sum(map(len, encoded))

    for document in read([path]):
        for stretch in stretches(document, tokenizer.breaks, PORTION):
            together.append(stretch.text)
            size += len(stretch.text)
            if size >= 1 << 20:
                encode()
                together, size = [], 0
    encode()
    return counted


def measure(work: str, path: Path, folder: Path, kept: Path) -> dict:
    command = [sys.executable, __file__, "--one", work, str(path), str(folder)]
    environment = os.environ | {"MINICPT_CACHE": str(kept)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WorkError(f"the process that measures ended with {done.returncode}: {said}")
    return json.loads(done.stdout)


def row_of(shape: str, options: argparse.Namespace, folder: Path) -> dict:
    """The row of one shape.

    Keys: shape, megabytes, documents, tokens, training_seconds (of the tokenizer), ours_mb_per_s,
    theirs_mb_per_s, ratio (of the rates), cpu_ratio (of their time on all cores to ours),
    again_seconds, resident_mib (ours, at the most), imports_mib (of that, what was held before it
    began), again_resident_mib.
    """
    path, trained = folder / SHAPES[shape], folder / f"tokenizer-{shape}"
    write_text(shape, path, int(options.size * MEGABYTE))
    begun = time.perf_counter()
    Tokenizer.train(sample(read([str(path)])), options.vocabulary).save(trained)
    training = time.perf_counter() - begun
    best: dict[str, dict] = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=folder) as kept:
            for work in WORKS:
                found = measure(work, path, trained, Path(kept))
                if work not in best or found["seconds"] < best[work]["seconds"]:
                    best[work] = found
    ours, theirs, again = (best[work] for work in WORKS)
    megabytes = ours["bytes"] / MEGABYTE
    return {
        "shape": shape,
        "megabytes": megabytes,
        "documents": ours["documents"],
        "tokens": ours["tokens"],
        "training_seconds": training,
        "ours_mb_per_s": megabytes / ours["seconds"],
        "theirs_mb_per_s": megabytes / theirs["seconds"],
        "ratio": theirs["seconds"] / ours["seconds"],
        "cpu_ratio": theirs["cpu_seconds"] / ours["cpu_seconds"],
        "again_seconds": again["seconds"],
        "resident_mib": ours["resident_mib"],
        "imports_mib": ours["imports_mib"],
        "again_resident_mib": again["resident_mib"],
    }


# --- the command line ------------------------------------------------------------------------


def parser() -> Parser:
    top = Parser(prog="preparing.py", description=__doc__.splitlines()[0])
    top.add_argument("--quick", action="store_true", help="little text: within a minute or two")
    top.add_argument("--json", metavar="PATH", help="write the rows, a list of objects")
    top.add_argument("--plot", metavar="PATH", help="draw rates and memory (matplotlib)")
    for key, kind, text in (
        ("size", float, "megabytes of text"),
        ("rounds", int, "in which the two take turns; the best counts"),
        ("vocabulary", int, "of the tokenizer"),
    ):
        shown = f"{text} (default: {FULL[key]}; quick: {QUICK[key]})"
        top.add_argument(f"--{key}", type=kind, metavar="N", help=shown)
    top.add_argument("--shapes", nargs="+", choices=SHAPES, metavar="SHAPE",
                     help=f"of {', '.join(SHAPES)} (default: {', '.join(FULL['shapes'])}; "
                     "quick: all)")  # fmt: skip
    top.add_argument("--one", nargs=3, metavar=("WORK", "TEXT", "TOKENIZER"),
                     help="measure ours, theirs or again in this process, and print it as JSON")
    return top


def read_options(words: list[str]) -> argparse.Namespace:
    """The options with their defaults filled in. Raises InputError for what makes no sense."""
    options = parser().parse_args(words)
    fill_in(options, QUICK if options.quick else FULL)
    if not 0 < options.size < 10**6:
        raise InputError(f"--size must be more than 0 megabytes, but is {options.size:g}")
    if options.rounds < 1:
        raise InputError(f"--rounds must be at least 1, but is {options.rounds}")
    if options.one and options.one[0] not in WORKS:
        raise InputError(f"--one takes one of {', '.join(WORKS)}, a text and a tokenizer")
    return options


def report(rows: list[dict]) -> str:
    headings = ["shape", "MB", "documents", "tokens", "ours MB/s", "tokenizers MB/s", "ratio",
                "of CPU time", "MiB", "of them imports", "again s", "again MiB",
                "tokenizer s"]  # fmt: skip
    lines = [
        [row["shape"], f"{row['megabytes']:.0f}", f"{row['documents']:,}", f"{row['tokens']:,}"]
        + [number(row[key]) for key in ("ours_mb_per_s", "theirs_mb_per_s", "ratio", "cpu_ratio")]
        + [f"{row[key]:.0f}" for key in ("resident_mib", "imports_mib")]
        + [number(row["again_seconds"]), f"{row['again_resident_mib']:.0f}"]
        + [number(row["training_seconds"])]
        for row in rows
    ]
    return table(headings, lines)


def plot(path: str, rows: list[dict]) -> None:
    """Rates on the left, memory on the right."""
    pyplot = plotting()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    places = range(len(rows))
    for shift, key, name in ((-0.2, "ours_mb_per_s", "minicpt"), (0.2, "theirs_mb_per_s",
                                                                   "tokenizers alone")):
        left.bar([at + shift for at in places], [row[key] for row in rows], 0.4, label=name)
    left.set_ylabel("MB/s")
    right.bar(places, [row["resident_mib"] for row in rows], 0.5, label="at the most")
    right.bar(places, [row["imports_mib"] for row in rows], 0.5, label="of that, imports")
    right.axhline(1024, color="gray", linestyle=":")
    right.set_ylabel("MiB resident")
    names = [f"{row['shape']}\n{row['megabytes']:.0f} MB" for row in rows]
    for axes in (left, right):
        axes.set_xticks(list(places), names)
        axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(words: list[str]) -> int:
    options = read_options(words)
    if options.one:
        print(json.dumps(one(*options.one)))
        return 0
    check_outputs(options)
    print(__doc__.splitlines()[0])
    print(machine())
    print(f"vocabulary {options.vocabulary}; best of {options.rounds} rounds; MiB: resident at the "
          "most, imports included\n", flush=True)
    rows = []
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row_of(shape, options, Path(folder)))
        print(f"{shape}: done", file=sys.stderr)
    print(report(rows))
    write_outputs(options, rows, plot)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
