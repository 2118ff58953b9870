"""Hugging Face's names for Llama's family, of its weights and of its config.

The sizes come and go as plain values: the model itself is not imported.
"""

from typing import Any

from minicpt.common.errors import InputError

MODEL_TYPE = "llama mistral qwen2 qwen3 smollm3"
# Hugging Face's names. A tuple: our matrix is theirs, one below the other.
_LAYER = "model.layers.{i}."
_PROJECTIONS = {
    "attention.query": ["self_attn.q_proj"],
    "attention.key_value": ["self_attn.k_proj", "self_attn.v_proj"],
    "attention.output": ["self_attn.o_proj"],
    "attention.query_norm": ["self_attn.q_norm"],
    "attention.key_norm": ["self_attn.k_norm"],
    "attention_norm": ["input_layernorm"],
    "feed_forward.gate_expand": ["mlp.gate_proj", "mlp.up_proj"],
    "feed_forward.contract": ["mlp.down_proj"],
    "feed_forward_norm": ["post_attention_layernorm"],
}
NAMES: dict[str, Any] = {
    "prefix": "model.",  # what a folder of the bare LlamaModel leaves out
    "weights": {
        "tokens.weight": "model.embed_tokens.weight",
        "norm.weight": "model.norm.weight",
        "heads.tokens.weight": "lm_head.weight",
    }
    | {
        f"layers.{{i}}.{ours}.{kind}": tuple(f"{_LAYER}{name}.{kind}" for name in theirs)
        for kind in ("weight", "bias")
        for ours, theirs in _PROJECTIONS.items()
    },
    "transposed": (),
    "optional": {"head 'tokens'": {"matrix": r"heads\.tokens\.weight"}},
    "copies": {"lm_head.weight": "model.embed_tokens.weight"},  # where the head is tied
    "ignored": (r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),  # a buffer of old
    "renamed": {},
}

# What the classes of each model type are called, and what transformers takes for a key that a
# config.json leaves out. A size that is not here may not be left out.
_CLASSES = dict(zip(MODEL_TYPE.split(), "Llama Mistral Qwen2 Qwen3 SmolLM3".split(), strict=True))
_QWEN = {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}
_LEFT_OUT: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {
        "max_position_embeddings": 4096 * 32,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "use_sliding_window": True,  # it has no such key
    },
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128},
    "smollm3": {
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "rope_theta": 2_000_000.0,
        "no_rope_layer_interval": 4,
    },
}
# What has one value here; anything else is another model. The first are of all types.
_ONLY: dict[str, Any] = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "pretraining_tp": 1,
    "partial_rotary_factor": 1.0,
    "rope_interleaved": False,
    "attention_chunk_size": None,
    "use_mrope": False,
    "quantization_config": None,
}
_ONLY_OF: dict[str, dict[str, Any]] = {
    "llama": {"sliding_window": None, "use_sliding_window": False, "layer_types": None},
    "mistral": {"attention_bias": False, "use_sliding_window": True, "layer_types": None},
    "qwen2": {"attention_bias": True},
    "qwen3": {},
    "smollm3": {},
}
_ROPE = {
    "factor": "rope_factor",
    "low_freq_factor": "rope_low",
    "high_freq_factor": "rope_high",
    "original_max_position_embeddings": "rope_length",
}
_ROPE_TYPES = {"default": [], "linear": ["factor"], "llama3": [*_ROPE]}
_LAYER_TYPES = {"full_attention": False, "sliding_attention": True}  # whether it slides

# How other tools feed it (see ``huggingface.feeding``): as GPT-2. The tokenizer of a loaded base
# keeps its own rule.
FED = {"single": "end:0 $A:0", "pair": "end:0 $A:0 end:0 $B:0"}


def to_foreign(config: Any) -> dict[str, Any]:
    """The content of Hugging Face's config.json.

    Rotary positions stand there twice: ``rope_theta`` and ``rope_scaling`` for transformers 4 and
    other tools, ``rope_parameters`` for transformers 5. The ids of its special tokens belong to the
    tokenizer: whoever writes the folder fills them in. Left out they would be Llama's own, so they
    are null here.
    """
    scaling = {name: getattr(config, _ROPE[name]) for name in _ROPE_TYPES[config.rope_type]}
    rope = {"rope_type": config.rope_type, **scaling}
    foreign = {
        "model_type": config.family,
        "architectures": [_CLASSES[config.family] + "ForCausalLM"],
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.inner,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.key_width,
        "max_position_embeddings": config.positions,
        "rms_norm_eps": config.epsilon,
        "attention_dropout": config.attention_rate,
        "tie_word_embeddings": config.tied,
        "rope_theta": config.rope_theta,
        "rope_scaling": rope if scaling else None,
        "rope_parameters": rope | {"rope_theta": config.rope_theta},
        "hidden_act": "silu",
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if config.family in ("llama", "qwen3", "smollm3"):
        foreign["attention_bias"] = config.attention_bias
    if config.family in ("llama", "smollm3"):
        foreign["mlp_bias"] = False
    if config.family != "llama":
        foreign["sliding_window"] = config.sliding_window
    if config.family in ("qwen2", "qwen3", "smollm3"):
        types = [f"{config.layer_attends(number)}_attention" for number in range(config.layers)]
        foreign["use_sliding_window"] = config.sliding_window is not None
        foreign["layer_types"] = types
        first = [*types, "sliding_attention"].index("sliding_attention")
        foreign["max_window_layers"] = first  # old versions read this
    if config.family == "smollm3":
        foreign["no_rope_layers"] = [int(config.layer_rotates(i)) for i in range(config.layers)]
    return foreign


def from_foreign(foreign: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a config.json, in our terms.

    Raises InputError for what this model does not implement.
    """
    family = foreign["model_type"]
    for key, value in (_ONLY | _ONLY_OF[family]).items():
        if foreign.get(key) not in (None, value):
            raise InputError(
                f"config.json: {key} {foreign[key]!r:.60} is not implemented: {family} has"
                f" {value!r}"
            )
    foreign = {"max_position_embeddings": 32768} | _LEFT_OUT[family] | foreign
    try:
        heads, width = foreign["num_attention_heads"], foreign["hidden_size"]
        shared, head = foreign.get("num_key_value_heads"), foreign.get("head_dim")
        return dict(
            family=family,
            vocabulary=foreign["vocab_size"],
            positions=foreign["max_position_embeddings"],
            width=width,
            layers=foreign["num_hidden_layers"],
            num_heads=heads,
            num_key_value_heads=0 if shared in (None, heads) else shared,
            head_width=0 if head is None or head * heads == width else head,
            feed_forward=foreign["intermediate_size"],
            epsilon=foreign.get("rms_norm_eps", 1e-6),
            dropout=foreign.get("attention_dropout", 0.0),
            tied=foreign.get("tie_word_embeddings", False),
            attention_bias=foreign.get("attention_bias", False) and family != "qwen2",
            **_layers(foreign),
            **_rope(foreign),
        )
    except KeyError as missing:
        raise InputError(f"config.json: {missing} is missing: add it") from None


def _layers(foreign: dict[str, Any]) -> dict[str, Any]:
    """The window, and the kind of each layer."""
    layers, family = foreign["num_hidden_layers"], foreign["model_type"]
    windowed = foreign.get("use_sliding_window") and foreign.get("sliding_window") is not None
    rotates = [True] * layers
    if family == "smollm3":
        every = foreign["no_rope_layer_interval"] or layers + 1
        usual = [(number + 1) % every != 0 for number in range(layers)]
        rotates = _of_each("no_rope_layers", foreign, usual, {0: False, 1: True})
    usual = {
        "mistral": [True] * layers,
        "smollm3": [not each for each in rotates],
    }.get(family, [number >= foreign.get("max_window_layers", 0) for number in range(layers)])
    slides = [bool(windowed and each) for each in usual]
    slides = _of_each("layer_types", foreign, slides, _LAYER_TYPES)
    if any(slides) and not windowed:
        raise InputError(
            "config.json: layer_types has sliding_attention, but use_sliding_window is false or"
            " sliding_window null: make them agree"
        )
    return {
        "sliding_window": foreign["sliding_window"] if windowed else None,
        "attends": () if all(slides) else tuple("sliding" if e else "full" for e in slides),
        "rotates": () if all(rotates) else tuple("rotary" if e else "none" for e in rotates),
    }


def _of_each(
    key: str, foreign: dict[str, Any], usual: list[bool], meaning: dict[Any, bool]
) -> list[bool]:
    """What a list of config.json means for each layer; ``usual`` where there is none."""
    found = foreign.get(key)
    if found is None:
        return usual
    if not isinstance(found, list) or len(found) < len(usual):
        raise InputError(f"config.json: {key} does not name a kind for each layer")
    for each in found:
        if each not in meaning:
            raise InputError(
                f"config.json: {key} {each!r:.60} is not implemented: use one of"
                f" {', '.join(map(str, meaning))}"
            )
    return [meaning[each] for each in found[: len(usual)]]


def _rope(foreign: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions, in today's spelling (rope_parameters) or the old one (rope_scaling)."""
    key = "rope_scaling" if foreign.get("rope_scaling") else "rope_parameters"
    rope = foreign.get(key) or {}
    if not isinstance(rope, dict):
        raise InputError(f"config.json: {key} must be an object, but is {rope!r:.60}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _ROPE_TYPES:
        raise InputError(
            f"config.json: {key} of rope_type {kind!r:.60} is not implemented: use one of"
            f" {', '.join(_ROPE_TYPES)}"
        )
    known = {"rope_type", "type", "rope_theta", *_ROPE}
    strange = {name for name, value in rope.items() if value is not None} - known
    if strange - {"partial_rotary_factor"} or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise InputError(f"config.json: {key} with {min(strange)!r:.60} is not implemented")
    rope = {"original_max_position_embeddings": foreign["max_position_embeddings"]} | rope
    theta = rope.get("rope_theta") or foreign.get("rope_theta") or 10_000.0
    return {"rope_type": kind, "rope_theta": theta} | {
        _ROPE[name]: rope[name] for name in _ROPE_TYPES[kind]
    }
