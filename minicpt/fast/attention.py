"""Attention in fewer passes: the same values as ``minicpt.models.layers.attention``.

``scaled_dot_product_attention`` never keeps the scores. It drops nothing on a CPU, so there the
form with dropout is ours: queries are scaled instead of scores, the mask is added instead of filled
in, and rows that may look at nothing are searched in the mask, which is mostly smaller.

tests/test_attention.py holds these forms equal to the definition.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from minicpt.fast.dropout import dropout as dropped


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None, dropout: float
) -> Tensor:
    """(B, H, T, D/H); arguments as in ``minicpt.models.layers.attention``."""
    if not (dropout and query.is_cpu):
        shared = query.size(1) != key.size(1)
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale, enable_gqa=shared
        )
    groups = query.size(1) // key.size(1)
    if groups > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scale = 1 / math.sqrt(query.size(-1)) if scale is None else scale
    if mask.dtype == torch.bool:
        mask = additive(mask, query.dtype)
    nothing = (mask.detach() == -math.inf).all(dim=-1, keepdim=True)
    scores = (query * scale) @ key.transpose(-2, -1)  # (B, H, T, S)
    if nothing.any():
        mask = mask.masked_fill(nothing, 0.0)
    weights = scores.add_(mask).softmax(dim=-1)
    if nothing.any():
        weights = weights.masked_fill(nothing, 0.0)
    return dropped(weights, dropout) @ value


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What a boolean mask adds to the scores: 0 where a query may look, -inf elsewhere."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -math.inf)
