"""``minicpt runs``: lists runs and checkpoints. A line says objective, base, steps, held-out loss,
what was gained and forgotten, and size; what is damaged or half written is named below.
"""

import argparse
import dataclasses
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from minicpt.common.terminal import amount, draw, needs_ascii, printable, words, wrap
from minicpt.runs.console import print_json
from minicpt.runs.inventory import Entry, inventory

EXAMPLES = """the loss is that of the newest evaluation; a damaged file whose size is right is found
with --check, which reads all of them

examples:
  minicpt runs
  minicpt runs runs/first --json
"""
HEADINGS = ("run", "objective", "base", "steps", "held out", "gained", "forgotten", "size")
NAMES = ("run", "objective", "base")  # may be cut where the terminal is narrow
NUMBERS = ("steps", "gained", "forgotten", "size")
UNLIMITED = 10**6  # columns of an output that is no terminal: nothing is cut


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", default="runs",
        help="where to look, four levels deep (default: runs)",
    )  # fmt: skip
    parser.add_argument(
        "--check", action="store_true", help="hold the contents of all files against the manifests"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    found = inventory(arguments.folder, arguments.check)
    if arguments.json:
        print_json({"folder": arguments.folder, "runs": [dataclasses.asdict(x) for x in found]})
        return 0
    if not found:
        print(f"{arguments.folder} holds no run and no checkpoint")
    ascii = needs_ascii(sys.stdout.encoding)
    rows, problems = [], []
    for entry in found:
        for each in (entry, *entry.checkpoints):
            rows.append(cells(each, entry, Path(arguments.folder)))
            problems += each.problems
    shown = {
        heading: [printable(row[place], ascii) for row in rows]
        for place, heading in enumerate(HEADINGS)
        if place == 0 or any(row[place] for row in rows)
    }
    lines = table(shown, width(), ascii) if rows else []
    if problems:
        lines += ["", *(f"! {printable(each, ascii)}" for each in problems)]
    print("\n".join(lines))
    return 0


def width() -> int:
    """Columns of the terminal; what goes into a pipe or a file is not cut."""
    asked = os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty()
    return max(20, shutil.get_terminal_size().columns - 1) if asked else UNLIMITED


def table(shown: Mapping[str, list[str]], width: int, ascii: bool) -> list[str]:
    """The lines of a table; where it cannot be that narrow, a paragraph for each row."""
    columns = [
        words(heading, cells, UNLIMITED, 10 if heading in NAMES else UNLIMITED, ascii,
              right=heading in NUMBERS)
        for heading, cells in shown.items()
    ]  # fmt: skip
    if sum(column.least + 1 for column in columns) <= width + 1:
        return draw(columns, width)
    lines = []
    for name, *rest in zip(*shown.values(), strict=True):
        said = (f"{h} {cell}" for h, cell in zip(list(shown)[1:], rest, strict=True) if cell)
        indent = "  " * (1 + name.startswith(" "))
        lines.append(name)
        lines += [indent + line for line in wrap(", ".join(said), width - len(indent), ascii)]
    return lines


def cells(entry: Entry, run: Entry, folder: Path) -> list[str]:
    """A row of the table. A run's checkpoint repeats neither objective nor base."""
    steps = [] if entry.step is None else [f"{entry.step:,}"]
    if entry is run:
        steps += [] if entry.steps is None or not steps else [f"of {entry.steps:,}"]
        steps += ["running"] * entry.running
        name = os.path.relpath(entry.name, folder) if Path(entry.name) != folder else entry.name
    else:
        name = f"  {entry.name}"
    of_run = [entry.objective, place(entry.base, folder)] if entry is run else ["", ""]
    held_out = ", ".join(f"{value:.4f} {unit}" for unit, value in entry.held_out.items())
    changes = [
        ", ".join(f"{round(value, 4) + 0.0:+.4f}" for value in each.values())
        for each in (entry.gained, entry.forgotten)
    ]
    return [name, *of_run, " ".join(steps), held_out, *changes, amount(entry.size)]


def place(base: str | None, folder: Path) -> str:
    """Where a base is, from the folder that is listed, or, where it is not in there, as a whole."""
    if not base:
        return ""
    within = Path(base).is_relative_to(folder.absolute())
    return os.path.relpath(base, folder) if within else base
