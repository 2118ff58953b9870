"""BERT, the encoder of Devlin et al. 2018 (arXiv 1810.04805), with both of its heads.

Post-norm layers, exact GELU, learned positions, segment embeddings. Every position sees every real
position. Returns hidden states, never losses. Leaves out the relative-position variants, and its
use as a decoder.

B batch, T positions, D width, H heads, V vocabulary, N targets.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.fast.dropout import Dropout
from minicpt.models.layers import attention, padding_mask

SEGMENTS = 2  # sentence A and sentence B
EPSILON = 1e-12


@dataclass(frozen=True)
class Config(Checked):
    """The sizes of an encoder. Raises InputError where they do not fit together."""

    vocabulary: int = field(metadata={"least": 1})
    positions: int = field(metadata={"least": 1})
    width: int = setting(128, "width of the hidden states", least=1, most=2**16)
    layers: int = setting(4, "number of layers", least=1, most=1024)
    heads: int = setting(4, "attention heads; must divide the width", least=1)
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
        if self.width % self.heads:
            raise InputError(f"--heads {self.heads} does not divide --width {self.width}")

    @property
    def inner(self) -> int:
        """The width inside the feed-forward layers."""
        return self.feed_forward or 4 * self.width

    @property
    def attention_rate(self) -> float:
        """The dropout probability of attention weights."""
        return self.dropout if self.attention_dropout is None else self.attention_dropout


class SelfAttention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.fused = config.heads, config.fused
        self.dropout = config.attention_rate
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, D/H)
            for part in self.qkv(x).chunk(3, dim=-1)  # three times (B, T, D)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = attention(query, key, value, mask, dropout=dropout, fused=self.fused)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (B, T, D)


class FeedForward(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.expand = nn.Linear(config.width, config.inner)
        self.contract = nn.Linear(config.inner, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(x)))


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
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

    def __init__(self, config: Config, embedding: nn.Embedding) -> None:
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

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.pooler = nn.Linear(config.width, config.width)
        self.weight = nn.Parameter(torch.empty(2, config.width).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(2))

    def transform(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.pooler(hidden))  # (N, D)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), self.weight, self.bias)  # (N, 2)


class Model(nn.Module):
    """BERT. Initialised as published: normal with standard deviation 0.02, biases zero."""

    def __init__(self, config: Config) -> None:
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
        self.apply(_initialise)

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
        if mask is None:
            mask = torch.ones_like(tokens[:1], dtype=torch.bool)  # (1, T): broadcasts over B
        mask = padding_mask(mask)  # (B, 1, 1, T) or (B, 1, T, T)
        x = self.dropout(self.norm(self.embed(tokens, segments, positions)))  # (B, T, D)
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def embed(self, tokens: Tensor, segments: Tensor | None, positions: Tensor | None) -> Tensor:
        if positions is None:
            if tokens.size(1) > self.config.positions:
                raise InputError(
                    f"encoder: {tokens.size(1)} positions, but the model has "
                    f"{self.config.positions}: use shorter passages"
                )
            positions = torch.arange(tokens.size(1), device=tokens.device)  # (T,)
        if segments is None:
            segments = torch.zeros_like(tokens)
        try:
            return self.tokens(tokens) + self.positions(positions) + self.segments(segments)
        except IndexError:  # raised by the CPU's look-up, so the check costs nothing
            raise InputError(
                f"encoder: an id lies outside its table ({self.config.vocabulary} tokens, "
                f"{self.config.positions} positions, {SEGMENTS} segments): "
                "use the tokenizer that belongs to the model"
            ) from None


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


# Hugging Face's names. A tuple: our matrix is theirs, one below the other.
MODEL_TYPE = "bert"
_LAYER = "bert.encoder.layer.{i}."
NAMES: dict[str, Any] = {
    "prefix": "bert.",  # what a folder of the bare BertModel leaves out
    "weights": {
        "tokens.weight": "bert.embeddings.word_embeddings.weight",
        "positions.weight": "bert.embeddings.position_embeddings.weight",
        "segments.weight": "bert.embeddings.token_type_embeddings.weight",
        "heads.tokens.bias": "cls.predictions.bias",
        "heads.pair.weight": "cls.seq_relationship.weight",
        "heads.pair.bias": "cls.seq_relationship.bias",
    }
    | {
        f"{ours}.{kind}": tuple(f"{name}.{kind}" for name in theirs)
        for kind in ("weight", "bias")
        for ours, theirs in {
            "norm": ["bert.embeddings.LayerNorm"],
            "layers.{i}.attention.qkv": [
                _LAYER + f"attention.self.{part}" for part in ("query", "key", "value")
            ],
            "layers.{i}.attention.output": [_LAYER + "attention.output.dense"],
            "layers.{i}.attention_norm": [_LAYER + "attention.output.LayerNorm"],
            "layers.{i}.feed_forward.expand": [_LAYER + "intermediate.dense"],
            "layers.{i}.feed_forward.contract": [_LAYER + "output.dense"],
            "layers.{i}.feed_forward_norm": [_LAYER + "output.LayerNorm"],
            "heads.tokens.dense": ["cls.predictions.transform.dense"],
            "heads.tokens.norm": ["cls.predictions.transform.LayerNorm"],
            "heads.pair.pooler": ["bert.pooler.dense"],
        }.items()
    },
    "transposed": (),
    # What may be missing as a whole, by the pattern of our names.
    "optional": {
        "head 'tokens', but for the matrix that it shares with the embeddings,": {
            "rest": r"heads\.tokens\..*"
        },
        "head 'pair'": {
            "pooler": r"heads\.pair\.pooler\..*",
            "classifier": r"heads\.pair\.(weight|bias)",
        },
    },
    # Second copies of tied weights.
    "copies": {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    "ignored": (r"bert\.embeddings\.(position_ids|token_type_ids)",),  # buffers of old versions
    "renamed": {r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"},
}
# What has one published value; anything else is another model.
_ONLY = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "layer_norm_eps": EPSILON,
    "type_vocab_size": SEGMENTS,
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


# How other tools feed it (see ``pretrained.feeding``): what every objective for encoders reads.
FED = {
    "inputs": ["input_ids", "token_type_ids", "attention_mask"],
    "single": "cls:0 $A:0 sep:0",
    "pair": "cls:0 $A:0 sep:0 $B:1 sep:1",
    "always": True,
}


def to_foreign(config: Config) -> dict[str, Any]:
    """The content of Hugging Face's config.json."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["BertForPreTraining"],
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.positions,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.inner,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_rate,
        **_ONLY,
    }


def from_foreign(foreign: dict[str, Any]) -> Config:
    """The Config of a config.json. Raises InputError for what this file does not implement."""
    for key, value in _ONLY.items():
        if foreign.get(key, value) != value:
            raise InputError(
                f"config.json: {key} {foreign[key]!r} is not implemented: BERT has {value!r}"
            )
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    dropout, attention = (foreign.get(name, 0.1) for name in names)
    try:
        return Config(
            vocabulary=foreign["vocab_size"],
            positions=foreign["max_position_embeddings"],
            width=foreign["hidden_size"],
            layers=foreign["num_hidden_layers"],
            heads=foreign["num_attention_heads"],
            feed_forward=foreign["intermediate_size"],
            dropout=dropout,
            attention_dropout=None if attention == dropout else attention,
        )
    except KeyError as missing:
        raise InputError(f"config.json: {missing} is missing: add it") from None
