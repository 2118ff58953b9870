"""Hugging Face's names for ModernBERT, of its weights and of its config.

The sizes come and go as plain values: the model itself is not imported.
"""

from typing import Any

from minicpt.common.errors import InputError

# Hugging Face's names.
MODEL_TYPE = "modernbert"
_LAYER = "model.layers.{i}."
NAMES: dict[str, Any] = {
    "prefix": "model.",  # what a folder of the bare ModernBertModel leaves out
    "weights": {
        "tokens.weight": "model.embeddings.tok_embeddings.weight",
        "heads.tokens.weight": "decoder.weight",  # of a head that is not tied
        "heads.tokens.bias": "decoder.bias",
        "heads.pair.weight": "classifier.weight",
        "heads.pair.bias": "classifier.bias",
    }
    | {
        f"{ours}.{kind}": f"{theirs}.{kind}"
        for kind in ("weight", "bias")
        for ours, theirs in {
            "embedding_norm": "model.embeddings.norm",
            "layers.{i}.attention_norm": _LAYER + "attn_norm",
            "layers.{i}.attention.qkv": _LAYER + "attn.Wqkv",
            "layers.{i}.attention.output": _LAYER + "attn.Wo",
            "layers.{i}.feed_forward_norm": _LAYER + "mlp_norm",
            "layers.{i}.feed_forward.gate_expand": _LAYER + "mlp.Wi",
            "layers.{i}.feed_forward.contract": _LAYER + "mlp.Wo",
            "norm": "model.final_norm",
            "heads.tokens.transform.dense": "head.dense",
            "heads.tokens.transform.norm": "head.norm",
        }.items()
    },
    "transposed": (),
    # What may be missing as a whole. Masked LM and classification share the dense layer.
    "optional": {
        "head 'tokens'": {
            "dense layer": r"heads\.tokens\.transform\..*",
            "bias": r"heads\.tokens\.bias",
            "matrix": r"heads\.tokens\.weight",
        },
        "head 'pair'": {"classifier": r"heads\.pair\..*"},
    },
    "copies": {"decoder.weight": "model.embeddings.tok_embeddings.weight"},  # of tied weights
    "ignored": (),
    "renamed": {},
}
# What is computed in one way alone; anything else is another model.
_ONLY = {"hidden_activation": "gelu", "classifier_activation": "gelu"}
_ATTENDS = {"full_attention": "full", "sliding_attention": "sliding"}
_ROPE = {"rope_type", "rope_theta"}
# Their name of what is copied as it is, ours, and the value that a folder without it means.
_COPIED = (
    ("max_position_embeddings", "positions", 8192),
    ("local_attention", "local_attention", 128),
    ("norm_eps", "epsilon", 1e-5),
    ("norm_bias", "norm_bias", False),
    ("attention_bias", "attention_bias", False),
    ("mlp_bias", "feed_forward_bias", False),
    ("classifier_bias", "dense_bias", False),
    ("decoder_bias", "decoder_bias", True),
    ("tie_word_embeddings", "tied", True),
    ("classifier_pooling", "pooling", "cls"),
    ("mlp_dropout", "dropout", 0.0),
)
_RATES = ("attention_dropout", "embedding_dropout", "classifier_dropout")

# How other tools feed it (see ``huggingface.feeding``): there are no segments.
FED = {
    "single": "cls:0 $A:0 sep:0",
    "pair": "cls:0 $A:0 sep:0 $B:0 sep:0",
    "always": True,
}


def to_foreign(config: Any) -> dict[str, Any]:
    """The content of Hugging Face's config.json: which layers are global, and the thetas, under the
    keys of transformers 5 and under the older ones.

    The ids of its special tokens belong to the tokenizer: whoever writes the folder fills them in.
    Left out they would be those of the published vocabulary, so they are null here.
    """
    names = {ours: theirs for theirs, ours in _ATTENDS.items()}
    kinds = [names[config.layer_attends(number)] for number in range(config.layers)]
    thetas = {"full_attention": config.global_theta, "sliding_attention": config.local_theta}
    found = {
        "model_type": MODEL_TYPE,
        "architectures": ["ModernBertForMaskedLM"],
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.inner,
        "layer_types": kinds,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()
        },
        "global_rope_theta": config.global_theta,
        "local_rope_theta": config.local_theta,
        **{theirs: getattr(config, ours) for theirs, ours, _ in _COPIED},
        **{name: config.rate(name.removesuffix("_dropout")) for name in _RATES},
        **dict.fromkeys(f"{role}_token_id" for role in ("pad", "bos", "eos", "cls", "sep")),
        **_ONLY,
    }
    return found if config.attends else found | {"global_attn_every_n_layers": config.global_every}


def from_foreign(foreign: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a config.json, in our terms.

    Raises InputError for what this model does not implement.
    """
    for key, value in _ONLY.items():
        if foreign.get(key, value) != value:
            raise InputError(
                f"config.json: {key} {foreign[key]!r} is not implemented: ModernBERT has {value!r}"
            )
    found = {ours: foreign.get(theirs, usual) for theirs, ours, usual in _COPIED}
    rates = {name: foreign.get(name, 0.0) for name in _RATES}
    found |= {name: None if rate == found["dropout"] else rate for name, rate in rates.items()}
    try:
        return dict(
            vocabulary=foreign["vocab_size"],
            width=foreign["hidden_size"],
            layers=foreign["num_hidden_layers"],
            num_heads=foreign["num_attention_heads"],
            feed_forward=foreign["intermediate_size"],
            **found,
            **_kinds(foreign),
            **_thetas(foreign),
        )
    except KeyError as missing:
        raise InputError(f"config.json: {missing} is missing: add it") from None


def _kinds(foreign: dict[str, Any]) -> dict[str, Any]:
    """Which layers are global: ``layer_types`` before ``global_attn_every_n_layers``."""
    every, kinds = foreign.get("global_attn_every_n_layers", 3), foreign.get("layer_types")
    if kinds is None:
        return {"global_every": every}
    if not isinstance(kinds, list) or any(kind not in _ATTENDS for kind in map(str, kinds)):
        raise InputError(
            f"config.json: layer_types {kinds!r:.80} is not implemented: use a list of"
            f" {' and '.join(_ATTENDS)}"
        )
    if len(kinds) != foreign["num_hidden_layers"]:
        raise InputError(
            f"config.json: layer_types names {len(kinds)} layers, and num_hidden_layers is"
            f" {foreign['num_hidden_layers']!r}; use files that belong together"
        )
    for each in (every, *range(1, len(kinds) + 1)):
        if kinds == [_kind(number, each) for number in range(len(kinds))]:
            return {"global_every": each}
    return {"attends": tuple(_ATTENDS[kind] for kind in kinds)}


def _kind(number: int, every: int) -> str:
    return "sliding_attention" if number % max(every, 1) else "full_attention"


def _thetas(foreign: dict[str, Any]) -> dict[str, Any]:
    """``rope_parameters`` of both kinds of layers, or the older keys. One way alone is computed."""
    if foreign.get("rope_scaling"):
        _refuse("rope_scaling", foreign["rope_scaling"])
    given = foreign.get("rope_parameters") or {}
    if not isinstance(given, dict) or given.keys() - _ATTENDS.keys():
        _refuse("rope_parameters", given)
    found = {}
    for kind, ours, usual in (
        ("full_attention", "global", 160_000.0),
        ("sliding_attention", "local", 10_000.0),
    ):
        values = given.get(kind) or {}
        said = {name for name, value in values.items() if value is not None}
        if values.get("rope_type", "default") != "default" or said - _ROPE:
            _refuse("rope_parameters", values)
        old = foreign.get(f"{ours}_rope_theta", usual)
        if old is None:  # before transformers 5, null means the theta of the global layers
            old = found.get("global_theta", usual)
        found[f"{ours}_theta"] = values.get("rope_theta", old)
    return found


def _refuse(key: str, value: Any) -> None:
    raise InputError(
        f"config.json: {key} {value!r:.80} is not implemented: ModernBERT has a rope_theta, and the"
        " rope_type 'default', for each of " + " and ".join(_ATTENDS)
    )
