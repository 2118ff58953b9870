"""Hugging Face's names for BERT, of its weights and of its config.

The sizes come and go as plain values: the model itself is not imported.
"""

from typing import Any

from minicpt.common.errors import InputError

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
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


# How other tools feed it (see ``huggingface.feeding``): what every objective for encoders reads.
FED = {
    "inputs": ["input_ids", "token_type_ids", "attention_mask"],
    "single": "cls:0 $A:0 sep:0",
    "pair": "cls:0 $A:0 sep:0 $B:1 sep:1",
    "always": True,
}


def to_foreign(config: Any) -> dict[str, Any]:
    """The content of Hugging Face's config.json."""
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["BertForPreTraining"],
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.positions,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.inner,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_rate,
        **_ONLY,
    }


def from_foreign(foreign: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a config.json, in our terms.

    Raises InputError for what this model does not implement.
    """
    for key, value in _ONLY.items():
        if foreign.get(key, value) != value:
            raise InputError(
                f"config.json: {key} {foreign[key]!r} is not implemented: BERT has {value!r}"
            )
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    dropout, attention = (foreign.get(name, 0.1) for name in names)
    try:
        return dict(
            vocabulary=foreign["vocab_size"],
            positions=foreign["max_position_embeddings"],
            width=foreign["hidden_size"],
            layers=foreign["num_hidden_layers"],
            num_heads=foreign["num_attention_heads"],
            feed_forward=foreign["intermediate_size"],
            dropout=dropout,
            attention_dropout=None if attention == dropout else attention,
        )
    except KeyError as missing:
        raise InputError(f"config.json: {missing} is missing: add it") from None
