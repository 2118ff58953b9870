"""GPT-2, the decoder of Radford et al. 2019 (Language Models are Unsupervised Multitask Learners).

Pre-norm layers, GELU in its tanh form, learned positions, a final norm, a head tied to the token
embedding. One forward pass gives the hidden states of all positions, and the causal mask keeps each
of them from seeing what follows. Returns hidden states, never losses. Leaves out the variants with
cross-attention or with scores scaled by the layer's number.

B batch, T positions, D width, H heads, V vocabulary, N targets.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.fast.dropout import Dropout
from minicpt.models.layers import attention, causal_mask, padding_mask

EPSILON = 1e-5


@dataclass(frozen=True)
class Config(Checked):
    """The sizes of a decoder. Raises InputError where they do not fit together."""

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
    embedding_dropout: float | None = field(default=None, metadata={"least": 0, "below": 1})
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

    @property
    def embedding_rate(self) -> float:
        """The dropout probability of the embeddings."""
        return self.dropout if self.embedding_dropout is None else self.embedding_dropout


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
        return self.contract(F.gelu(self.expand(x), approximate="tanh"))


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.attention = SelfAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        # Pre-norm: the residual path runs through all layers untouched, up to the final norm.
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class TokensHead(nn.Module):
    """The token embedding transposed: nothing before the projection, no bias."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight  # tied: the same Parameter
        self.bias = None

    def transform(self, hidden: Tensor) -> Tensor:
        return hidden  # (N, D)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(self.transform(hidden), self.weight)  # (N, V)


class Model(nn.Module):
    """GPT-2. Initialised as published: normal with standard deviation 0.02, biases zero, and the
    projections that write to the residual path scaled down by the root of their number."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.dropout = Dropout(config.embedding_rate)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=EPSILON)
        self.heads = nn.ModuleDict({"tokens": TokensHead(self.tokens)})
        self.apply(_initialise)
        for layer in self.layers:
            for projection in (layer.attention.output, layer.feed_forward.contract):
                nn.init.normal_(projection.weight, std=0.02 / math.sqrt(2 * config.layers))

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
        if mask is None or mask.dim() == 2:
            causal = causal_mask(tokens.size(1), tokens.device)  # (T, T)
            mask = causal if mask is None else causal & padding_mask(mask)  # (B, 1, T, T)
        else:
            mask = padding_mask(mask)  # (B, 1, T, T)
        x = self.dropout(self.embed(tokens, positions))  # (B, T, D)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)

    def embed(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None:
            if tokens.size(1) > self.config.positions:
                raise InputError(
                    f"decoder: {tokens.size(1)} positions, but the model has "
                    f"{self.config.positions}: use shorter passages"
                )
            positions = torch.arange(tokens.size(1), device=tokens.device)  # (T,)
        try:
            return self.tokens(tokens) + self.positions(positions)
        except IndexError:  # raised by the CPU's look-up, so the check costs nothing
            raise InputError(
                f"decoder: an id lies outside its table ({self.config.vocabulary} tokens, "
                f"{self.config.positions} positions): use the tokenizer that belongs to the model"
            ) from None


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


# Hugging Face's names. Its Conv1D keeps a matrix as (in, out): those are transposed.
MODEL_TYPE = "gpt2"
_BLOCK = "transformer.h.{i}."
_MATRICES = {
    "layers.{i}.attention.qkv": _BLOCK + "attn.c_attn",
    "layers.{i}.attention.output": _BLOCK + "attn.c_proj",
    "layers.{i}.feed_forward.expand": _BLOCK + "mlp.c_fc",
    "layers.{i}.feed_forward.contract": _BLOCK + "mlp.c_proj",
}
_NORMS = {
    "layers.{i}.attention_norm": _BLOCK + "ln_1",
    "layers.{i}.feed_forward_norm": _BLOCK + "ln_2",
    "norm": "transformer.ln_f",
}
NAMES: dict[str, Any] = {
    "prefix": "transformer.",  # what a folder of the bare GPT2Model leaves out
    "weights": {
        "tokens.weight": "transformer.wte.weight",
        "positions.weight": "transformer.wpe.weight",
    }
    | {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for kind in ("weight", "bias")
        for ours, theirs in (_MATRICES | _NORMS).items()
    },
    "transposed": tuple(f"{ours}.weight" for ours in _MATRICES),
    "optional": {},
    "copies": {"lm_head.weight": "transformer.wte.weight"},  # second copies of tied weights
    "ignored": (r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),  # causal masks as buffers
    "renamed": {},
}
# What has one published value; anything else is another model.
_ONLY = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": EPSILON,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


# How other tools feed it (see ``pretrained.feeding``). A text stands behind end-of-text, as causal
# LM reads a document; nothing stands after it, so that the model goes on writing. The tokenizer of
# a loaded base keeps its own rule (GPT-2's adds nothing, as here inside a document).
FED = {"single": "end:0 $A:0", "pair": "end:0 $A:0 end:0 $B:0"}


def to_foreign(config: Config) -> dict[str, Any]:
    """The content of Hugging Face's config.json.

    The ids of its special tokens belong to the tokenizer: whoever writes the folder fills them in.
    Left out they would be GPT-2's own 50256, so they are null here.
    """
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": config.vocabulary,
        "n_positions": config.positions,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.inner,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.embedding_rate,
        "attn_pdrop": config.attention_rate,
        "bos_token_id": None,
        "eos_token_id": None,
        **_ONLY,
    }


def from_foreign(foreign: dict[str, Any]) -> Config:
    """The Config of a config.json. Raises InputError for what this file does not implement."""
    for key, value in _ONLY.items():
        if foreign.get(key, value) != value:
            raise InputError(
                f"config.json: {key} {foreign[key]!r} is not implemented: GPT-2 has {value!r}"
            )
    names = ("resid_pdrop", "attn_pdrop", "embd_pdrop")
    dropout, attention, embedding = (foreign.get(name, 0.1) for name in names)
    try:
        return Config(
            vocabulary=foreign["vocab_size"],
            positions=foreign["n_positions"],
            width=foreign["n_embd"],
            layers=foreign["n_layer"],
            heads=foreign["n_head"],
            feed_forward=foreign.get("n_inner") or 0,
            dropout=dropout,
            attention_dropout=None if attention == dropout else attention,
            embedding_dropout=None if embedding == dropout else embedding,
        )
    except KeyError as missing:
        raise InputError(f"config.json: {missing} is missing: add it") from None
