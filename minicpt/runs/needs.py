"""How much memory a run needs, and how much there is: said before the training starts.

Weights, gradients and moments are counted. What a forward pass keeps for the backward pass is
measured: on one passage, the longest of the first micro-batch, times the passages of a micro-batch.
Leaves out accelerators: the memory is that of the system.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minicpt.batch import Batch
from minicpt.checkpoint.pieces import is_sharded
from minicpt.common.errors import InputError
from minicpt.common.memory import free_memory, machine_memory, resident
from minicpt.common.randomness import seeded
from minicpt.fast.loss import held_at_once
from minicpt.models.recomputing import kept_whole, recomputed_layers
from minicpt.training.distributed import on_this_machine
from minicpt.training.trainer import Trainer

GIBIBYTE = 1 << 30
SMALL = 100 * (1 << 20)  # bytes of weights, gradients and moments: not worth a line
CLEARLY = 1.25  # an estimate may be wrong: what is refused needs so much more than there is


@dataclass(frozen=True)
class Needs:
    """Bytes of a run at its highest.

    weights      of the model, of what learns beside it, and of copies that remedies hold
    activations  what a forward pass keeps, and the logits that are held at once
    rest         the program and the texts
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    rest: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations + self.rest

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gib(value)}" for name, value in vars(self).items())
        return f"needs about {gib(self.total)} GiB ({parts})"


def gib(size: int) -> str:
    return f"{size / GIBIBYTE:.1f}"


def needs(trainer: Trainer) -> Needs:
    """The memory that the trainer's steps will need. Takes one forward pass of one passage."""
    own = list(trainer.model.parameters()) + list(trainer.parts.parameters())
    learning = bytes_of(each for each in own if each.requires_grad)
    # What remedies copied, and the model that targets are selected by.
    selection = getattr(trainer.prepare, "selection", None)
    held = [selection.reference] if selection else []
    held += [each for remedy in trainer.remedies for each in vars(remedy).values()]
    modules = {id(each): each for each in held if isinstance(each, nn.Module)}
    weights = bytes_of(own) + bytes_of(p for each in modules.values() for p in each.parameters())
    # Weights lie in memory already, and in a run that goes on the moments do: the rest remains.
    there = weights + bytes_of(
        value for each in trainer.optimizer.state.values() for value in each.values()
    )
    rest = max(0, resident() - there)
    return Needs(weights, learning, 2 * learning, activations(trainer), rest)


def bytes_of(tensors) -> int:
    """Of what this process holds of them, what is tied counted once."""
    own = [getattr(each, "_local_tensor", each) for each in tensors]
    return sum({each.data_ptr(): each.nbytes for each in own}.values())


def activations(trainer: Trainer) -> int:
    """What a micro-batch keeps for the backward pass, and the logits that are held at once."""
    settings, objective = trainer.settings, trainer.objective
    size = settings.micro_batch_size or -(-settings.batch_size // trainer.world.size)
    chosen = zip(*trainer.stream.passages(0, size), strict=True)
    alone = [objective.batch([passage], [draw]) for passage, draw in chosen]
    longest = max(alone, key=lambda each: each.inputs["tokens"].numel())
    longest = trainer.alone.within(trainer.prepare, longest.to(trainer.machine.device))
    layers = recomputed_layers(trainer.alone)
    kept = kept_by(trainer, longest)
    if layers:
        with kept_whole(layers):
            whole = kept_by(trainer, longest)
        kept += (whole - kept) // len(layers)  # one layer at a time is there as a whole
    logits = 0
    for head, count in longest.counts().items() if settings.fused_loss else ():
        if head in trainer.model.heads:
            weight = trainer.model.heads[head].weight
            held = held_at_once(size * count, len(weight), weight.requires_grad)
            logits = max(logits, 4 * held)
    return size * kept + logits


def kept_by(trainer: Trainer, batch: Batch) -> int:
    """Bytes that a forward pass of the learner keeps, parameters apart."""
    learner = trainer.alone  # as it was before a compiler
    spread, known = is_sharded(learner), addresses(learner)
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        # Weights that are spread over processes are gathered for the layer that computes.
        if storage.data_ptr() not in (addresses(learner) if spread else known):
            kept[storage.data_ptr()] = storage.nbytes()
        return value.detach()  # a result would hold the graph, and the graph the result: for ever

    learner.train()
    with seeded("needs"), torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each):
        with trainer.machine.autocast():
            found = learner(batch)  # while it is there, no storage is used twice
    del found
    if spread:
        learner.reshard()  # no backward pass follows, which would do it
    return sum(kept.values())


def addresses(learner: nn.Module) -> set[int]:
    """Where the weights lie in this process."""
    own = (getattr(each, "_local_tensor", each) for each in learner.parameters())
    return {each.untyped_storage().data_ptr() for each in own}


def check_needs(trainer: Trainer) -> str:
    """The line to say before the training; "": the run is too small for one.

    Raises InputError where it needs clearly more than the machine has.
    """
    if 4 * bytes_of(trainer.alone.parameters()) < SMALL:
        return ""
    found, most, free = needs(trainer), machine_memory(), free_memory()
    processes = on_this_machine()
    each = f" in each of {processes} processes" if processes > 1 else ""
    if most and processes * found.total > CLEARLY * most:
        raise InputError(
            f"the run {found}{each}, and this machine has {gib(most)}; use"
            " --checkpoint-activations, a smaller --micro-batch-size, --lora, or a smaller model"
        )
    there = "" if free is None else f"; {gib(free + resident())} GiB are free for it"
    return f"{found}{each}{there}"
