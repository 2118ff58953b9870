"""Hugging Face's names for GPT-2, of its weights and of its config.

The sizes come and go as plain values: the model itself is not imported.
"""

from typing import Any

from minicpt.common.errors import InputError

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
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


# How other tools feed it (see ``huggingface.feeding``). A text stands behind end-of-text, as causal
# LM reads a document; nothing stands after it, so that the model goes on writing. The tokenizer of
# a loaded base keeps its own rule (GPT-2's adds nothing, as here inside a document).
FED = {"single": "end:0 $A:0", "pair": "end:0 $A:0 end:0 $B:0"}


def to_foreign(config: Any) -> dict[str, Any]:
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
        "n_head": config.num_heads,
        "n_inner": config.inner,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.embedding_rate,
        "attn_pdrop": config.attention_rate,
        "bos_token_id": None,
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
                f"config.json: {key} {foreign[key]!r} is not implemented: GPT-2 has {value!r}"
            )
    names = ("resid_pdrop", "attn_pdrop", "embd_pdrop")
    dropout, attention, embedding = (foreign.get(name, 0.1) for name in names)
    try:
        return dict(
            vocabulary=foreign["vocab_size"],
            positions=foreign["n_positions"],
            width=foreign["n_embd"],
            layers=foreign["n_layer"],
            num_heads=foreign["n_head"],
            feed_forward=foreign.get("n_inner") or 0,
            dropout=dropout,
            attention_dropout=None if attention == dropout else attention,
            embedding_dropout=None if embedding == dropout else embedding,
        )
    except KeyError as missing:
        raise InputError(f"config.json: {missing} is missing: add it") from None
