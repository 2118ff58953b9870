"""Hides some tokens of a text behind the mask token, and makes targets of all that could be hidden.

The tokens that are hidden carry the weight of those that are not. So the loss of a few tokens
stands for the loss of the whole text.

B batch, T positions.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from minicpt.batch import IGNORE, Batch, pad, padding


def hide(
    tokens: Tensor, maskable: Tensor, chosen: Tensor, weight: float, mask: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What is read (T,), the targets (T,) and their weights (T,).

    maskable  (T,) bool: each of these is a target
    chosen    (T,) bool: each of these is hidden; its target weighs ``weight``, the others weigh 0

    >>> tokens, maskable = torch.tensor([1, 10, 11, 12, 2]), torch.tensor([0, 1, 1, 1, 0]).bool()
    >>> read, targets, weights = hide(tokens, maskable, tokens == 11, 3.0, mask=4)
    >>> read.tolist(), targets.tolist(), weights.tolist()
    ([1, 10, 4, 12, 2], [-100, 10, 11, 12, -100], [0.0, 0.0, 3.0, 0.0, 0.0])
    """
    weights = torch.where(chosen, torch.tensor(weight), torch.tensor(0.0))
    return tokens.masked_fill(chosen, mask), tokens.where(maskable, IGNORE), weights


def hide_some(
    tokens: Tensor, maskable: Tensor, count: int, mask: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The same with exactly ``count`` hidden tokens, drawn at random: each weighs L / count.

    L is the number of maskable tokens. The mean over all draws of the weighted sum is then the sum
    of each token's mean loss.
    """
    places = maskable.nonzero()[:, 0]
    chosen = torch.zeros_like(maskable)
    chosen[places[torch.randperm(len(places), generator=generator)[:count]]] = True
    return hide(tokens, maskable, chosen, len(places) / max(count, 1), mask)


def hidden_batch(rows: Sequence[tuple[Tensor, Tensor, Tensor]], padding_id: int) -> Batch:
    """The batch of rows of what is read, targets and weights."""
    read, targets, weights = zip(*rows, strict=True)
    return Batch(
        {"tokens": pad(read, padding_id), "mask": padding(read)},
        {"tokens": pad(targets, IGNORE)},
        {"tokens": pad(weights, 0)},
    )
