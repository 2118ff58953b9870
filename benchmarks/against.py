"""Does minicpt train faster here than in another checkout of it?

`minicpt train` runs in both, with the same words and on the same file of text, each in a process of
its own that waits for its turn after a few steps (``checkout_worker.py``). Of the other checkout,
"old", there are two processes: how much their times differ says what a difference means here. A
step is all that lies between two updates of the weights, so the making of its batch is part of it.
Each side has its own code alone, and what that asks of its process.

The text is random words, so that it is the same everywhere and gives as many tokens as asked for.
Leaves out what the two print and save: of minicpt only its command line is known here.
"""

import argparse
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from timing import machine, number, table, write_json
from tqdm import tqdm
from turns import Worker, environment, take_turns

from minicpt.common.errors import InputError

WORKER = str(Path(__file__).with_name("checkout_worker.py"))
HERE = Path(__file__).resolve().parent.parent
SIDES = ("new", "old", "again")
STEPS = "steps"  # the one candidate of each side
SENTENCES, WORDS, LEXICON = 4000, 24, 40000  # of the text; words of a sentence


def text() -> str:
    """Sentences of random words of three to nine letters, a line each."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    lexicon = ["".join(draw.choices(letters, k=draw.randint(3, 9))) for _ in range(LEXICON)]
    lines = (" ".join(draw.choices(lexicon, k=WORDS)) for _ in range(SENTENCES))
    return "".join(f"{line.capitalize()}.\n" for line in lines)


def words_of(name: str, vocabulary: int, options: argparse.Namespace, folder: str) -> list[str]:
    """The words after ``minicpt``. With no held-out text and no saving, all it does is steps.

    Both sides get the same words. So a flag that one of them calls otherwise is not here: the
    number of attention heads is the default on both sides, 4.
    """
    return (
        f"train {name} --corpus {folder}/text.txt --held-out 0 --save-every 0 --steps 1000000"
        f" --vocab-size {vocabulary} --width {options.width} --layers {options.layers}"
        f" --batch-size {options.batch_size} --window {options.window} --threads {options.threads}"
    ).split()


def measure(name: str, vocabulary: int, options: argparse.Namespace, folder: str) -> dict:
    """The row of an objective and a vocabulary.

    Keys: objective, vocabulary; new_seconds, old_seconds and again_seconds (of the second process
    of the old one), each of a step, on the clock and of CPU; ratio and cpu_ratio, of new to old;
    again and cpu_again, of the second process of the old one to the first.
    """
    train = words_of(name, vocabulary, options, folder)
    with ExitStack() as stack:
        sides = []
        for side in SIDES:
            checkout = HERE if side == "new" else options.against
            own = {"PYTHONPATH": str(checkout), "MINICPT_CACHE": f"{folder}/{side}-cache"}
            words = [WORKER, str(options.batches), *train, "--out", f"{folder}/{name}-{side}"]
            around = environment(options.threads) | own
            sides.append(stack.enter_context(Worker(side, words, around, checkout)))
        # Only when all stand before their second step does one work alone.
        found = take_turns({side: side.ask("case") for side in sides}, options.rounds)
    new, old, again = (found[side, STEPS].times(1 / options.batches) for side in SIDES)
    return {
        "objective": name,
        "vocabulary": vocabulary,
        "new_seconds": new,
        "old_seconds": old,
        "again_seconds": again,
        "ratio": new.wall / old.wall,
        "again": again.wall / old.wall,
        "cpu_ratio": new.cpu / old.cpu,
        "cpu_again": again.cpu / old.cpu,
    }


def report(rows: list[dict]) -> str:
    headings = ["objective", "vocabulary", "new s", "old s", "again s", "new/old", "again/old",
                "new CPU s", "old CPU s", "again", "new/old", "again/old"]  # fmt: skip
    lines = []
    for row in rows:
        line = [row["objective"], str(row["vocabulary"])]
        for place, kind in enumerate(("", "cpu_")):
            line += [number(row[f"{side}_seconds"][place]) for side in SIDES]
            line += [number(row[f"{kind}ratio"]), number(row[f"{kind}again"])]
        lines.append(line)
    return table(headings, lines)


def main(options: argparse.Namespace) -> int:
    """``throughput.py --against CHECKOUT``. Raises InputError where that is no checkout."""
    options.against = Path(options.against).resolve()
    if not (options.against / "minicpt" / "__main__.py").is_file():
        raise InputError(f"--against {options.against}: there is no minicpt/__main__.py; name the "
                         "root of a checkout")  # fmt: skip
    print(__doc__.splitlines()[0])
    print(machine(options.threads))
    print(f"new: {HERE}\nold: {options.against}\nfloat32, width {options.width}, {options.layers} "
          f"layers, 4 heads, batches of {options.batch_size} x {options.window}; best of "
          f"{options.rounds} rounds of {options.batches} steps;\ns: of a step; new/old: below 1, "
          "new takes less; again: a second process of old\n")  # fmt: skip
    rows: list[dict] = []
    asked = [(name, size) for name in options.objectives for size in options.vocabularies]
    for name, size in tqdm(asked, leave=False, disable=not sys.stderr.isatty()):
        with tempfile.TemporaryDirectory(prefix="minicpt-") as folder:
            Path(folder, "text.txt").write_text(text(), encoding="utf-8")
            rows.append(measure(name, size, options, folder))
        if options.json:
            write_json(options.json, rows)
    print(report(rows))
    return 0
