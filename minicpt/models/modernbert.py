"""ModernBERT, the encoder of Warner et al. 2024 (arXiv 2412.13663), with its heads.

Norm first, with no norm before the first layer's attention, since one stands behind the embedding;
GELU with a gate (Shazeer 2020, arXiv 2002.05202); no biases but the decoder's. It has no table of
positions and no segments: rotary positions turn queries and keys. Every third layer, the first one
too, is global: each position sees every real one. The other layers are local: a position sees those
at most 64 away on each side. Global and local layers turn by different angles.

B batch, T positions, D width, H heads, K width of a head, V vocabulary, N targets.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.batch import valid_positions
from minicpt.common.errors import InputError
from minicpt.common.settings import setting
from minicpt.fast.dropout import Dropout
from minicpt.models.embedding import look_up
from minicpt.models.initial import deviation
from minicpt.models.layers import Model, Sizes, attention, padding_mask, split_heads
from minicpt.models.narrow import Narrow, even_heads
from minicpt.models.rotary import count, frequencies, rotate, rotation
from minicpt.models.window import window_mask


@dataclass(frozen=True)
class ModernBERTConfig(Sizes):
    """Defaults are those of the published model; a config.json sets all of them.

    dropout     of what stands between the feed-forward layer's two matrices; the other kinds are as
                it is, unless they are set
    positions   of the longest text in training; longer ones are computed all the same
    attends     "full" or "sliding" for each layer; (): by ``global_every``
    dense_bias  of the heads' dense layer
    pooling     what the head "pair" reads: the first position, or the mean of all real ones
    """

    global_every: int = setting(
        3, "ModernBERT: of so many layers the first is global, the others are local", least=1
    )
    local_attention: int = setting(
        128, "ModernBERT: a local layer sees half as many positions on each side", least=1
    )
    attends: tuple[str, ...] = ()
    positions: int = field(default=8192, metadata={"least": 1})
    global_theta: float = field(default=160_000.0, metadata={"above": 0})
    local_theta: float = field(default=10_000.0, metadata={"above": 0})
    epsilon: float = field(default=1e-5, metadata={"above": 0})
    attention_bias: bool = False
    feed_forward_bias: bool = False
    norm_bias: bool = False
    dense_bias: bool = False
    decoder_bias: bool = True
    tied: bool = True  # the decoder's matrix is the token embedding
    pooling: Literal["cls", "mean"] = "cls"
    embedding_dropout: float | None = field(default=None, metadata={"least": 0, "below": 1})
    classifier_dropout: float | None = field(default=None, metadata={"least": 0, "below": 1})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key_width % 2:
            raise InputError(
                f"a head has the width {self.key_width}, and rotary positions need an even one:"
                " change --width or --num-heads"
            )
        kinds = {"full", "sliding"}
        if self.attends and (len(self.attends) != self.layers or not set(self.attends) <= kinds):
            raise InputError("attends must say full or sliding for each of the layers")

    @property
    def key_width(self) -> int:
        """The width of a head (K)."""
        return self.width // self.num_heads

    @property
    def window(self) -> int:
        """A local layer sees the positions fewer than so many away, its own included."""
        return self.local_attention // 2 + 1

    def layer_attends(self, number: int) -> str:
        """ "full" or "sliding"."""
        if self.attends:
            return self.attends[number]
        return "sliding" if number % self.global_every else "full"

    def rate(self, kind: str) -> float:
        """The probability of one kind of dropout: "embedding", "attention" or "classifier"."""
        own = getattr(self, f"{kind}_dropout")
        return self.dropout if own is None else own


class Places:
    """What all layers share: who sees whom, and how far queries and keys turn.

    masks  "full", "sliding" -> bool, broadcastable to (B, H, T, T), True = may look
    turns  "full", "sliding" -> cosine and sine, (B or 1, 1, T, K/2) each

    Made from a mask of full attention and positions (B or 1, T).
    """

    def __init__(self, config: ModernBERTConfig, x: Tensor, mask: Tensor, places: Tensor) -> None:
        near = window_mask(places, places, config.window)  # (B or 1, 1, T, T)
        self.masks = {"full": mask, "sliding": mask & near}
        at_least = torch.promote_types(x.dtype, torch.float32)
        thetas = {"full": config.global_theta, "sliding": config.local_theta}
        self.turns = {
            kind: rotation(places, frequencies(config.key_width, theta, at_least, x.device))
            for kind, theta in thetas.items()
        }


class Attention(nn.Module):
    def __init__(self, config: ModernBERTConfig) -> None:
        super().__init__()
        self.num_heads, self.fused = config.num_heads, config.fused
        self.rate = config.rate("attention")
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.attention_bias)
        self.output = nn.Linear(config.width, config.width, bias=config.attention_bias)
        self.dropout = Dropout(self.rate)  # behind the output, at the rate of the weights'

    def forward(self, x: Tensor, mask: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        query, key, value = (
            split_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=-1)
        )  # (B, H, T, K) each
        query, key = (rotate(each, turns, self.fused) for each in (query, key))
        rate = self.rate if self.training else 0.0
        mixed = attention(query, key, value, mask, dropout=rate, fused=self.fused)
        return self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))  # (B, T, D)


class FeedForward(nn.Module):
    def __init__(self, config: ModernBERTConfig) -> None:
        super().__init__()
        bias = config.feed_forward_bias
        self.gate_expand = nn.Linear(config.width, 2 * config.inner, bias=bias)
        self.contract = nn.Linear(config.inner, config.width, bias=bias)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        gate, expanded = self.gate_expand(x).chunk(2, dim=-1)
        return self.contract(self.dropout(F.gelu(gate) * expanded))


class Layer(nn.Module):
    def __init__(self, config: ModernBERTConfig, attends: str, first: bool = False) -> None:
        super().__init__()
        self.attends = attends
        self.attention_norm = nn.Identity() if first else norm(config)
        self.attention = Attention(config)
        self.feed_forward_norm = norm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, places: Places) -> Tensor:
        mask, turns = places.masks[self.attends], places.turns[self.attends]
        x = x + self.attention(self.attention_norm(x), mask, turns)
        return x + self.feed_forward(self.feed_forward_norm(x))


class OneMore(Layer):
    """A global layer of its own: it finds the places itself."""

    def __init__(self, config: ModernBERTConfig) -> None:
        super().__init__(config, "full")
        self.config = config

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x, Places(self.config, x, mask, count(x)))


class Transform(nn.Module):
    """What stands before the projection of both heads: dense, GELU, norm. They share it, as a
    folder has room for one."""

    def __init__(self, config: ModernBERTConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width, bias=config.dense_bias)
        self.norm = norm(config)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(hidden)))  # (N, D)


class TokensHead(nn.Module):
    """The masked-LM head: the transform, then the token embedding transposed, and a bias."""

    def __init__(
        self, config: ModernBERTConfig, transform: Transform, embedding: nn.Embedding
    ) -> None:
        super().__init__()
        self.transform = transform
        self.weight = embedding.weight  # tied: the same Parameter
        if not config.tied:
            self.weight = nn.Parameter(torch.empty_like(embedding.weight))
        self.bias = nn.Parameter(torch.zeros(config.vocabulary)) if config.decoder_bias else None

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), self.weight, self.bias)  # (N, V)


class PairHead(nn.Module):
    """The classifier of a whole text, here of a pair of texts. It answers at the first position."""

    def __init__(self, config: ModernBERTConfig, transform: Transform) -> None:
        super().__init__()
        self.pooling, self.dense = config.pooling, transform
        self.dropout = Dropout(config.rate("classifier"))
        self.weight = nn.Parameter(torch.empty(2, config.width))
        self.bias = nn.Parameter(torch.zeros(2))

    def pool(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """What the head reads in place of the hidden states (B, T, D): the same, or, with the
        pooling "mean", at every position the mean of those that are real."""
        if self.pooling == "cls":
            return hidden
        real = torch.ones_like(hidden[:, :, 0]) if mask is None else valid_positions(mask)
        real = real[:, :, None].to(hidden)  # (B, T, 1)
        mean = (hidden * real).sum(dim=1, keepdim=True) / real.sum(dim=1, keepdim=True)
        return mean.expand_as(hidden)

    def transform(self, hidden: Tensor) -> Tensor:
        return self.dropout(self.dense(hidden))  # (N, D)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), self.weight, self.bias)  # (N, 2)


class ModernBERT(Model):
    """ModernBERT. Initialised as its folders say: normal, cut off at two standard deviations."""

    ROLE = "encoder"
    INPUTS = ("tokens", "mask", "positions")
    TABLES = ("tokens",)
    Config = ModernBERTConfig

    def __init__(self, config: ModernBERTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.embedding_norm = norm(config)
        self.dropout = Dropout(config.rate("embedding"))
        self.layers = nn.ModuleList(
            Layer(config, config.layer_attends(number), first=number == 0)
            for number in range(config.layers)
        )
        self.norm = norm(config)
        transform = Transform(config)
        self.heads = nn.ModuleDict(
            {
                "tokens": TokensHead(config, transform, self.tokens),
                "pair": PairHead(config, transform),
            }
        )
        initialise(self, config)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Hidden states (B, T, D), the final norm included.

        tokens     (B, T) int64
        mask       (B, T) bool, True = real, or (B, T, T), the pattern itself, of which a local
                   layer uses what lies in its window; None: all real
        positions  (B, T) int64; None: 0, 1, 2, ... Their differences count. There is no last one

        Raises InputError for ids beyond the vocabulary.
        """
        return self.run(self.embed(tokens), mask, positions)

    def embed(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """What the table gives: (B, T, D). Positions have none."""
        return look_up("ModernBERT", tokens=(self.tokens, tokens))

    def run(self, x: Tensor, mask: Tensor | None, positions: Tensor | None = None) -> Tensor:
        """Hidden states (B, T, D) from what the table gives."""
        if mask is None:
            mask = torch.ones_like(x[:1, :, 0], dtype=torch.bool)  # (1, T): broadcasts over B
        positions = count(x) if positions is None else positions
        places = Places(self.config, x, padding_mask(mask), positions)
        x = self.dropout(self.embedding_norm(x))
        for layer in self.layers:
            x = layer(x, places)
        return self.norm(x)

    def block(self) -> nn.Module:
        return initialise(OneMore(self.config), self.config)

    def smaller(self, width: int) -> Narrow:
        heads = even_heads("ModernBERT", width, self.config.num_heads)
        return Narrow(self, width, num_heads=heads)


def norm(config: ModernBERTConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.width, eps=config.epsilon, bias=config.norm_bias)


def initialise(module: nn.Module, config: ModernBERTConfig) -> nn.Module:
    """Deviation 0.02 (see ``deviation`` for models narrower than 768); of what is added to the
    residual path, and of the heads' dense layer and own matrix, that / sqrt(2 x layers); of the
    classifier 1/sqrt(D). Biases zero. Returns the module.
    """
    usual = deviation(config.width)
    added = usual / math.sqrt(2 * config.layers)
    for part in module.modules():
        if isinstance(part, Attention):
            draw(part.qkv.weight, usual)
            draw(part.output.weight, added)
        elif isinstance(part, FeedForward):
            draw(part.gate_expand.weight, usual)
            draw(part.contract.weight, added)
        elif isinstance(part, Transform):
            draw(part.dense.weight, added)
        elif isinstance(part, PairHead):
            draw(part.weight, config.width**-0.5)
        elif isinstance(part, TokensHead) and not config.tied:
            draw(part.weight, added)
        elif isinstance(part, nn.Embedding):
            draw(part.weight, usual)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
    return module


def draw(weight: Tensor, deviation: float) -> None:
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)
