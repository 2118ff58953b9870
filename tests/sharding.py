"""Trainers whose weights are spread over processes, for test_sharded.py: made, saved, looked at.

The processes are forked from the one that runs the tests, which has imported torch already.
"""

import datetime
import errno
import os
import signal
import socket
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from making import model_of, objective_of
from torch import Tensor
from torch.distributed import checkpoint as _  # noqa: F401  (here, and not in each process)
from torch.distributed import fsdp, tensor  # noqa: F401

from minicpt import checkpoint
from minicpt.checkpoint import folder as checkpoint_folder
from minicpt.checkpoint import sharded, storage
from minicpt.cli.main import main
from minicpt.common.errors import WorkError
from minicpt.common.parts import take_over
from minicpt.runs.assembly import make_remedies, make_trainer
from minicpt.runs.needs import activations
from minicpt.training.device import Machine
from minicpt.training.distributed import whole
from minicpt.training.joining import joined
from minicpt.training.resuming import state_of
from minicpt.training.trainer import Trainer, Training

STEPS = 6
PATIENCE = datetime.timedelta(seconds=200)
# What stands beside the weights: a part and a copy of the base; a generator that reads the model's
# tables; products beside frozen matrices.
CASES = {
    "copy": ("multi-token-prediction", {"kl": {"kl": 1.0}}),
    "shared": ("replaced-token-detection", {}),
    "lora": ("causal-lm", {"lora": {"lora": 2}}),
}


def launch(count: int, folder: Path, work, *given) -> list[str]:
    """``work(world, folder, …)`` in so many processes that have joined: see ``started``."""

    def joining(folder: Path) -> None:
        with joined(PATIENCE) as world:
            work(world, folder, *given)

    return started(count, folder, joining)


def started(count: int, folder: Path, work, *given) -> list[str]:
    """``work(folder, …)`` in so many processes; what went wrong in each, "": nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(300)
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}
                os.environ |= {name: str(value) for name, value in place.items()}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                torch.set_num_threads(1)
                work(folder, *given)
                told = ""
            except BaseException:
                told = traceback.format_exc()
            (folder / f"told-{rank}").write_text(told)
            sys.stdout.flush()
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return [(folder / f"told-{rank}").read_text() for rank in range(count)]


def trainer_of(case: str, material, shard: str = "weights", base=None) -> Trainer:
    """A small trainer, a new one or one that goes on from a loaded checkpoint."""
    tokenizer, corpus = material
    name, remedies = CASES[case]
    torch.manual_seed(0)
    objective = objective_of(name, tokenizer, "encoder" if case == "shared" else "decoder")
    model = base.model if base else model_of(objective, layers=2)
    remedies = make_remedies(remedies, model.ROLE, objective)
    settings = Training(batch_size=6, micro_batch_size=1)
    state = base.state() if base else None
    machine = Machine(shard=shard)
    return make_trainer(model, objective, corpus, settings, STEPS, machine, remedies, state=state)


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """All numbers of a trainer by name, whole: what learns, its moments, the remedies' own."""
    found = {name: each for name, each in trainer.alone.named_parameters()}
    parameters = [each for group in trainer.optimizer.param_groups for each in group["params"]]
    for number, parameter in enumerate(parameters):
        for name, each in trainer.optimizer.state.get(parameter, {}).items():
            found[f"{number} {name}"] = each
    for remedy in trainer.remedies:
        for name, each in remedy.state(trainer.model).items():
            found[f"{remedy.name} {name}"] = each
    return {name: whole(each.detach()).clone() for name, each in found.items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        each.dtype == expected[name].dtype and torch.equal(each, expected[name])
        for name, each in found.items()
    )


def save(trainer: Trainer, folder: Path, tokenizer) -> None:
    record = {"fused": True, "config": {"objective": "some"}}
    checkpoint.save(folder, trainer.model, tokenizer, record, state_of(trainer))


def begin(world, folder: Path, material) -> None:
    """Trains each case, saves it, and beside it what it held."""
    for case in CASES:
        trainer = trainer_of(case, material)
        (folder / f"{case}-{world.rank}.needs").write_text(str(activations(trainer)))
        trainer.advance()
        trainer.advance()
        found = everything(trainer)
        with torch.no_grad():  # as an evaluation before the saving
            trainer.alone.within(trainer.objective.losses, trainer.batch(range(2)))
        save(trainer, folder / case, material[0])
        if world.is_first:
            torch.save(found, folder / f"{case}.pt")
    refused(world, folder / "copy", material)


def refused(world, folder: Path, material) -> None:
    """One of the processes cannot write its numbers, or the first one not the rest."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    trainer = trainer_of("copy", material)
    full, last = OSError(errno.ENOSPC, "No space left"), world.size - 1
    for module, name, rank, error in (
        (storage.os, "fsync", last, full),
        (storage.os, "fsync", 0, full),
        (sharded, "fresh", 0, full),
        (checkpoint_folder, "write_manifest", 0, full),
        (sharded, "put_in_place", 0, full),
        (storage.Writer, "write_data", last, ValueError("a bug")),
    ):
        with patch.object(module, name, side_effect=error) if rank == world.rank else nullcontext():
            try:
                save(trainer, folder, material[0])
                told = "nothing"
            except (WorkError, ValueError) as found:
                told = str(found)
        assert "No space left" in told or "a bug" in told, (name, told)
        assert len(told.splitlines()) == 1 and ("(process" in told) == (name == "fsync"), told
        world.barrier()  # the first one has cleared away
        assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
        assert not list(folder.parent.glob(".*"))
        world.barrier()  # all have looked, before the first one begins again


def go_on(world, folder: Path, material, jobs: list[tuple[str, str, str]]) -> None:
    """Goes on from folders, (case, folder, shard) each: nothing may have changed."""
    for case, name, shard in jobs:
        fresh = trainer_of(case, material, shard)  # as of another run, which takes over the parts
        base = checkpoint.load(folder / name)
        assert not take_over(fresh.parts, base.state()["parts"], checkpoint.put)
        trainer = trainer_of(case, material, shard, base)
        own, taken = trainer.parts.state_dict(), fresh.parts.state_dict()
        assert all(torch.equal(whole(each), whole(own[name])) for name, each in taken.items())
        assert same(everything(trainer), torch.load(folder / f"{case}.pt")), (case, name, shard)
        assert trainer.step == 2
        trainer.advance()
        found = everything(trainer)
        save(trainer, folder / f"{name} {shard}", material[0])
        if world.is_first:
            torch.save(found, folder / f"{name} {shard}.pt")


def command(folder: Path, words: list[str]) -> None:
    """``minicpt WORDS`` under torchrun, which has status 0."""
    status = main(words)
    assert status == 0, status
