"""``minicpt resume``: goes on with a run that was interrupted, exactly as if it had not been."""

import argparse
import dataclasses

import torch

from minicpt import checkpoint
from minicpt.cli import continuing, flags, pieces
from minicpt.cli.running import Run, Watch, print_json, say, summary_of, versions
from minicpt.errors import InputError
from minicpt.machine import Machine
from minicpt.partial import Partial, restrict
from minicpt.training import Trainer, Training

EXAMPLES = """examples:
  minicpt resume runs/first
  minicpt resume runs/first --json
"""


def add(verbs) -> None:
    parser = verbs.add_parser(
        "resume",
        help="go on with an interrupted run",
        description=summary_of(__doc__),
        epilog=EXAMPLES,
    )
    parser.add_argument("folder", metavar="DIR", help="the folder of the run")
    flags.add(parser, "another machine", Machine, default="as the run began")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    run = restored(arguments.folder, flags.given(arguments, Machine), arguments.json)
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


def restored(path: str, changes: dict, quiet: bool) -> Run:
    """The run as it was after its newest whole checkpoint, on its machine with ``changes``."""
    base = checkpoint.load(path)
    if not base.record:
        raise InputError(f"{path} is not a run of minicpt; start one with train --init")
    for note in base.notes:
        say(note)
    record = base.record
    if base.tokenizer.sha256 != record["tokenizer"]:
        raise InputError(f"the tokenizer in {base.folder} is not the one of the run; put it back")
    for name, value in versions().items():
        if record["versions"][name] != value:
            say(f"{name} was {record['versions'][name]} and is {value}: results may differ")
    machine = machine_of(record, changes)
    machine.prepare(say)
    module = pieces.objective_module(record["objective"])
    objective = module.Objective(base.tokenizer, module.Settings(**record["objective_settings"]))
    text = pieces.recorded_texts(record["text"])
    old = pieces.old_texts(record["old_texts"])
    corpus, held_out = pieces.corpora(text, old, base.tokenizer)
    settings = Training(**record["training"])
    state = base.state()
    mixed = continuing.recorded(record["replay"], state, objective, text, old)
    restrict(base.model, Partial(**record["partial"]), settings.seed)
    replayed = mixed and mixed.replay
    trainer = Trainer(base.model, objective, corpus, settings, record["steps"], machine, replayed)
    trainer.restore(state)
    folder = base.folder.parent
    watch = Watch(**record["watch"])
    kept = {key: record[key] for key in record if key not in ("step", "evaluations")}
    kept["machine"] = record["machine"] | changes
    return Run(
        trainer,
        base.tokenizer,
        held_out,
        watch,
        kept,
        folder,
        quiet=quiet,
        history=record["evaluations"],
    )


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
