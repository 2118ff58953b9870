"""Hugging Face's names for T5, versions 1.0 and 1.1, of its weights and of its config.

The sizes come and go as plain values: the model itself is not imported.
"""

import re
from typing import Any

import torch
from torch import Tensor

from minicpt.common.errors import InputError

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
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}
_VERSIONS = {"relu": "1.0", "gated-gelu": "1.1"}  # by the feed-forward layer

# Whether the head is tied, and whether it is scaled: before its version 5, transformers has one key
# for both, tie_word_embeddings. Version 5 has scale_decoder_outputs for the second. For the first
# it always writes True, and the weights tell: see ``from_weights``.

# How other tools feed it (see ``huggingface.feeding``). Nothing stands around a text: the encoder
# of sentence reconstruction reads words alone. Labels end with end-of-text; whoever makes them adds
# it. Behind what the encoder reads, span corruption and denoising put it too. The tokenizer of a
# loaded base keeps its own rule: T5's puts </s> behind every text. For an encoder that reads none,
# call it with ``add_special_tokens=False``.
FED = {}


def to_foreign(config: Any) -> dict[str, Any]:
    """The content of Hugging Face's config.json.

    The id of its end token belongs to the tokenizer: whoever writes the folder fills it in. Left
    out it would be T5's own 1, so it is null here.
    """
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
        "num_heads": config.num_heads,
        "dropout_rate": config.dropout,
        "feed_forward_proj": {version: name for name, version in _VERSIONS.items()}[config.version],
        "tie_word_embeddings": config.tied,
        "scale_decoder_outputs": config.scaled,
        "pad_token_id": config.pad,
        "decoder_start_token_id": config.pad,
        "eos_token_id": None,
        **_ONLY,
    }


def from_foreign(foreign: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a config.json, in our terms.

    Raises InputError for what this model does not implement.
    """
    for key, value in _ONLY.items():
        if foreign.get(key, value) != value:
            raise InputError(
                f"config.json: {key} {foreign[key]!r} is not implemented: T5 has {value!r}"
            )
    projection = foreign.get("feed_forward_proj", "relu")
    if projection not in _VERSIONS:
        raise InputError(
            f"config.json: feed_forward_proj {projection!r} is not implemented: T5 1.0 has 'relu',"
            " 1.1 has 'gated-gelu'"
        )
    tied = foreign.get("tie_word_embeddings", True)
    pad = foreign.get("pad_token_id", 0)
    if foreign.get("decoder_start_token_id", pad) != pad:
        raise InputError(
            f"config.json: decoder_start_token_id {foreign['decoder_start_token_id']!r} is not "
            f"implemented: the decoder of T5 starts with the pad token, {pad!r}"
        )
    try:
        return dict(
            vocabulary=foreign["vocab_size"],
            pad=pad,
            width=foreign["d_model"],
            layers=foreign["num_layers"],
            decoder_layers=foreign.get("num_decoder_layers") or 0,
            num_heads=foreign["num_heads"],
            head_width=foreign["d_kv"],
            feed_forward=foreign["d_ff"],
            version=_VERSIONS[projection],
            tied=tied,
            scaled=foreign.get("scale_decoder_outputs", tied),
            dropout=foreign.get("dropout_rate", 0.1),
        )
    except KeyError as missing:
        raise InputError(f"config.json: {missing} is missing: add it") from None


def from_weights(foreign: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What the weights tell and the config.json does not: a head that differs from the token
    embedding is not tied. On the meta device it counts as one that differs."""
    names = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    embedding = next((tensors[name] for name in names if name in tensors), None)
    head = tensors.get("lm_head.weight")
    if "scale_decoder_outputs" not in foreign or head is None or embedding is None:
        return {}
    return {} if not head.is_meta and torch.equal(head, embedding) else {"tied": False}
