"""Several processes that train one model: ``torchrun --nproc-per-node 2 -m minicpt train …``.

PyTorch does the work: DistributedDataParallel (each process holds all weights), FSDP2
(``fully_shard``: each holds a share of weights, gradients and moments), gloo and nccl. Written here
is only what keeps the promises of one process:

* Each process takes whole micro-batches of a step, by place: ``deal``.
* The gradient is the sum over all processes. Both engines average by default; here they add, and
  ``check_sum`` tries it on one known gradient at the start, since versions of torch differ.
* What is counted is added up before the first backward pass.

``current()`` is the world of this process: ``ALONE`` unless torchrun has started it (``joining``).
Nothing of ``torch.distributed`` is touched there.

Left out: tensor and pipeline parallelism, and shards within groups of processes (HSDP).
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from minicpt.batch import IGNORE, Batch
from minicpt.common.errors import InputError, WorkError
from minicpt.loss import Loss
from minicpt.remedies.base import Remedy

SLOT = 512  # bytes of a small message; a longer one takes a second exchange


def deal(places: range, size: int, rank: int = 0, processes: int = 1) -> list[range]:
    """The micro-batches of one process in a step, which reads these places of the stream.

    Micro-batches are cut by their size alone, so they are the same for any number of processes.
    They go round: 0 to the first process, 1 to the second. Where some are left without one in the
    last round, theirs is empty, so that all take part in everything equally often.

    >>> deal(range(7), 2, rank=0, processes=3), deal(range(7), 2, rank=2, processes=3)
    ([range(0, 2), range(6, 7)], [range(4, 6), range(0, 0)])
    """
    every = [places[at : at + size] for at in range(0, len(places), size)]
    rounds = -(-len(every) // processes)
    mine = range(rank, rounds * processes, processes)
    return [every[number] if number < len(every) else places[:0] for number in mine]


def without_targets(batch: Batch) -> Batch:
    """The same batch, in which nothing is predicted."""
    targets = {head: torch.full_like(each, IGNORE) for head, each in batch.targets.items()}
    return replace(batch, targets=targets)


def add_losses(total: dict[str, dict[str, Loss]], found: Mapping[str, Mapping[str, Loss]]) -> None:
    """Adds losses, by name and head, to a total. No gradient flows through it."""
    for name, losses in found.items():
        known = total.setdefault(name, {})
        for head, loss in losses.items():
            known[head] = known[head] + loss.detach() if head in known else loss.detach()


@dataclass(frozen=True)
class World:
    """The processes of a run, as one of them sees them. This class: one process alone.

    rank   of this process, from 0, and ``local`` that among those of its machine
    size   how many there are
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this one prints, logs and names folders."""
        return self.rank == 0

    def share(self, places: range, size: int) -> list[range]:
        """This process's micro-batches: see ``deal``. ``size`` 0: one for each process."""
        return deal(places, size or -(-len(places) // self.size), self.rank, self.size)

    def barrier(self) -> None:
        """Waits until all are here."""

    def gathered(self, value) -> list:
        """The plain data (what JSON holds) of all processes, in their order."""
        return [value]

    def told(self, value):
        """The plain data of the first process, for all."""
        return self.gathered(value if self.is_first else None)[0]

    def added(self, counts: Mapping[str, int]) -> Counter:
        """Counts, summed over all processes."""
        return sum(map(Counter, self.gathered(dict(counts))), Counter())

    def added_losses(self, losses: dict[str, dict[str, Loss]]) -> dict[str, dict[str, Loss]]:
        """Losses by name and head, summed over all processes."""
        return losses

    def machine(self, asked, training=None):
        """The machine that was asked for, as this process uses it.

        training  the run's; None: nothing is trained. Raises InputError where it cannot be used.
        """
        if asked.shard != "none":
            raise InputError(
                f"--shard {asked.shard} needs several processes; start them with: torchrun"
                " --nproc-per-node 2 -m minicpt …"
            )
        return asked

    def check_sum(self, machine) -> None:
        """Tries on a known gradient that the processes' gradients are added: see ``check_sum``."""

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process of each machine does it, while the others wait; then they do."""
        if self.local:
            self.barrier()
        yield
        if not self.local:
            self.barrier()

    def wrapped(self, learner: nn.Module, shard: str = "none") -> nn.Module:
        """What the training step calls: the same forward; its gradients are sums over all."""
        return learner

    def communicate(self, learner: nn.Module, now: bool) -> None:
        """Whether the next backward pass adds up the gradients: in a step, the last one does."""


ALONE = World()
worlds = [ALONE]  # the last one is entered


def current() -> World:
    """The world of this process."""
    return worlds[-1]


def on_this_machine() -> int:
    """How many processes of the run share this machine's memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if current().size > 1 else 1


class Processes(World):
    """Several processes, or one under torchrun: the real thing."""

    def barrier(self) -> None:
        self.gathered(None)

    def gathered(self, value) -> list:
        content = json.dumps(value).encode()
        found = self._exchanged(content, SLOT)
        longest = max(size for size, _ in found)
        if longest > SLOT:
            found = self._exchanged(content, longest)
        return [json.loads(data[:size]) for size, data in found]

    def _exchanged(self, content: bytes, room: int) -> list[tuple[int, bytes]]:
        """The length of each one's content, and as much of it as there is room for."""
        sent = len(content).to_bytes(8, "little") + content[:room].ljust(room, b"\0")
        own = torch.frombuffer(bytearray(sent), dtype=torch.uint8)
        every = [torch.empty_like(own) for _ in range(self.size)]
        torch.distributed.all_gather(every, own)
        data = [bytes(each.tolist()) for each in every]
        return [(int.from_bytes(each[:8], "little"), each[8:]) for each in data]

    def added_losses(self, losses: dict[str, dict[str, Loss]]) -> dict[str, dict[str, Loss]]:
        plain = {
            name: {head: [float(loss.sum), loss.count] for head, loss in each.items()}
            for name, each in losses.items()
        }
        total: dict[str, dict[str, Loss]] = {}
        for found in self.gathered(plain):
            for each in found.values():
                for head, (value, count) in each.items():
                    each[head] = Loss(torch.tensor(value, dtype=torch.float64), count)
            add_losses(total, found)
        return total

    def machine(self, asked, training=None):
        if asked.kind not in ("cpu", "cuda"):
            raise InputError(f"--device {asked.kind} has no way to exchange; use cpu or cuda")
        if asked.shard != "none" and asked.compile:
            raise InputError("--shard weights and --compile exclude each other; give one of them")
        if asked.kind == "cuda":
            count = torch.cuda.device_count()
            if self.several <= count and not torch.distributed.is_nccl_available():
                raise InputError("this torch has no nccl, which GPUs exchange with; use cpu")
            if count:
                asked = replace(asked, device=f"cuda:{self.local % count}")
        if training:
            size = training.micro_batch_size or -(-training.batch_size // self.size)
            if (count := -(-training.batch_size // size)) < self.size:
                raise InputError(
                    f"{self.size} processes share {count} micro-batches of a step; use"
                    f" {count} processes, a larger --batch-size, or a smaller --micro-batch-size"
                )
        return asked

    @property
    def several(self) -> int:
        """How many processes this machine has."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def check_sum(self, machine) -> None:
        try:
            check_sum(self, machine.shard, machine.device)
        except AttributeError as error:  # an older FSDP2 has not all that ``sharded`` asks of it
            raise InputError(
                f"--shard {machine.shard} needs a newer torch than {torch.__version__} ({error})"
            ) from None

    def wrapped(self, learner: nn.Module, shard: str = "none") -> nn.Module:
        if shard == "weights":
            return sharded(learner)
        found = nn.parallel.DistributedDataParallel(
            learner,
            # A head that the objective does not ask has no gradient, as in one process.
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )
        found.register_comm_hook(None, summed)
        return found

    def communicate(self, learner: nn.Module, now: bool) -> None:
        if isinstance(learner, nn.parallel.DistributedDataParallel):
            learner.require_backward_grad_sync = now  # all that its no_sync() does
        else:
            learner.set_requires_gradient_sync(now)


def summed(state, bucket) -> torch.futures.Future[torch.Tensor]:
    """DDP's exchange of a bucket of gradients: their sum, where DDP itself takes the mean."""
    work = torch.distributed.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


def sharded(learner: nn.Module) -> nn.Module:
    """FSDP2 by layer and root. The module is changed in place, and stays what it is.

    Where a remedy reads all weights at once (``on_weights``), they are gathered as one unit.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    kind = next(learner.parameters()).device.type
    mesh = init_device_mesh(kind, (torch.distributed.get_world_size(),))
    lists = (each for name, each in learner.named_modules() if name.split(".")[-1] == "layers")
    layers = [layer for each in lists for layer in each]
    if any(type(x).on_weights is not Remedy.on_weights for x in getattr(learner, "remedies", ())):
        layers = []
    for module in (*layers, learner):
        fully_shard(module, mesh=mesh)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo has no other sum
    if hasattr(learner, "within"):  # the other way through ``Learner``
        register_fsdp_forward_method(learner, "within")
        through = learner.within

        def within(*given):
            found = through(*given)
            learner.reshard()  # no backward pass follows, which would do it
            return found

        learner.within = within
    return learner


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor of which each process holds a share, as a whole; any other as it is."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def check_sum(world: World, shard: str, device: str = "cpu") -> None:
    """Tries on a known gradient that the processes' gradients are added, each counted once.

    The process of rank r has the gradient r + 1 from each of two backward passes. Raises WorkError.
    """
    learner = nn.Linear(3, 1, bias=False, device=device)
    module = world.wrapped(learner, shard)
    for now in (False, True):
        world.communicate(module, now)
        (module(torch.ones(1, 3, device=device)).sum() * (world.rank + 1)).backward()
    found = whole(learner.weight.grad)
    expected = float(world.size * (world.size + 1))
    if not torch.equal(found, torch.full_like(found, expected)):
        raise WorkError(
            f"torch {torch.__version__} makes {found.flatten()[0].item():g} of gradients whose sum"
            f" is {expected:g}; use another version of torch"
        )


def check_same(world: World, facts: Mapping[str, object]) -> None:
    """InputError in a process whose facts differ from the first one's, by their names."""
    expected = world.told(dict(facts))
    for name, value in facts.items():
        if expected.get(name) != value:
            raise InputError(
                f"{name} differs between the processes: process 0 has"
                f" {expected.get(name)!s:.20}, process {world.rank} has {value!s:.20}; give all of"
                " them the same"
            )
