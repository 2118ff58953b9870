"""Attention and its masks (Vaswani et al. 2017, arXiv 1706.03762).

``attention`` exists twice: written out, which is the definition, and fused, which is the same
computed by ``scaled_dot_product_attention`` without keeping the scores. That kernel drops nothing
on a CPU; there the fused form with dropout takes fewer passes over the scores. Tests hold the forms
equal.

A mask is an explicit boolean tensor, True = this query may look at this key. There is no hidden
``is_causal`` flag: what a position may see is data that can be printed. A query that may look at
nothing gives zeros, in value and in gradient, never NaN; the fused form does so from torch 2.5 on.

Leaves out caches for generation, and projections: those belong to the models.

B batch, T positions of the queries, S positions of the keys, D width, H heads.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from minicpt.fast.dropout import dropout as dropped


def causal_mask(length: int, device: torch.device | str | None = None) -> Tensor:
    """(T, T) bool: every position may look at itself and at what stands before it.

    >>> causal_mask(3).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def padding_mask(mask: Tensor) -> Tensor:
    """A model's mask, made broadcastable to (B, H, T, S).

    ``(B, S)``, True = real: every query may look at the real keys. ``(B, T, S)``: the pattern
    itself, used as it is (packed documents, the prefix of a prefix language model).

    >>> padding_mask(torch.tensor([[True, True, False]])).shape
    torch.Size([1, 1, 1, 3])
    """
    return mask[:, None, None, :] if mask.dim() == 2 else mask[:, None, :, :]


def biased_mask(mask: Tensor, bias: Tensor) -> Tensor:
    """A boolean mask and additive scores as one: the bias, and -inf where no look is allowed.

    A model whose layers share a bias (T5) calls this once for all of them.
    """
    return bias.masked_fill(~mask, -math.inf)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """For each query, the values averaged by how well their keys match it: (B, H, T, D/H).

    query    (B, H, T, D/H)
    key      (B, H, S, D/H), and value likewise
    mask     broadcastable to (B, H, T, S): bool, True = may look; or floating point, added to the
             scores, -inf = may not look (see ``biased_mask``)
    scale    factor of the scores; None: 1/sqrt(D/H)
    dropout  probability that a weight is dropped: 0.0 outside training
    fused    False: written out, as below
    """
    if fused and dropout and query.is_cpu:
        return _with_few_passes(query, key, value, mask, scale, dropout)
    if fused:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale
        )
    scale = 1 / math.sqrt(query.size(-1)) if scale is None else scale
    scores = query @ key.transpose(-2, -1) * scale  # (B, H, T, S)
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    else:
        scores = scores + mask
    # The softmax of a row of -inf alone is 0/0: give such a row harmless scores, then no weight.
    nothing = (scores == -math.inf).all(dim=-1, keepdim=True)  # (B, H, T, 1)
    weights = scores.masked_fill(nothing, 0.0).softmax(dim=-1).masked_fill(nothing, 0.0)
    weights = dropped(weights, dropout)
    return weights @ value  # (B, H, T, S) @ (B, H, S, D/H) = (B, H, T, D/H)


def _with_few_passes(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None, dropout: float
) -> Tensor:
    """The form written out, with one addition to the scores between product and softmax.

    Queries are scaled instead of scores, a mask is added instead of filled in, and rows that see
    nothing are looked for in the mask, which is mostly smaller than the scores.
    """
    scale = 1 / math.sqrt(query.size(-1)) if scale is None else scale
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -math.inf)
    nothing = mask.detach().amax(dim=-1, keepdim=True) == -math.inf
    scores = (query * scale) @ key.transpose(-2, -1)  # (B, H, T, S)
    if nothing.any():
        mask = mask.masked_fill(nothing, 0.0)
    weights = scores.add_(mask).softmax(dim=-1)
    if nothing.any():
        weights = weights.masked_fill(nothing, 0.0)
    return dropped(weights, dropout) @ value
