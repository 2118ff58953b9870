"""Tensors that lie in pieces: in several files, or spread over processes (DTensors of FSDP2).

``put`` copies either kind into either. Leaves out what the files are: see ``sharded``.
"""

import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minicpt.checkpoint.filling import fill


@dataclass(frozen=True)
class Pieces:
    """A tensor whose rows lie in parts, one below the other; one without dimensions in one part.

    mapped  whether the parts lie in mapped files
    """

    shape: torch.Size
    dtype: torch.dtype
    parts: list[Tensor]
    mapped: bool = True

    def joined(self) -> Tensor:
        whole = torch.empty(self.shape, dtype=self.dtype)
        fill(whole, self.parts, self.mapped)
        return whole


def is_sharded(value: Tensor | nn.Module) -> bool:
    """Whether a tensor, or a weight of a module, is spread over processes (a DTensor)."""
    if isinstance(value, nn.Module):
        return any(is_sharded(each) for each in value.parameters())
    return hasattr(value, "full_tensor")


def spread(
    values: Mapping[Hashable, Tensor | Pieces], owners: Mapping[Hashable, Tensor]
) -> dict[Hashable, Tensor]:
    """The values as tensors, each of which is spread over processes as its owner is.

    A whole tensor whose owner is one stays the tensor that it is.
    """
    new = {
        name: torch.empty_like(owner)
        for name, owner in owners.items()
        if is_sharded(owner) or isinstance(values[name], Pieces)
    }
    put(new, {name: values[name] for name in new})
    return {**values, **new}


def put(targets: Mapping[Hashable, Tensor], sources: Mapping[Hashable, Tensor | Pieces]) -> None:
    """Copies whole tensors, or pieces, into tensors of the same names and shapes.

    A target that is spread over processes gets its own rows: each process reads by itself.
    Raises ValueError where names or shapes differ.
    """
    if targets.keys() != sources.keys():
        raise ValueError(f"other names: {str(targets.keys() ^ sources.keys())[:60]}")
    shared = {}
    for name, target in targets.items():
        source = sources[name]
        if not isinstance(source, Pieces):
            source = Pieces(source.shape, source.dtype, [source], mapped=False)
        if source.shape != target.shape:
            raise ValueError(f"{name} is {tuple(source.shape)} instead of {tuple(target.shape)}")
        if is_sharded(target):
            shared[str(name)] = target.detach(), source
        else:
            fill(target, source.parts, source.mapped)
    if shared:
        from torch.distributed import checkpoint
        from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

        from minicpt.checkpoint.storage import Reader

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it reads without the other processes
            checkpoint.load(
                {name: target for name, (target, _) in shared.items()},
                storage_reader=Reader({name: source for name, (_, source) in shared.items()}),
                planner=DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
                no_dist=True,
            )
