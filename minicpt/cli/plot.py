"""``minicpt plot``: draws the curves of one or several runs on one page. Loss, gained, forgotten,
learning rate and tokens/s come from the runs' metrics.jsonl, also while a run is being written.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from minicpt.cli import flags
from minicpt.common.errors import InputError
from minicpt.common.outputs import PICTURES, check_new, plotting
from minicpt.common.settings import Checked, setting
from minicpt.pictures import curves
from minicpt.runs.console import print_json, say, tell
from minicpt.runs.history import History, history

EXAMPLES = """losses in nats/target compare only between runs of one objective and one tokenizer;
what is gained and forgotten compares where its unit is bits/byte

examples:
  minicpt plot runs/first
  minicpt plot runs/first runs/second --out curves.svg
"""


@dataclass(frozen=True)
class Where(Checked):
    out: str = setting("curves.png", f"the picture: {', '.join(PICTURES)}", metavar="FILE")
    overwrite: bool = setting(False, "replace a picture that is there")


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("runs", metavar="RUN", nargs="+", help="the folder of a run")
    flags.add(parser, "the picture", Where)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    where = flags.build(arguments, Where)
    check_new(where.out, where.overwrite, PICTURES)
    plotting()
    runs = histories(arguments.runs)
    curves.draw(where.out, runs)
    if arguments.json:
        steps = {name: int(each.steps[-1]) for name, each in runs.items()}
        notes = [note for each in runs.values() for note in each.notes]
        print_json({"out": where.out, "steps": steps, "notes": notes})
    else:
        tell(f"drawn in {where.out}")
    return 0


def histories(paths: list[str]) -> dict[str, History]:
    """Each run's history under its path. Says what the picture will lack, and why.

    Raises InputError for a run with nothing to draw, and for too many.
    """
    names = list(dict.fromkeys(str(Path(path)) for path in paths))
    if len(names) > curves.MOST:
        raise InputError(
            f"{len(names)} runs cannot be told apart on one page; give at most {curves.MOST}"
        )
    found = {name: history(name) for name in names}
    for name, each in found.items():
        for note in each.notes:
            say(note)
        if not each.steps:
            raise InputError(f"{name} has no step to draw yet; try again when it has trained")
        if not each.evaluations:
            say(f"{name} has no evaluation yet: its steps alone are drawn")
        elif not each.changes():
            say(f"{name} is a base: there is nothing gained or forgotten to draw")
    return found
