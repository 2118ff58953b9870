"""What the models share: masks, attention written out, sizes, and the base class of a model.

Attention is that of Vaswani et al. 2017 (arXiv 1706.03762). It exists twice: ``attention`` below is
the definition, and ``minicpt.fast.attention`` computes the same in fewer passes. Tests hold the two
equal.

A mask is an explicit boolean tensor, True = this query may look at this key. There is no hidden
``is_causal`` flag: what a position may see is data that can be printed. A query that may look at
nothing gives zeros, in value and in gradient, never NaN.

B batch, T positions of the queries, S positions of the keys, D width, H heads, K width of a head,
N targets.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.fast import attention as fast
from minicpt.fast.dropout import dropout as dropped
from minicpt.models.abilities import Abilities

# --- masks -----------------------------------------------------------------------------------


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


def causal_mask_of(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """What a decoder's positions may look at: (T, T), (B, 1, T, T).

    mask  None: causal; (B, T): causal among the real positions; (B, T, T): the pattern itself
    """
    if mask is not None and mask.dim() == 3:
        return padding_mask(mask)
    causal = causal_mask(tokens.size(1), tokens.device)
    return causal if mask is None else causal & padding_mask(mask)


# --- attention -------------------------------------------------------------------------------


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
    """For each query, the values averaged by how well their keys match it: (B, H, T, K).

    query    (B, H, T, K)
    key      (B, G, S, K), and value likewise; G divides H: H/G queries share a key
    mask     broadcastable to (B, H, T, S): bool, True = may look; or floating point, added to the
             scores, -inf = may not look
    scale    factor of the scores; None: 1/sqrt(K)
    dropout  probability that a weight is dropped: 0.0 outside training
    fused    False: written out, as below
    """
    if fused:
        return fast.attention(query, key, value, mask, scale, dropout)
    key, value = (x.repeat_interleave(query.size(1) // x.size(1), dim=1) for x in (key, value))
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
    return weights @ value  # (B, H, T, S) @ (B, H, S, K) = (B, H, T, K)


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, H*K) -> (B, H, T, K)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Queries, keys and values from one projection, attention, and the projection behind it.

    scale  of the scores; None: 1/sqrt(K)
    """

    def __init__(
        self, config: "Sizes", inner: int, bias: bool = True, scale: float | None = None
    ) -> None:
        super().__init__()
        self.num_heads, self.fused, self.scale = config.num_heads, config.fused, scale
        self.dropout = config.attention_rate
        self.qkv = nn.Linear(config.width, 3 * inner, bias=bias)
        self.output = nn.Linear(inner, config.width, bias=bias)

    def forward(self, x: Tensor, mask: Tensor, cache=None) -> Tensor:
        query, key, value = (
            split_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=-1)
        )  # (B, H, T, K) each
        if cache is not None:
            key, value = cache.add(key, value)  # (B, H, S, K): with those of the text so far
        dropout = self.dropout if self.training else 0.0
        mixed = attention(
            query, key, value, mask, scale=self.scale, dropout=dropout, fused=self.fused
        )
        return self.output(mixed.transpose(1, 2).flatten(2))  # (B, T, D)


# --- a model -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes(Checked):
    """What every model's config has. Raises InputError where the sizes do not fit together."""

    vocabulary: int = field(metadata={"least": 1})
    width: int = setting(128, "width of the hidden states", least=1, most=2**16)
    layers: int = setting(4, "number of layers", least=1, most=1024)
    num_heads: int = setting(4, "attention heads; must divide the width", least=1)
    feed_forward: int = setting(0, "width inside the feed-forward layers; 0 = 4 x width", least=0)
    dropout: float = setting(
        0.1, "dropout probability in training; with --init it replaces every rate of the folder",
        least=0, below=1,
    )  # fmt: skip
    # Kinds that a config.json may set apart; None: as ``dropout``.
    attention_dropout: float | None = field(default=None, metadata={"least": 0, "below": 1})
    fused: bool = setting(True, "use the fused attention kernel")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.num_heads and not getattr(self, "head_width", 0):
            raise InputError(f"--num-heads {self.num_heads} does not divide --width {self.width}")

    @property
    def inner(self) -> int:
        """The width inside the feed-forward layers."""
        return self.feed_forward or 4 * self.width

    @property
    def attention_rate(self) -> float:
        """The dropout probability of attention weights."""
        return self.dropout if self.attention_dropout is None else self.attention_dropout


class Model(Abilities, nn.Module, ABC):
    """The base class: hidden states from tokens, and heads that turn these into logits.

    ROLE    what it can do: "encoder" (each position sees both sides), "decoder" (each sees what
            stands before it) or "encoder-decoder"
    INPUTS  the keyword arguments of ``forward`` that it takes
    Config  its sizes, a frozen dataclass that derives from ``Sizes``
    heads   an ``nn.ModuleDict``: head name -> module from (N, D) to logits (N, classes). A head has
            ``weight`` (classes, D), ``bias`` (classes,) or None, and ``transform``, what stands
            before the projection: (N, D) -> (N, D)

    A model returns hidden states, never losses. It knows no objective and no remedy. What it may
    offer beside that (another layer, a narrow sister, steps with a cache) stands in ``Abilities``.
    """

    ROLE: ClassVar[Literal["encoder", "decoder", "encoder-decoder"]]
    INPUTS: ClassVar[tuple[str, ...]]
    Config: ClassVar[type[Sizes]]
    config: Sizes
    heads: nn.ModuleDict

    @abstractmethod
    def forward(self, tokens: Tensor, mask: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """Hidden states (B, T, D); of an encoder-decoder those of the decoder, (B, S, D)."""


class TiedHead(nn.Module):
    """The token embedding transposed: nothing before the projection, no bias."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight  # tied: the same Parameter
        self.bias = None

    def transform(self, hidden: Tensor) -> Tensor:
        return hidden  # (N, D)

    def forward(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(self.transform(hidden), self.weight)  # (N, V)
