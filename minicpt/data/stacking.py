"""Batches that were made apart become one, which a model reads in one forward pass.

A row stays what it was. It is filled up on the right, and it gets what the rows of other batches
have and a model takes it to have anyway: positions 0, 1, 2, …, segment 0, the weight 1, no target.
Where one of the masks is a pattern (B, T, T), each becomes the pattern that the model would make of
it: a decoder looks at what stands up to itself, an encoder at the whole text.

B rows, T positions.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minicpt.batch import IGNORE, Batch, target_stream
from minicpt.data.patterns import prefix_mask, two_way_mask


def stacked(batches: Sequence[Batch], role: str, fills: Mapping[str, int] | None = None) -> Batch:
    """One batch of all rows, for a model of this role.

    fills  what fills up an input; 0 where not named. What is filled up is not real, by the mask
    """
    fills = fills or {}

    def every(part: str, fill, missing) -> dict[str, Tensor]:
        """Of one part of the batches: name -> the values of all, or what stands for them."""
        parts = [getattr(each, part) for each in batches]
        names = {name: value for each in parts for name, value in each.items()}
        return {
            name: joined(
                [
                    each[name] if name in each else missing(batch, name, like)
                    for batch, each in zip(batches, parts, strict=True)
                ],
                fill(name),
            )
            for name, like in names.items()
        }

    batches = [with_patterns(batch, batches, role) for batch in batches]
    return Batch(
        every("inputs", lambda name: fills.get(name, 0), usual_input),
        every("targets", lambda name: IGNORE, lambda batch, *_: filled(batch, IGNORE)),
        every("weights", lambda name: 1, lambda batch, *_: filled(batch, 1.0)),
        every("noise", lambda name: 0, no_noise),
    )


def joined(rows: Sequence[Tensor], fill: float) -> Tensor:
    """Tensors (B, T, …) or patterns (B, T, T) of different T as one, filled up on the right.

    >>> joined([torch.tensor([[1]]), torch.tensor([[2, 3]])], 0).tolist()
    [[1, 0], [2, 3]]
    """
    longest = max(row.shape[1] for row in rows)
    square = rows[0].dtype == torch.bool

    def longer(row: Tensor) -> Tensor:
        more = (0, longest - row.shape[1])
        return F.pad(row, more * (row.dim() - 1) if square else (0, 0) * (row.dim() - 2) + more,
                     value=fill)  # fmt: skip

    return torch.cat([longer(row) for row in rows])


def with_patterns(batch: Batch, batches: Sequence[Batch], role: str) -> Batch:
    """The batch with a pattern for each mask that is a pattern in one of the batches."""

    def pattern(name: str, mask: Tensor) -> Tensor:
        others = [each.inputs[name].dim() for each in batches if name in each.inputs]
        if mask.dim() == 3 or 3 not in others or not name.endswith("mask"):
            return mask
        if role == "encoder" or role == "encoder-decoder" and name == "mask":
            return two_way_mask(mask)
        return prefix_mask(mask, mask.new_zeros(len(mask), dtype=torch.int64))

    inputs = {name: pattern(name, value) for name, value in batch.inputs.items()}
    return Batch(inputs, batch.targets, batch.weights, batch.noise, batch.terms)


def stream_of(batch: Batch, name: str) -> Tensor:
    """The tokens along which an input of this name lies: (B, T)."""
    return batch.inputs["decoder_tokens" if name.startswith("decoder_") else "tokens"]


def usual_input(batch: Batch, name: str, like: Tensor) -> Tensor:
    """What a model takes an input to be that is not given."""
    tokens = stream_of(batch, name)
    if name.endswith("positions"):
        return torch.arange(tokens.shape[1]).expand_as(tokens)
    return torch.zeros_like(tokens, dtype=like.dtype)


def no_noise(batch: Batch, name: str, like: Tensor) -> Tensor:
    return like.new_zeros(*stream_of(batch, name).shape, *like.shape[2:])


def filled(batch: Batch, value: float) -> Tensor:
    """One value at all positions of the targets: (B, T)."""
    tokens = batch.inputs[target_stream(batch)]
    kind = torch.float32 if isinstance(value, float) else tokens.dtype
    return torch.full(tokens.shape, value, dtype=kind)
