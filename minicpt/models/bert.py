"""BERT, the encoder of Devlin et al. 2018 (arXiv 1810.04805), with both of its heads.

Post-norm layers, exact GELU, learned positions, segment embeddings. Every position sees every real
position.

B batch, T positions, D width, H heads, V vocabulary, N targets.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.fast.dropout import Dropout
from minicpt.models.embedding import count_up, look_up
from minicpt.models.initial import deviation, initialise
from minicpt.models.layers import Model, SelfAttention, Sizes, padding_mask
from minicpt.models.narrow import Narrow

SEGMENTS = 2  # sentence A and sentence B
EPSILON = 1e-12


@dataclass(frozen=True)
class BERTConfig(Sizes):
    positions: int = field(default=512, metadata={"least": 1})


class FeedForward(nn.Module):
    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.width, config.inner)
        self.contract = nn.Linear(config.inner, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x)))


class Layer(nn.Module):
    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config, config.width)
        self.attention_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        # Post-norm: the norm stands behind the sum, on the residual path itself.
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class TokensHead(nn.Module):
    """The masked-LM head: dense, GELU, norm, then the token embedding transposed, and a bias."""

    def __init__(self, config: BERTConfig, embedding: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.weight = embedding.weight  # tied: the same Parameter
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def transform(self, hidden: Tensor) -> Tensor:
        return self.norm(F.gelu(self.dense(hidden)))  # (N, D)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), self.weight, self.bias)  # (N, V)


class PairHead(nn.Module):
    """The next-sentence head. It is handed hidden states of first positions, ``[CLS]``."""

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.pooler = nn.Linear(config.width, config.width)
        self.weight = nn.Parameter(torch.empty(2, config.width))
        nn.init.normal_(self.weight, std=deviation(config.width))
        self.bias = nn.Parameter(torch.zeros(2))

    def transform(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.pooler(hidden))  # (N, D)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), self.weight, self.bias)  # (N, 2)


class BERT(Model):
    """BERT. Initialised as published from width 768 on: normal with standard deviation 0.02 (see
    ``deviation`` for narrower models), biases zero."""

    ROLE = "encoder"
    INPUTS = ("tokens", "mask", "segments", "positions")
    TABLES = ("tokens", "positions", "segments")
    Config = BERTConfig

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.segments = nn.Embedding(SEGMENTS, config.width)
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.heads = nn.ModuleDict(
            {"tokens": TokensHead(config, self.tokens), "pair": PairHead(config)}
        )
        initialise(self, config.width)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D).

        tokens     (B, T) int64
        mask       (B, T) bool, True = real, or (B, T, T), the pattern itself; None: all real
        segments   (B, T) int64, 0 or 1; None: all 0
        positions  (B, T) int64; None: 0, 1, 2, ...

        Raises InputError for more positions, or other ids, than the tables hold.
        """
        return self.run(self.embed(tokens, segments, positions), mask)

    def embed(
        self, tokens: Tensor, segments: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """What the tables give: (B, T, D)."""
        if positions is None:
            positions = count_up("BERT", tokens, self.config.positions)
        if segments is None:
            segments = torch.zeros_like(tokens)
        return look_up(
            "BERT",
            tokens=(self.tokens, tokens),
            positions=(self.positions, positions),
            segments=(self.segments, segments),
        )

    def run(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states (B, T, D) from what the tables give."""
        if mask is None:
            mask = torch.ones_like(x[:1, :, 0], dtype=torch.bool)  # (1, T): broadcasts over B
        mask = padding_mask(mask)  # (B, 1, 1, T) or (B, 1, T, T)
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def block(self) -> Layer:
        return initialise(Layer(self.config), self.config.width)

    def smaller(self, width: int) -> Narrow:
        return Narrow(self, width)
