"""``minicpt compare``: continued pre-training with each objective and remedy, measured.

From one base of each role it continues with every objective, and with every remedy against
forgetting, under one budget and with several seeds; then it says what was gained on the new text,
what was forgotten of the old, and which differences are within noise. Each part's result is kept in
a folder, so that the same command goes on where it was stopped.
"""

import argparse
import shutil

from minicpt import comparison
from minicpt.cli import flags
from minicpt.comparison.plan import QUICK, groups
from minicpt.runs.console import print_json, tell
from minicpt.runs.signals import Interrupted

EXAMPLES = """examples:
  minicpt compare --quick
  minicpt compare --init runs/base --corpus notes/ --remedies replay kl --seeds 5
"""
PROCESSES = True  # torchrun may start it


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    add_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """All flags but --json, which the benchmark has otherwise."""
    changed = ", ".join(f"--{k.replace('_', '-')} {v}" for k, v in QUICK.items() if v is not True)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="within ten minutes on two cores: one objective a role, remedies with causal-lm alone,"
        f" each base trained once, {changed}",
    )
    for title, classes in groups().items():
        flags.add(parser, title, *classes)
    parser.add_argument("--plot", metavar="PATH", help="draw forgotten against gained (matplotlib)")


def run(arguments: argparse.Namespace) -> int:
    result, status = compared(arguments, (lambda line: None) if arguments.json else tell)
    if result and arguments.json:
        print_json(result.plain())
    elif result:
        tell("\n" + shown(result))
    return status


def compared(arguments: argparse.Namespace, tell) -> tuple[comparison.Result | None, int]:
    """The result, and the exit status; no result where the comparison was interrupted."""
    given = {}
    for classes in groups().values():
        for settings in classes:
            given |= flags.given(arguments, settings)
    try:
        return comparison.compare(arguments.quick, arguments.plot, tell, **given), 0
    except Interrupted as interrupted:
        return None, 128 + interrupted.number


def shown(result: comparison.Result) -> str:
    """The result as text, in the width of the terminal."""
    return result.text(shutil.get_terminal_size().columns - 1)
