"""GPT-2, the decoder of Radford et al. 2019 (Language Models are Unsupervised Multitask Learners).

Pre-norm layers, GELU in its tanh form, learned positions, a final norm, a head tied to the token
embedding. One forward pass gives the hidden states of all positions, and the causal mask keeps each
of them from seeing what follows.

B batch, T positions, D width, H heads, V vocabulary, N targets.
"""

import math
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.fast.dropout import Dropout
from minicpt.models.cache import Steps
from minicpt.models.embedding import count_up, look_up
from minicpt.models.initial import deviation, initialise
from minicpt.models.layers import Model, SelfAttention, Sizes, TiedHead, causal_mask_of
from minicpt.models.narrow import Narrow

EPSILON = 1e-5


@dataclass(frozen=True)
class GPT2Config(Sizes):
    positions: int = field(default=1024, metadata={"least": 1})
    embedding_dropout: float | None = field(default=None, metadata={"least": 0, "below": 1})

    @property
    def embedding_rate(self) -> float:
        """The dropout probability of the embeddings."""
        return self.dropout if self.embedding_dropout is None else self.embedding_dropout


class FeedForward(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.expand = nn.Linear(config.width, config.inner)
        self.contract = nn.Linear(config.inner, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x), approximate="tanh"))


class Layer(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.attention = SelfAttention(config, config.width)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, cache=None) -> Tensor:
        # Pre-norm: the residual path runs through all layers untouched, up to the final norm.
        x = x + self.dropout(self.attention(self.attention_norm(x), mask, cache))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class GPT2(Steps, Model):
    """GPT-2. Initialised as published from width 768 on: normal with standard deviation 0.02 (see
    ``deviation`` for narrower ones), biases zero, and what writes to the residual path scaled down
    by the root of its number. ``Steps`` gives it ``step``, which reads on with a cache."""

    ROLE = "decoder"
    INPUTS = ("tokens", "mask", "positions")
    TABLES = ("tokens", "positions")
    Config = GPT2Config

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.dropout = Dropout(config.embedding_rate)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.heads = nn.ModuleDict({"tokens": TiedHead(self.tokens)})
        initialise(self, config.width)
        for layer in self.layers:
            scale_residual(layer, config)

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Hidden states (B, T, D), the final norm included.

        tokens     (B, T) int64
        mask       (B, T) bool, True = real: combined with the causal mask; or (B, T, T): the whole
                   pattern, used as it is (a prefix is read in both directions); None: all real
        positions  (B, T) int64; None: 0, 1, 2, ...

        Raises InputError for more positions, or other ids, than the tables hold.
        """
        return self.run(self.embed(tokens, positions), mask)

    def embed(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """What the tables give: (B, T, D)."""
        if positions is None:
            positions = count_up("GPT-2", tokens, self.config.positions)
        tables = {"tokens": (self.tokens, tokens), "positions": (self.positions, positions)}
        return look_up("GPT-2", **tables)

    def run(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states (B, T, D) from what the tables give."""
        mask = causal_mask_of(x[:, :, 0], mask)  # (T, T) or (B, 1, T, T)
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)

    def block(self) -> nn.Module:
        layer = initialise(Layer(self.config), self.config.width)
        scale_residual(layer, self.config)
        return layer

    def smaller(self, width: int) -> Narrow:
        return Narrow(self, width)


def scale_residual(layer: Layer, config: GPT2Config) -> None:
    """Draws the projections that write to the residual path, to which all layers add."""
    for projection in (layer.attention.output, layer.feed_forward.contract):
        std = deviation(config.width) / math.sqrt(2 * config.layers)
        nn.init.normal_(projection.weight, std=std)
