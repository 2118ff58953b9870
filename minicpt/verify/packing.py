"""Several texts packed into one row, so that the proofs can look at how they are kept apart.

A packed row needs two things: a mask in which each text sees itself alone, causally, and positions
that restart with each text. Restarting positions does not hide the other texts.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from minicpt.batch import Batch


class Packed:
    """A causal objective whose batch is one row that holds all passages, one behind the other."""

    def __init__(self, objective):
        self.objective = objective

    def __getattr__(self, name: str):
        return getattr(self.objective, name)

    def batch(self, passages: Sequence, generators: Sequence[Generator]) -> Batch:
        parts = [
            self.objective.batch([passage], [generator])
            for passage, generator in zip(passages, generators, strict=True)
        ]
        lengths = [part.inputs["tokens"].shape[1] for part in parts]
        return Batch(
            {
                "tokens": torch.cat([part.inputs["tokens"] for part in parts], dim=1),
                "mask": blocks(lengths)[None],
                "positions": torch.cat([torch.arange(length) for length in lengths])[None],
            },
            {"tokens": torch.cat([part.targets["tokens"] for part in parts], dim=1)},
        )

    def visibility(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """Each position sees its own text up to itself; told by where the positions restart."""
        positions = batch.inputs["positions"]  # (1, T)
        text = (positions == 0).cumsum(dim=1)
        places = torch.arange(positions.shape[1])
        earlier = places[None, :] <= places[:, None]
        return {"tokens": {"tokens": (text[:, :, None] == text[:, None, :]) & earlier}}


def blocks(lengths: Sequence[int]) -> Tensor:
    """(T, T) bool: each text sees itself alone, causally.

    >>> blocks([2, 1]).int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    return torch.block_diag(*[torch.ones(length, length).tril() for length in lengths]).bool()
