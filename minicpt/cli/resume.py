"""``minicpt resume``: goes on with a run that was interrupted, exactly as if it had not been."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from minicpt import checkpoint
from minicpt.cli import flags
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.runs.console import print_json, say
from minicpt.runs.lock import held
from minicpt.runs.resume import resumed
from minicpt.training.device import Machine, return_freed_memory

PROCESSES = True  # torchrun may start it

EXAMPLES = """examples:
  minicpt resume runs/first
  minicpt resume runs/first --steps 2000
"""


@dataclass(frozen=True)
class Length(Checked):
    steps: int | None = setting(
        None,
        "how many steps in all, where the learning rate has not begun to fall (default: as the run"
        " began); --self-replay repeats what was written for the first length",
        least=1,
        most=10**9,
    )


@dataclass(frozen=True)
class Changes(Checked):
    accept_changes: bool = setting(
        False,
        "go on although the text, the tokenizer or the reference is not the one of the run any"
        " more",
    )


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("folder", metavar="DIR", help="the folder of the run")
    flags.add(parser, "another length", Length)
    flags.add(parser, "another machine", Machine, default="as the run began")
    flags.add(parser, "what has changed", Changes)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    accept = flags.build(arguments, Changes).accept_changes
    machine = flags.given(arguments, Machine)
    steps = flags.build(arguments, Length).steps
    folder = run_folder(arguments.folder)
    with held(folder, lambda: checkpoint.clean(folder)):
        return_freed_memory()
        run = resumed(arguments.folder, folder, machine, accept, arguments.json, steps)
        trainer = run.trainer
        if trainer.step == trainer.steps and run.looked():
            say(f"{arguments.folder} is already at its last step, {trainer.step}; nothing to do")
            status = 0
        else:
            say(f"going on after step {trainer.step} of {trainer.steps}")
            status = run.go()
    if arguments.json:
        print_json(run.record | {"out": str(run.folder), "evaluations": run.history})
    return status


def run_folder(path: str) -> Path:
    """The folder of a run, given itself or one of its checkpoints."""
    folder = Path(path)
    if checkpoint.is_step(Path(os.path.abspath(path))):
        folder = Path(os.path.abspath(path)).parent
    if not folder.is_dir():
        raise InputError(f"{path} is not a folder; give the folder of a run")
    if not [*folder.glob("step-*"), *folder.glob(".step-*")]:
        raise InputError(f"{path} is not a run of minicpt; start one with train --init")
    return folder
