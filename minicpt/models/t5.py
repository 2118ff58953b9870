"""T5, the encoder-decoder of Raffel et al. 2019 (arXiv 1910.10683), in versions 1.0 and 1.1.

RMS norm before each layer, no biases, scores not divided by sqrt(D/H), and no position embeddings:
a bias for each relative distance is added to the scores, shared by the layers of a stack. Version
1.0: ReLU, and the head is the token embedding, after a scaling by 1/sqrt(D). Version 1.1: GELU with
a gate (Shazeer 2020, arXiv 2002.05202), and a head of its own, not scaled. A folder may also tie
without scaling, or scale without tying.

The decoder's first token is the pad token: the objectives put it there.

B batch, T positions, S decoder positions, D width, H heads, K width of a head, V vocabulary,
N targets.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.settings import setting
from minicpt.fast.dropout import Dropout
from minicpt.models.embedding import look_up
from minicpt.models.layers import (
    Model,
    SelfAttention,
    Sizes,
    attention,
    causal_mask_of,
    padding_mask,
    split_heads,
)
from minicpt.models.norm import RMSNorm

BUCKETS, DISTANCE = 32, 128  # buckets of relative positions; all distances from 128 on share one


@dataclass(frozen=True)
class T5Config(Sizes):
    pad: int = field(default=0, metadata={"least": 0})  # id of the pad token, starts the decoder
    layers: int = setting(4, "number of layers of the encoder", least=1, most=1024)
    decoder_layers: int = setting(
        0, "layers of the decoder; 0 = as the encoder", least=0, most=1024
    )
    head_width: int = setting(0, "width of a head; 0 = width / heads", least=0)
    # 1.1 learns faster when it is small and starts from nothing: at the same width, steps and best
    # learning rate of two, 4.13 against 4.40 nats on held-out text (500 steps, width 64).
    version: Literal["1.0", "1.1"] = setting(
        "1.1", "of T5: 1.0 (ReLU, tied head) or 1.1 (gated GELU, head of its own)"
    )
    # Two properties of the head. None: as published, both in version 1.0, neither in 1.1.
    tied: bool | None = None  # its matrix is the token embedding
    scaled: bool | None = None  # the hidden states before it are multiplied by 1/sqrt(D)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pad >= self.vocabulary:
            raise InputError(f"pad is {self.pad}, but the vocabulary has {self.vocabulary} ids")
        for name in ("tied", "scaled"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.version == "1.0")

    @property
    def key_width(self) -> int:
        """The width of a head (K)."""
        return self.head_width or self.width // self.num_heads


class PositionBias(nn.Module):
    """One number for each head and bucket of relative distance, added to the scores."""

    def __init__(self, config: T5Config, both_directions: bool) -> None:
        super().__init__()
        self.both_directions = both_directions
        self.weight = nn.Parameter(torch.empty(BUCKETS, config.num_heads))
        nn.init.normal_(self.weight, std=config.width**-0.5)

    def forward(self, length: int) -> Tensor:
        place = torch.arange(length, device=self.weight.device)
        distance = place[None, :] - place[:, None]  # (T, T), key minus query
        bias = self.weight[bucket(distance, self.both_directions)]  # (T, T, H)
        return bias.permute(2, 0, 1)  # (H, T, T)


def bucket(distance: Tensor, both_directions: bool) -> Tensor:
    """The bucket of a relative distance (key minus query): near ones have their own, far share.

    The encoder spends half of the buckets on what follows; the decoder has nothing that follows.

    >>> bucket(torch.tensor([-200, -20, -2, 0, 2, 20, 200]), both_directions=True).tolist()
    [15, 10, 2, 0, 18, 26, 31]
    >>> bucket(torch.tensor([-200, -20, -2, 0, 2]), both_directions=False).tolist()
    [31, 17, 2, 0, 0]
    """
    buckets, first = BUCKETS, torch.zeros_like(distance)
    if both_directions:
        buckets //= 2
        first = torch.where(distance > 0, buckets, first)
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2  # distances below have a bucket each; beyond, the buckets grow like 2^n
    growth = torch.log(distance.clamp(min=1).float() / exact) / math.log(DISTANCE / exact)
    shared = (exact + (growth * (buckets - exact)).long()).clamp(max=buckets - 1)
    return first + torch.where(distance < exact, distance, shared)


def biased_mask(mask: Tensor, bias: Tensor) -> Tensor:
    """A boolean mask and additive scores as one: the bias, and -inf where no look is allowed.

    The layers of a stack share it, so it is made once for all of them.
    """
    return bias.masked_fill(~mask, -math.inf)


class T5SelfAttention(SelfAttention):
    def __init__(self, config: T5Config) -> None:
        inner = config.num_heads * config.key_width
        super().__init__(config, inner, bias=False, scale=1.0)
        # What is not divided by sqrt(K) in the scores is divided here, once: in the queries.
        nn.init.normal_(self.qkv.weight[:inner], std=(config.width * config.key_width) ** -0.5)
        nn.init.normal_(self.qkv.weight[inner:], std=config.width**-0.5)
        nn.init.normal_(self.output.weight, std=inner**-0.5)


class CrossAttention(nn.Module):
    """The decoder looks at the encoder's hidden states; here distance plays no role."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.num_heads, self.fused = config.num_heads, config.fused
        self.dropout = config.attention_rate
        inner = config.num_heads * config.key_width
        self.query = nn.Linear(config.width, inner, bias=False)
        self.key_value = nn.Linear(config.width, 2 * inner, bias=False)
        self.output = nn.Linear(inner, config.width, bias=False)
        nn.init.normal_(self.query.weight, std=(config.width * config.key_width) ** -0.5)
        nn.init.normal_(self.key_value.weight, std=config.width**-0.5)
        nn.init.normal_(self.output.weight, std=inner**-0.5)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        query = split_heads(self.query(x), self.num_heads)  # (B, H, S, K)
        key, value = (
            split_heads(part, self.num_heads) for part in self.key_value(memory).chunk(2, dim=-1)
        )  # (B, H, T, K) each
        dropout = self.dropout if self.training else 0.0
        mixed = attention(query, key, value, mask, scale=1.0, dropout=dropout, fused=self.fused)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (B, S, D)


class FeedForward(nn.Module):
    """Version 1.0."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.expand = nn.Linear(config.width, config.inner, bias=False)
        self.contract = nn.Linear(config.inner, config.width, bias=False)
        self.dropout = Dropout(config.dropout)
        nn.init.normal_(self.expand.weight, std=config.width**-0.5)
        nn.init.normal_(self.contract.weight, std=config.inner**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.dropout(F.relu(self.expand(x))))


class GatedFeedForward(nn.Module):
    """Version 1.1."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.gate_expand = nn.Linear(config.width, 2 * config.inner, bias=False)
        self.contract = nn.Linear(config.inner, config.width, bias=False)
        self.dropout = Dropout(config.dropout)
        nn.init.normal_(self.gate_expand.weight, std=config.width**-0.5)
        nn.init.normal_(self.contract.weight, std=config.inner**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        gate, expanded = self.gate_expand(x).chunk(2, dim=-1)
        return self.contract(self.dropout(F.gelu(gate, approximate="tanh") * expanded))


class EncoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, fused=config.fused)
        self.attention = T5SelfAttention(config)
        self.feed_forward_norm = RMSNorm(config.width, fused=config.fused)
        self.feed_forward = (FeedForward if config.version == "1.0" else GatedFeedForward)(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class DecoderLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, fused=config.fused)
        self.attention = T5SelfAttention(config)
        self.cross_norm = RMSNorm(config.width, fused=config.fused)
        self.cross_attention = CrossAttention(config)
        self.feed_forward_norm = RMSNorm(config.width, fused=config.fused)
        self.feed_forward = (FeedForward if config.version == "1.0" else GatedFeedForward)(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        x = x + self.dropout(self.cross_attention(self.cross_norm(x), memory, memory_mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Stack(nn.Module):
    """Layers that share one position bias, and the norm behind them."""

    def __init__(self, config: T5Config, layers: list[nn.Module], both_directions: bool) -> None:
        super().__init__()
        self.position_bias = PositionBias(config, both_directions)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.width, fused=config.fused)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, *memory: Tensor) -> Tensor:
        mask = biased_mask(mask, self.position_bias(x.size(1)))  # (B or 1, H, T, T), once
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, mask, *memory)
        return self.dropout(self.norm(x))


class TokensHead(nn.Module):
    """Hidden states, scaled by 1/sqrt(D) or not, then a projection: the token embedding transposed
    or a matrix of its own. No bias."""

    def __init__(self, config: T5Config, embedding: nn.Embedding) -> None:
        super().__init__()
        self.scale = config.width**-0.5 if config.scaled else 1.0
        self.bias = None
        if config.tied:
            self.weight = embedding.weight  # tied: the same Parameter
        else:
            # As T5X does: logits of unit variance. Hugging Face's deviation of 1 would start at a
            # loss of about D/2.
            self.weight = nn.Parameter(torch.empty(config.vocabulary, config.width))
            nn.init.normal_(self.weight, std=config.width**-0.5)

    def transform(self, hidden: Tensor) -> Tensor:
        return hidden if self.scale == 1.0 else hidden * self.scale  # (N, D)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), self.weight)  # (N, V)


class T5(Model):
    """T5. Each matrix is initialised where it is made, with the published standard deviation."""

    ROLE = "encoder-decoder"
    INPUTS = ("tokens", "decoder_tokens", "mask", "decoder_mask")
    Config = T5Config

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)  # of both stacks; deviation 1
        encoder = [EncoderLayer(config) for _ in range(config.layers)]
        decoder = [DecoderLayer(config) for _ in range(config.decoder_layers or config.layers)]
        self.encoder = Stack(config, encoder, both_directions=True)
        self.decoder = Stack(config, decoder, both_directions=False)
        self.heads = nn.ModuleDict({"tokens": TokensHead(config, self.tokens)})

    def forward(
        self,
        tokens: Tensor,
        decoder_tokens: Tensor,
        mask: Tensor | None = None,
        decoder_mask: Tensor | None = None,
    ) -> Tensor:
        """The decoder's hidden states (B, S, D), its final norm included.

        tokens          (B, T) int64
        decoder_tokens  (B, S) int64, the pad token and then the targets without their last
        mask            (B, T) bool, True = real; None: all real
        decoder_mask    (B, S) bool, True = real: combined with the causal mask; or (B, S, S): the
                        whole pattern, used as it is; None: all real

        Raises InputError for ids beyond the vocabulary.
        """
        return self.decode(decoder_tokens, decoder_mask, self.encode(tokens, mask), mask)

    def encode(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The encoder's hidden states (B, T, D)."""
        return self.encoder(self.embed(tokens), padding_mask(_real(tokens, mask)))

    def decode(
        self,
        decoder_tokens: Tensor,
        decoder_mask: Tensor | None,
        memory: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The decoder's hidden states (B, S, D), given the encoder's (B, T, D) and their mask."""
        seen = causal_mask_of(decoder_tokens, decoder_mask)  # (S, S) or (B, 1, S, S)
        memory_mask = padding_mask(_real(memory[:, :, 0], mask))  # (B, 1, 1, T)
        return self.decoder(self.embed(decoder_tokens), seen, memory, memory_mask)

    def embed(self, tokens: Tensor) -> Tensor:
        """What the table gives: (B, T, D)."""
        return look_up("T5", tokens=(self.tokens, tokens))


def _real(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The mask (B, T), or one row of True that broadcasts over B."""
    if mask is None:
        return torch.ones_like(tokens[:1], dtype=torch.bool)
    if mask.dim() != 2:
        # A pattern inside the encoder does not say what the decoder may look at.
        raise InputError("T5: mask must be (B, T); only decoder_mask may be (B, S, S)")
    return mask
