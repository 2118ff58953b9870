"""A run that goes on, exactly as if it had not been interrupted."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch

from minicpt import checkpoint, remedies
from minicpt.checkpoint import Checkpoint
from minicpt.common.errors import InputError
from minicpt.remedies.base import Remedy
from minicpt.runs.assembly import make_objective, make_remedies, objective_kind
from minicpt.runs.build import Start, assembled
from minicpt.runs.config import Length, RunConfig
from minicpt.runs.console import command, say
from minicpt.runs.fitting import check_fit, check_kind
from minicpt.runs.loop import Run, versions
from minicpt.runs.reference import record_of
from minicpt.runs.table import CHANGES
from minicpt.runs.texts import check_held_out, old_texts, recorded_texts
from minicpt.training.device import Machine
from minicpt.training.distributed import current
from minicpt.training.joining import launched
from minicpt.training.resuming import lengthened


def resumed(
    path: str | Path,
    folder: Path | None = None,
    changes: Mapping[str, object] | None = None,
    accept: bool = False,
    quiet: bool = False,
    steps: int | None = None,
) -> Run:
    """The run as it was after its newest whole checkpoint, or after the one that is named.

    changes  of its machine
    accept   though its text may be another one
    steps    its new length; None: the one it has
    """
    base = checkpoint.load(path)
    if not base.record:
        raise InputError(f"{path} is not a run of minicpt; start one with train --init")
    for note in base.notes:
        say(note)
    try:
        return revived(base, folder, changes or {}, accept, quiet, steps)
    except (KeyError, TypeError, AttributeError) as error:
        # The manifest holds, so this is no damage: some other program wrote the record.
        raise InputError(
            f"{base.folder / checkpoint.RECORD} is not what minicpt writes ({error!r:.100}); use"
            " another checkpoint"
        ) from None


def revived(
    base: Checkpoint,
    folder: Path | None,
    changes: Mapping[str, object],
    accept: bool,
    quiet: bool,
    steps: int | None,
) -> Run:
    record = base.record
    config = RunConfig.of(record["config"])
    steps, config = longer(base, config, steps) if steps else (record["steps"], config)
    if base.tokenizer.sha256 != record["tokenizer"]:
        told(f"the tokenizer in {base.folder} is not the one of the run; put it back", accept)
    if record_of(config.selecting) != record.get("reference", {}):
        told(f"{config.selecting.reference} is not the run's reference; put it back", accept)
    for name, value in versions().items():
        if record["versions"][name] != value:
            say(f"{name} was {record['versions'][name]} and is {value}: results may differ")
    machine = machine_of(config.machine, record["threads"], changes)
    world = current()
    machine = world.machine(machine, config.training).prepare(say)
    world.check_sum(machine)
    before = record.get("processes", 1)
    if before != world.size:
        say(f"going on with {world.size} processes, after {before}: results may differ")
    kind = objective_kind(config.objective)
    check_kind(base.model, config.objective, base.folder)
    settings = kind.Settings(**config.settings)
    objective = make_objective(kind, base.tokenizer, settings, base.model)
    check_fit(base.model, objective, base.folder)
    (text,) = [recorded_texts(each, accept) for each in record["texts"]]
    old = old_texts(record["old_texts"])
    remedies = make_remedies(config.remedies, base.model.ROLE)
    start = Start(base.model, objective, text, old, remedies, read=record["read"])
    on_machine = dataclasses.replace(config, machine=machine)
    run = assembled(
        on_machine, start, Length(steps=steps).count, folder, quiet, accept, base.state()
    )
    check_held_out(run.record["held_out"], record["held_out"])
    run.record["before"] = unchanged(record, run.record)
    # The threads that were asked for stay as they were: how many there were is said beside them.
    run.record["config"]["machine"] = record["config"]["machine"] | dict(changes)
    run.record["config"]["machine"]["dtype"] = machine.dtype  # what "auto" has become
    run.record |= {name: record[name] for name in ("old_texts", "held_out", "vocabulary", "base")}
    run.history = record["evaluations"]
    if not all(type(each["step"]) is int for each in run.history):
        raise TypeError("evaluations without their steps")
    run.saved = run.trainer.step, len(run.history)
    return run


def unchanged(known: dict, found: dict) -> dict[str, dict]:
    """What the base made of the held-out texts, as far as these are still the same.

    Gained and forgotten are differences to it, and mean nothing on another text.

    known, found  the record of the run, and what it is now
    """
    same = {}
    for name, before in known["before"].items():
        side = {"held out": "texts", "old text": "old_texts"}[name]
        then, now = ([each["sha256"] for each in record[side]] for record in (known, found))
        if then == now:
            same[name] = before
        else:
            say(f"{CHANGES[name][0]} is not shown any more: the text it began with has changed")
    return same


def told(problem: str, accept: bool) -> None:
    """A change that makes another run of it: refused unless it was accepted."""
    if not accept:
        raise InputError(f"{problem}, or accept it with --accept-changes")
    say(f"{problem.split(';')[0]}: accepted, so the run does not end as it would have")


def longer(base: Checkpoint, config: RunConfig, steps: int) -> tuple[int, RunConfig]:
    """Steps and settings of a run that shall have ``steps`` steps in all."""
    done, old = base.record["step"], base.record["steps"]
    if steps < done:
        raise InputError(f"--steps {steps} is less than the {done} that are done; give more")
    if base.folder != checkpoint.steps(base.folder.parent)[-1]:
        raise InputError(
            f"--steps goes on from a run's newest checkpoint, and {base.folder} is not it; start a"
            f" new run: {command('train', config.objective, '--init', base.folder)}"
        )
    if done == old:
        for name in config.remedies:
            if remedies.known()[name].at_end is not Remedy.at_end:
                raise InputError(
                    f"--steps cannot go on from the end of a run with --{name}, which changed the"
                    " weights after the last step; start a new run with --init"
                )
    settings = lengthened(done, old, steps, config.training)
    return steps, dataclasses.replace(config, training=settings)


def machine_of(asked: Machine, threads: int, changes: Mapping[str, object]) -> Machine:
    """The machine of a run, with what shall be changed; says what differs.

    threads  how many the run had
    """
    began = dataclasses.replace(asked, threads=threads)
    if not launched() and "shard" not in changes:
        began = dataclasses.replace(began, shard="none")
    own = torch.get_num_threads()
    if asked.threads is None and "threads" not in changes and own != threads:
        say(f"going on with {threads} threads, as the run began; torch would take {own} here")
    for name, value in changes.items():
        if value != getattr(began, name):
            say(f"--{name} was {getattr(began, name)} and is {value}: results may differ")
    return dataclasses.replace(began, **changes)
