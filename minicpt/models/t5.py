"""T5, the encoder-decoder of Raffel et al. 2019 (arXiv 1910.10683), in versions 1.0 and 1.1.

RMS norm before each layer, no biases, scores not divided by sqrt(D/H), and no position embeddings:
a bias for each relative distance is added to the scores, shared by the layers of a stack. Version
1.0: ReLU, and the head is the token embedding, after a scaling by 1/sqrt(D). Version 1.1: GELU with
a gate (Shazeer 2020, arXiv 2002.05202), and a head of its own. Returns hidden states, never losses.

The decoder's first token is the pad token: the objectives put it there.

B batch, T positions, S decoder positions, D width, H heads, K width of a head, V vocabulary,
N targets.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.fast.dropout import Dropout
from minicpt.models.layers import attention, biased_mask, causal_mask, padding_mask

EPSILON = 1e-6
BUCKETS, DISTANCE = 32, 128  # buckets of relative positions; all distances from 128 on share one


@dataclass(frozen=True)
class Config(Checked):
    """The sizes of an encoder-decoder. Raises InputError where they do not fit together."""

    vocabulary: int = field(metadata={"least": 1})
    pad: int = field(default=0, metadata={"least": 0})  # id of the pad token, starts the decoder
    width: int = setting(128, "width of the hidden states", least=1, most=2**16)
    layers: int = setting(4, "number of layers of the encoder", least=1, most=1024)
    decoder_layers: int = setting(
        0, "layers of the decoder; 0 = as the encoder", least=0, most=1024
    )
    heads: int = setting(4, "attention heads", least=1)
    head_width: int = setting(0, "width of a head; 0 = width / heads", least=0)
    feed_forward: int = setting(0, "width inside the feed-forward layers; 0 = 4 x width", least=0)
    # 1.1 learns faster when it is small and starts from nothing: at the same width, steps and best
    # learning rate of two, 4.13 against 4.40 nats on held-out text (500 steps, width 64).
    version: Literal["1.0", "1.1"] = setting(
        "1.1", "of T5: 1.0 (ReLU, tied head) or 1.1 (gated GELU, head of its own)"
    )
    dropout: float = setting(
        0.1, "dropout probability in training; with --init it replaces every rate of the folder",
        least=0, below=1,
    )  # fmt: skip
    fused: bool = setting(True, "use the fused attention kernel")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pad >= self.vocabulary:
            raise InputError(f"pad is {self.pad}, but the vocabulary has {self.vocabulary} ids")
        if not self.head_width and self.width % self.heads:
            raise InputError(f"--heads {self.heads} does not divide --width {self.width}")

    @property
    def key_width(self) -> int:
        """The width of a head (K)."""
        return self.head_width or self.width // self.heads

    @property
    def inner(self) -> int:
        """The width inside the feed-forward layers."""
        return self.feed_forward or 4 * self.width


class RMSNorm(nn.Module):
    """The norm of Zhang and Sennrich 2019 (arXiv 1910.07467): no mean is taken off, no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON)


class PositionBias(nn.Module):
    """One number for each head and bucket of relative distance, added to the scores."""

    def __init__(self, config: Config, both_directions: bool) -> None:
        super().__init__()
        self.both_directions = both_directions
        self.weight = nn.Parameter(torch.empty(BUCKETS, config.heads))
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


class SelfAttention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.fused = config.heads, config.fused
        self.dropout = config.dropout
        inner = config.heads * config.key_width
        self.qkv = nn.Linear(config.width, 3 * inner, bias=False)
        self.output = nn.Linear(inner, config.width, bias=False)
        # What is not divided by sqrt(K) in the scores is divided here, once: in the queries.
        nn.init.normal_(self.qkv.weight[:inner], std=(config.width * config.key_width) ** -0.5)
        nn.init.normal_(self.qkv.weight[inner:], std=config.width**-0.5)
        nn.init.normal_(self.output.weight, std=inner**-0.5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, K)
            for part in self.qkv(x).chunk(3, dim=-1)  # three times (B, T, H*K)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = attention(query, key, value, mask, scale=1.0, dropout=dropout, fused=self.fused)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (B, T, D)


class CrossAttention(nn.Module):
    """The decoder looks at the encoder's hidden states; here distance plays no role."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads, self.fused = config.heads, config.fused
        self.dropout = config.dropout
        inner = config.heads * config.key_width
        self.query = nn.Linear(config.width, inner, bias=False)
        self.key_value = nn.Linear(config.width, 2 * inner, bias=False)
        self.output = nn.Linear(inner, config.width, bias=False)
        nn.init.normal_(self.query.weight, std=(config.width * config.key_width) ** -0.5)
        nn.init.normal_(self.key_value.weight, std=config.width**-0.5)
        nn.init.normal_(self.output.weight, std=inner**-0.5)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, S, K)
        key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, K)
            for part in self.key_value(memory).chunk(2, dim=-1)  # twice (B, T, H*K)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = attention(query, key, value, mask, scale=1.0, dropout=dropout, fused=self.fused)
        return self.output(mixed.transpose(1, 2).flatten(2))  # (B, S, D)


class FeedForward(nn.Module):
    """Version 1.0."""

    def __init__(self, config: Config) -> None:
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

    def __init__(self, config: Config) -> None:
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
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = SelfAttention(config)
        self.feed_forward_norm = RMSNorm(config.width)
        self.feed_forward = (FeedForward if config.version == "1.0" else GatedFeedForward)(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class DecoderLayer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width)
        self.attention = SelfAttention(config)
        self.cross_norm = RMSNorm(config.width)
        self.cross_attention = CrossAttention(config)
        self.feed_forward_norm = RMSNorm(config.width)
        self.feed_forward = (FeedForward if config.version == "1.0" else GatedFeedForward)(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        x = x + self.dropout(self.cross_attention(self.cross_norm(x), memory, memory_mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class Stack(nn.Module):
    """Layers that share one position bias, and the norm behind them."""

    def __init__(self, config: Config, layers: list[nn.Module], both_directions: bool) -> None:
        super().__init__()
        self.position_bias = PositionBias(config, both_directions)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.width)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, *memory: Tensor) -> Tensor:
        mask = biased_mask(mask, self.position_bias(x.size(1)))  # (B or 1, H, T, T), once
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, mask, *memory)
        return self.dropout(self.norm(x))


class TokensHead(nn.Module):
    """Version 1.0: hidden states scaled by 1/sqrt(D), then the token embedding transposed.
    Version 1.1: a projection of its own. No bias."""

    def __init__(self, config: Config, embedding: nn.Embedding) -> None:
        super().__init__()
        self.scale = config.width**-0.5 if config.version == "1.0" else 1.0
        self.bias = None
        if config.version == "1.0":
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


class Model(nn.Module):
    """T5. Each matrix is initialised where it is made, with the published standard deviation."""

    def __init__(self, config: Config) -> None:
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
        if decoder_mask is None or decoder_mask.dim() == 2:
            seen = causal_mask(decoder_tokens.size(1), decoder_tokens.device)  # (S, S)
            if decoder_mask is not None:
                seen = seen & padding_mask(decoder_mask)  # (B, 1, S, S)
        else:
            seen = padding_mask(decoder_mask)  # (B, 1, S, S)
        memory_mask = padding_mask(_real(memory[:, :, 0], mask))  # (B, 1, 1, T)
        return self.decoder(self.embed(decoder_tokens), seen, memory, memory_mask)

    def embed(self, tokens: Tensor) -> Tensor:
        try:
            return self.tokens(tokens)
        except IndexError:  # raised by the CPU's look-up, so the check costs nothing
            raise InputError(
                f"encoder-decoder: a token id lies outside the vocabulary of "
                f"{self.config.vocabulary}: use the tokenizer that belongs to the model"
            ) from None


def _real(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The mask (B, T), or one row of True that broadcasts over B."""
    if mask is None:
        return torch.ones_like(tokens[:1], dtype=torch.bool)
    if mask.dim() != 2:
        # A pattern inside the encoder does not say what the decoder may look at.
        raise InputError("encoder-decoder: mask must be (B, T); only decoder_mask may be (B, S, S)")
    return mask


# Hugging Face's names. A tuple: our matrix is theirs, one below the other.
MODEL_TYPE = "t5"
_SUBLAYERS = {  # of both stacks; {last} is the number of the feed-forward sublayer
    "attention.qkv": [f"layer.0.SelfAttention.{part}" for part in "qkv"],
    "attention.output": ["layer.0.SelfAttention.o"],
    "attention_norm": ["layer.0.layer_norm"],
    "feed_forward.expand": ["layer.{last}.DenseReluDense.wi"],
    "feed_forward.gate_expand": ["layer.{last}.DenseReluDense.wi_" + part for part in "01"],
    "feed_forward.contract": ["layer.{last}.DenseReluDense.wo"],
    "feed_forward_norm": ["layer.{last}.layer_norm"],
}
_CROSS = {  # of the decoder alone
    "cross_attention.query": ["layer.1.EncDecAttention.q"],
    "cross_attention.key_value": ["layer.1.EncDecAttention.k", "layer.1.EncDecAttention.v"],
    "cross_attention.output": ["layer.1.EncDecAttention.o"],
    "cross_norm": ["layer.1.layer_norm"],
}
_BIAS = "block.0.layer.{}.{}Attention.relative_attention_bias.weight"
NAMES: dict[str, Any] = {
    "prefix": "",
    "weights": {
        "tokens.weight": "shared.weight",
        "encoder.position_bias.weight": "encoder." + _BIAS.format(0, "Self"),
        "decoder.position_bias.weight": "decoder." + _BIAS.format(0, "Self"),
        "encoder.norm.weight": "encoder.final_layer_norm.weight",
        "decoder.norm.weight": "decoder.final_layer_norm.weight",
        "heads.tokens.weight": "lm_head.weight",
    }
    | {
        f"{stack}.layers.{{i}}.{ours}.weight": tuple(
            f"{stack}.block.{{i}}.{name.replace('{last}', last)}.weight" for name in theirs
        )
        for stack, last, sublayers in (
            ("encoder", "1", _SUBLAYERS),
            ("decoder", "2", _SUBLAYERS | _CROSS),
        )
        for ours, theirs in sublayers.items()
    },
    "transposed": (),
    "optional": {"head 'tokens'": {"matrix": r"heads\.tokens\.weight"}},
    # Second copies of tied weights. In version 1.1 lm_head is a weight of its own, not a copy.
    "copies": {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
        "lm_head.weight": "shared.weight",
    },
    # A bias that the first T5 folders hold and that no version of the model reads.
    "ignored": (re.escape("decoder." + _BIAS.format(1, "EncDec")),),
    "renamed": {},
}
# What has one published value; anything else is another model.
_ONLY = {
    "layer_norm_epsilon": EPSILON,
    "relative_attention_num_buckets": BUCKETS,
    "relative_attention_max_distance": DISTANCE,
}
# The feed-forward layer of each version, and whether its head is scaled. Hugging Face writes the
# latter as tie_word_embeddings, and from its version 5 on as scale_decoder_outputs.
_VERSIONS = {("relu", True): "1.0", ("gated-gelu", False): "1.1"}


# How other tools feed it (see ``pretrained.feeding``). Nothing stands around a text: the encoder of
# sentence reconstruction reads words alone. Labels end with end-of-text; whoever makes them adds
# it. The tokenizer of a loaded base keeps its own rule. T5's puts </s> behind every text, which the
# encoder does not read here: call it with ``add_special_tokens=False`` for the encoder.
FED = {}


def to_foreign(config: Config) -> dict[str, Any]:
    """The content of Hugging Face's config.json.

    The id of its end token belongs to the tokenizer: whoever writes the folder fills it in. Left
    out it would be T5's own 1, so it is null here.
    """
    projection, scaled = {version: key for key, version in _VERSIONS.items()}[config.version]
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "d_kv": config.key_width,
        "d_ff": config.inner,
        "num_layers": config.layers,
        "num_decoder_layers": config.decoder_layers or config.layers,
        "num_heads": config.heads,
        "dropout_rate": config.dropout,
        "feed_forward_proj": projection,
        "tie_word_embeddings": scaled,
        "pad_token_id": config.pad,
        "decoder_start_token_id": config.pad,
        "eos_token_id": None,
        **_ONLY,
    }


def from_foreign(foreign: dict[str, Any]) -> Config:
    """The Config of a config.json. Raises InputError for what this file does not implement."""
    for key, value in _ONLY.items():
        if foreign.get(key, value) != value:
            raise InputError(
                f"config.json: {key} {foreign[key]!r} is not implemented: T5 has {value!r}"
            )
    projection = foreign.get("feed_forward_proj", "relu")
    scaled = foreign.get("scale_decoder_outputs", foreign.get("tie_word_embeddings", True))
    if (projection, scaled) not in _VERSIONS:
        raise InputError(
            f"config.json: feed_forward_proj {projection!r} with tie_word_embeddings {scaled!r} is "
            "not implemented: T5 1.0 has 'relu' and True, 1.1 has 'gated-gelu' and False"
        )
    pad = foreign.get("pad_token_id", 0)
    if foreign.get("decoder_start_token_id", pad) != pad:
        raise InputError(
            f"config.json: decoder_start_token_id {foreign['decoder_start_token_id']!r} is not "
            f"implemented: the decoder of T5 starts with the pad token, {pad!r}"
        )
    try:
        return Config(
            vocabulary=foreign["vocab_size"],
            pad=pad,
            width=foreign["d_model"],
            layers=foreign["num_layers"],
            decoder_layers=foreign.get("num_decoder_layers") or 0,
            heads=foreign["num_heads"],
            head_width=foreign["d_kv"],
            feed_forward=foreign["d_ff"],
            version=_VERSIONS[projection, scaled],
            dropout=foreign.get("dropout_rate", 0.1),
        )
    except KeyError as missing:
        raise InputError(f"config.json: {missing} is missing: add it") from None
