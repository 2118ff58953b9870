"""Patterns of who may look at whom that are data: what a batch's ``mask`` (B, T, T) holds.

An objective uses one where a decoder does not read causally throughout. A padded position looks at
nothing, and nothing looks at it.
"""

import torch
from torch import Tensor


def two_way_mask(mask: Tensor) -> Tensor:
    """(B, T, T) bool: every real position of ``mask`` (B, T) may look at every real one.

    >>> two_way_mask(torch.tensor([[True, True, False]])).int().tolist()
    [[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]
    """
    return mask[:, :, None] & mask[:, None, :]


def prefix_mask(mask: Tensor, lengths: Tensor) -> Tensor:
    """(B, T, T) bool: causal, and the first ``lengths`` (B,) positions also look at one another.

    >>> prefix_mask(torch.ones(1, 3, dtype=torch.bool), torch.tensor([2])).int().tolist()
    [[[1, 1, 0], [1, 1, 0], [1, 1, 1]]]
    """
    causal = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=mask.device).tril()
    inside = torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]  # (B, T)
    return two_way_mask(mask) & (causal | two_way_mask(inside))
