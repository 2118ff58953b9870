"""``minicpt resume``: goes on with a run that was interrupted, exactly as if it had not been."""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from minicpt import checkpoint
from minicpt.cli import flags, train
from minicpt.cli.hints import command
from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.remedies.adapters import Partial, restrict
from minicpt.runs import build, continuing, terms
from minicpt.runs.lock import locked
from minicpt.runs.loop import Run, Watch, print_json, say, summary_of, versions
from minicpt.runs.table import CHANGES
from minicpt.training.device import Machine
from minicpt.training.optimizer import lengthened
from minicpt.training.trainer import Trainer, Training

EXAMPLES = """examples:
  minicpt resume runs/first
  minicpt resume runs/first --steps 2000
"""


@dataclass(frozen=True)
class Length(Checked):
    steps: int | None = setting(
        None,
        "how many steps in all, where the learning rate has not begun to fall (default: as the run"
        " began); --replay self repeats what was written for the first length",
        least=1,
        most=10**9,
    )


@dataclass(frozen=True)
class Changes(Checked):
    accept_changes: bool = setting(
        False, "go on although the text or the tokenizer is not the one of the run any more"
    )


def add(verbs) -> None:
    parser = verbs.add_parser(
        "resume",
        help="go on with an interrupted run",
        description=summary_of(__doc__),
        epilog=EXAMPLES,
    )
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
    with locked(folder):
        checkpoint.clean(folder)
        run = restored(arguments.folder, folder, machine, accept, arguments.json, steps)
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


def restored(
    path: str, folder: Path, changes: dict, accept: bool, quiet: bool, steps: int | None = None
) -> Run:
    """The run as it was after its newest whole checkpoint, or after the one that is named.

    It goes on on its machine with ``changes``; ``accept``: though its text may be another one.

    steps  its new length; None: the one it has
    """
    base = checkpoint.load(path)
    if not base.record:
        raise InputError(f"{path} is not a run of minicpt; start one with train --init")
    for note in base.notes:
        say(note)
    try:
        return revived(base, folder, changes, accept, quiet, steps)
    except (KeyError, TypeError, AttributeError) as error:
        # The manifest holds, so this is no damage: some other program wrote the record.
        raise InputError(
            f"{base.folder / checkpoint.RECORD} is not what minicpt writes ({error!r:.100}); use"
            " another checkpoint"
        ) from None


def revived(base, folder: Path, changes: dict, accept: bool, quiet: bool, steps) -> Run:
    record = base.record | (longer(base, steps) if steps else {})
    if base.tokenizer.sha256 != record["tokenizer"]:
        told(f"the tokenizer in {base.folder} is not the one of the run; put it back", accept)
    for name, value in versions().items():
        if record["versions"][name] != value:
            say(f"{name} was {record['versions'][name]} and is {value}: results may differ")
    machine = machine_of(record, changes)
    machine.prepare(say)
    module = build.objective_module(record["objective"])
    build.check_kind(base.model, record["objective"], base.folder)
    objective = module.Objective(base.tokenizer, module.Settings(**record["objective_settings"]))
    build.check_fit(base.model, objective, base.folder)
    text = build.recorded_texts(record["text"], accept)
    old = build.old_texts(record["old_texts"])
    apart = build.held_out(text, old)
    build.check_held_out(apart, record["held_out"])
    corpus, held_out = build.corpora(text, apart, base.tokenizer)
    build.check_plans(objective, {"training": corpus} | held_out)
    settings, length = Training(**record["training"]), train.Length(steps=record["steps"])
    state = base.state()
    mixed = continuing.recorded(record["replay"], state, objective, text, old, accept)
    restrict(base.model, Partial(**record["partial"]), settings.seed)
    near = terms.built(terms.recorded(record["regularizers"]), base.model, machine.device)
    replayed = mixed and mixed.replay
    trainer = Trainer(
        base.model, objective, corpus, settings, length.steps, machine, near, replayed
    )
    trainer.restore(state)
    watch = Watch(**record["watch"])
    before = unchanged(record, text, old)
    kept = {key: record[key] for key in record if key not in ("step", "evaluations")}
    kept |= {"text": text.record, "tokenizer": base.tokenizer.sha256}
    kept |= {"replay": mixed and mixed.record, "before": before}
    kept["machine"] = record["machine"] | changes
    history = record["evaluations"]
    if not all(type(each["step"]) is int for each in history):
        raise TypeError("evaluations without their steps")
    saved = trainer.step, len(history)
    return Run(
        trainer, base.tokenizer, held_out, watch, kept, folder, quiet, history, saved
    )  # fmt: skip


def unchanged(record: dict, text: build.Texts, old: Sequence[build.Texts]) -> dict[str, dict]:
    """What the base made of the held-out texts, as far as these are still the same.

    Gained and forgotten are differences to it, and mean nothing on another text.
    """
    found = {"held out": [text.record], "old text": [each.record for each in old]}
    known = {"held out": [record["text"]], "old text": record["old_texts"]}
    same = {}
    for name, before in record["before"].items():
        if [each["sha256"] for each in found[name]] == [each["sha256"] for each in known[name]]:
            same[name] = before
        else:
            say(f"{CHANGES[name][0]} is not shown any more: the text it began with has changed")
    return same


def told(problem: str, accept: bool) -> None:
    """A change that makes another run of it: refused unless it was accepted."""
    if not accept:
        raise InputError(f"{problem}, or accept it with --accept-changes")
    say(f"{problem.split(';')[0]}: accepted, so the run does not end as it would have")


def longer(base: checkpoint.Checkpoint, steps: int) -> dict:
    """What changes in the record of a run that shall have ``steps`` steps in all."""
    done, old = base.record["step"], base.record["steps"]
    if steps < done:
        raise InputError(f"--steps {steps} is less than the {done} that are done; give more")
    if base.folder != checkpoint.steps(base.folder.parent)[-1]:
        raise InputError(
            f"--steps goes on from a run's newest checkpoint, and {base.folder} is not it; start a"
            f" new run: {command('train', base.record['objective'], '--init', base.folder)}"
        )
    settings = lengthened(done, old, steps, Training(**base.record["training"]))
    return {"steps": steps, "training": dataclasses.asdict(settings)}


def machine_of(record: dict, changes: dict) -> Machine:
    """The machine of a run, with what was asked to be changed; says what differs."""
    asked = Machine(**record["machine"])
    began = dataclasses.replace(asked, threads=record["threads"])
    own = torch.get_num_threads()
    if asked.threads is None and "threads" not in changes and own != began.threads:
        say(f"going on with {began.threads} threads, as the run began; torch would take {own} here")
    machine = dataclasses.replace(began, **changes)
    for name, value in changes.items():
        if value != getattr(began, name):
            say(f"--{name} was {getattr(began, name)} and is {value}: results may differ")
    return machine
