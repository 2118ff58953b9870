"""``minicpt generate``: what a model does with a text. A decoder continues it, an encoder fills in
its mask tokens or judges its sentences, an encoder-decoder repairs it."""

import argparse
from dataclasses import dataclass

from minicpt import checkpoint, objectives
from minicpt.cli import flags
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.common.registry import name_of
from minicpt.common.settings import MOST, Checked, setting
from minicpt.generation import Sampling
from minicpt.objectives.base import Objective
from minicpt.runs import parts
from minicpt.runs.console import print_json, say
from minicpt.runs.fitting import objective_of
from minicpt.training.device import Machine

EXAMPLES = """examples:
  minicpt generate runs/first "The statement" --length 200 --temperature 0.5 --seed 1
  minicpt generate runs/middle "The statement" --suffix "is executed."
"""
COMMON = ("length", "temperature")  # of Sampling: what every objective may use


@dataclass(frozen=True)
class How(Checked):
    seed: int = setting(0, "seed of the draws", least=0, most=MOST)
    objective: str | None = setting(
        None, "another objective than the one of the training", metavar="OBJECTIVE"
    )


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("folder", metavar="DIR", help="a checkpoint or the folder of a run")
    parser.add_argument("text", metavar="TEXT", nargs="?", default="", help="the text")
    flags.add(parser, "sampling", Sampling, How)
    flags.add(parser, "the machine", Machine, but=("compile",))
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    sampling, how = flags.build(arguments, Sampling), flags.build(arguments, How)
    machine = flags.build(arguments, Machine).prepare(say)
    base = checkpoint.load(arguments.folder)
    for note in base.notes:
        say(note)
    objective = objective_of(base, how.objective)
    if not arguments.text.strip() and objective.needs_text:
        raise InputError(f"the model in {arguments.folder} needs a TEXT to work on; give one")
    check_options(arguments, objective)
    draws = generator("generate", how.seed)
    beside, new = parts.of_checkpoint(base, objective)
    if not new:
        objective = objective.with_parts(beside.to(machine.device))
    with machine.autocast():
        model = base.model.to(machine.device)
        text = objective.generate(model, arguments.text, sampling, draws)
    if arguments.json:
        print_json({"text": arguments.text, "result": text})
    else:
        print(text)
    return 0


def check_options(arguments: argparse.Namespace, objective: Objective) -> None:
    """InputError for a flag that the objective's ``generate`` does not use."""
    for name in flags.given(arguments, Sampling):
        if name in COMMON or name in objective.sampling:
            continue
        takes = [each for each, kind in objectives.known().items() if name in kind.sampling]
        raise InputError(
            f"--{name} cannot be used here: the objective is {name_of(type(objective))}, and it is"
            f" for {' and '.join(takes) or 'none that is there'}; leave it out, or give --objective"
        )
