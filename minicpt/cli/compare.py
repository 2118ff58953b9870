"""``minicpt compare``: continued pre-training with each objective and remedy, measured.

From one base of each architecture it continues with every objective, and with every remedy against
forgetting, under one budget and with several seeds; then it says what was gained on the new text,
what was forgotten of the old, and which differences are within noise. Each part's result is kept in
a folder, so that the same command goes on where it was stopped.
"""

import argparse
import shutil
from dataclasses import dataclass
from typing import Literal

from minicpt.cli import flags
from minicpt.common.errors import InputError
from minicpt.common.outputs import check_writable, plotting
from minicpt.common.settings import Checked, setting
from minicpt.comparison import setup, through
from minicpt.comparison.plan import QUICK, Comparison
from minicpt.comparison.plot import plot
from minicpt.comparison.table import text
from minicpt.runs.console import print_json, say, summary_of, tell
from minicpt.training.device import Machine

EXAMPLES = """examples:
  minicpt compare --quick
  minicpt compare --init runs/base --corpus notes/ --remedies replay kl --seeds 5
"""


@dataclass(frozen=True)
class What(Checked):
    """Which texts, from which base, and where to."""

    corpus: tuple[str, ...] = setting(("builtin:code",), "the new text")
    old_corpus: tuple[str, ...] = setting(
        (), "the old text (default: builtin:docs, or what the folder of --init says)"
    )
    control: tuple[str, ...] = setting(
        (), "the wrong text, on which the control spends its budget (default: the old text)"
    )
    blocks: bool = setting(False, "a document is a block between blank lines, not a whole file")
    errors: Literal["strict", "replace"] = setting(
        "strict", "what is not UTF-8: refuse it, or replace it and say how often"
    )
    held_out: float = setting(
        0.2, "share of each text that is kept for evaluation", above=0, most=0.5
    )
    characters: int = setting(4_000_000, "the most characters of each text; 0: all", least=0)
    init: str | None = setting(
        None, "take this checkpoint, or Hugging Face folder, as the base", metavar="DIR"
    )
    out: str | None = setting(
        None, "folder for the results (default: runs/compare, or runs/compare-quick)", metavar="DIR"
    )
    objectives: tuple[str, ...] = setting(
        (), "compare these alone (default: all that fit)", metavar="OBJECTIVE"
    )
    remedies: tuple[str, ...] = setting(
        (), "beside no remedy, these: replay self-replay kl l2 lora control (default: all)",
        metavar="REMEDY",
    )  # fmt: skip


def add(verbs) -> None:
    parser = verbs.add_parser(
        "compare",
        help="continued pre-training with each objective: gained, forgotten",
        description=summary_of(__doc__),
        epilog=EXAMPLES,
    )
    add_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """All flags but --json, which the benchmark has otherwise."""
    changed = ", ".join(f"--{k.replace('_', '-')} {v}" for k, v in QUICK.items() if v is not True)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="within ten minutes on two cores: remedies with causal-lm alone, each base trained"
        f" once, {changed}",
    )
    flags.add(parser, "texts and folders", What)
    flags.add(parser, "the budget, the sizes, the remedies", Comparison)
    flags.add(parser, "the machine", Machine)
    parser.add_argument("--plot", metavar="PATH", help="draw forgotten against gained (matplotlib)")


def run(arguments: argparse.Namespace) -> int:
    result, status = compare(arguments, tell=(lambda line: None) if arguments.json else tell)
    if status:
        return status
    if arguments.json:
        print_json(result.plain())
    else:
        tell("\n" + shown(result))
    return 0


def shown(result: through.Result) -> str:
    """The result as text, in the width of the terminal."""
    width = shutil.get_terminal_size().columns - 1
    return text(result.rows, result.bases, result.sentences, result.label, width)


def compare(arguments: argparse.Namespace, tell) -> tuple[through.Result | None, int]:
    """The whole comparison, and the exit status; without a result where it was interrupted.

    Everything that can be wrong is found before the first step.
    """
    what, machine = flags.build(arguments, What), flags.build(arguments, Machine)
    defaults = QUICK if arguments.quick else {}
    comparison = Comparison(**(defaults | flags.given(arguments, Comparison)))
    if what.init:
        made = ("base_steps", "base_learning_rate", "one_base", "vocab_size", "width", "layers")
        rest = [name for name in vars(comparison) if name not in made]
        flags.refuse(arguments, Comparison, "the base comes from --init", but=tuple(rest))
    check_writable(arguments.plot)
    if arguments.plot:
        plotting()
    if len(set(what.objectives)) < len(what.objectives):
        raise InputError("--objectives names one of them twice; name each once")
    machine.prepare(say)
    job = setup.prepare(what, comparison, machine, arguments.quick, tell)
    result, status = job.go(tell)
    if result and arguments.plot:
        plot(arguments.plot, result.rows, result.label)
        tell(f"drawn in {arguments.plot}")
    return result, status
