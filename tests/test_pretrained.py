"""Weights and configs to and from transformers: nothing lost, nothing guessed, faults named."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from making import close

from minicpt import models
from minicpt.checkpoint import huggingface
from minicpt.common.errors import InputError
from minicpt.models.bert import BERT
from minicpt.models.gpt2 import GPT2
from minicpt.models.layers import Model, Sizes, TiedHead
from minicpt.models.t5 import T5

V, P = 37, 24


def hf_bert(kind="BertForPreTraining", **changes):
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=P, **changes,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def hf_gpt2(kind="GPT2LMHeadModel", **changes):
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=P, n_embd=16, n_layer=2, n_head=2, n_inner=24,
        bos_token_id=1, eos_token_id=1, **changes,
    )  # fmt: skip
    return getattr(transformers, kind)(config)


def hf_t5(version="1.1", kind="T5ForConditionalGeneration"):
    config = transformers.T5Config(
        vocab_size=V, d_model=16, d_kv=5, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=2,
        feed_forward_proj="relu" if version == "1.0" else "gated-gelu",
        tie_word_embeddings=version == "1.0", decoder_start_token_id=0,
    )  # fmt: skip
    model = getattr(transformers, kind)(config)
    if version == "1.1" and hasattr(model, "lm_head"):
        # transformers 5 ties the head in all cases; the published 1.1 has one of its own.
        model.lm_head.weight = torch.nn.Parameter(torch.randn(V, 16))
    return model


FAMILIES = pytest.mark.parametrize(
    "make",
    [hf_bert, hf_gpt2, lambda: hf_t5("1.0"), lambda: hf_t5("1.1")],
    ids=["bert", "gpt2", "1.0", "1.1"],
)


def random_state(oracle):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return oracle


def folder_of(oracle, path):
    """The config and the tensors of a folder that transformers wrote."""
    oracle.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    return config, safetensors.torch.load_file(path / "model.safetensors")


def write_folder(model, path):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(huggingface.export_config(model)))
    state = huggingface.export_state(model)
    safetensors.torch.save_file(state, path / "model.safetensors", metadata={"format": "pt"})


def same(state, expected):
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def fault(model, state):
    """The one line that refuses a state; the model must be left as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError) as error:
        huggingface.import_state(model, state)
    same(model.state_dict(), before)
    assert "\n" not in str(error.value)
    return str(error.value)


# Round trips


@FAMILIES
def test_round_trip_through_folders_is_bitwise(make, tmp_path):
    oracle = random_state(make())
    config, tensors = folder_of(oracle, tmp_path / "theirs")
    model, notes = huggingface.load(config, tensors)
    assert notes == []
    write_folder(model, tmp_path / "ours")
    again, loading = type(oracle).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(loading.values()), loading
    same(again.state_dict(), oracle.state_dict())
    for name in ("eos_token_id", "bos_token_id"):
        assert getattr(again.config, name, None) is None


@FAMILIES
def test_the_config_survives_both_ways(make, tmp_path):
    config, _ = folder_of(make(), tmp_path / "theirs")
    model = huggingface.build(config)
    exported = huggingface.export_config(model)
    assert exported["architectures"] == config["architectures"]
    ignored = {"tie_word_embeddings", "bos_token_id", "eos_token_id"}
    for key in exported.keys() & config.keys() - ignored:
        assert exported[key] == config[key], key
    assert huggingface.build(exported).config == model.config
    json.dumps(exported)


def test_tied_weights_are_exported_once_and_apart_from_the_model():
    for kind, sizes in (
        (BERT, {"positions": P}),
        (GPT2, {"positions": P}),
        (T5, {"version": "1.0"}),
        (T5, {"version": "1.1"}),
    ):
        model = kind(kind.Config(vocabulary=V, width=16, layers=2, num_heads=2, **sizes))
        state = huggingface.export_state(model)
        assert sum(t.numel() for t in state.values()) == sum(p.numel() for p in model.parameters())
        assert sum(tensor.shape == (V, 16) for tensor in state.values()) == (
            2 if sizes.get("version") == "1.1" else 1
        )
        assert all(tensor.is_contiguous() for tensor in state.values())
        own = {parameter.data_ptr() for parameter in model.parameters()}
        assert own.isdisjoint(tensor.data_ptr() for tensor in state.values())
        lean = huggingface.export_state(model, copy=False)
        same(lean, state)
        assert all(tensor.is_contiguous() for tensor in lean.values())
        assert not own.isdisjoint(tensor.data_ptr() for tensor in lean.values())
        assert not any(tensor.requires_grad for tensor in state.values())


def test_tied_weights_stay_tied_after_import():
    model = huggingface.build(hf_gpt2().config.to_dict())
    huggingface.import_state(model, random_state(hf_gpt2()).state_dict())
    assert model.heads["tokens"].weight is model.tokens.weight


@FAMILIES
def test_values_that_no_weight_depends_on_can_be_changed(make):
    config = make().config.to_dict()
    model = huggingface.build(config, dropout=0.25, fused=False)
    assert (model.config.dropout, model.config.fused) == (0.25, False)
    assert huggingface.build(config).config.dropout == 0.1
    assert (
        huggingface.export_state(model).keys()
        == huggingface.export_state(huggingface.build(config)).keys()
    )


# Folders that hold less, or the same twice


TOKENS = (
    "head 'tokens', but for the matrix that it shares with the embeddings, is not in the folder:"
    " initialised at random"
)
CLASSIFIER = (
    "the classifier of head 'pair' is not in the folder: initialised at random; its pooler is kept"
)


@pytest.mark.parametrize(
    "kind, notes",
    [
        ("BertForPreTraining", []),
        ("BertModel", [TOKENS, CLASSIFIER]),
        ("BertForMaskedLM", ["head 'pair' is not in the folder: initialised at random"]),
        ("BertForNextSentencePrediction", [TOKENS]),
    ],
)
def test_every_kind_of_bert_imports_and_missing_heads_are_noted(kind, notes):
    oracle = random_state(hf_bert(kind))
    model = huggingface.build(oracle.config.to_dict()).eval()
    found = huggingface.import_state(model, oracle.state_dict())
    assert found == notes
    bare = oracle.eval() if kind == "BertModel" else oracle.eval().bert
    tokens = torch.arange(9)[None]
    close(model(tokens), bare(tokens).last_hidden_state, model, tokens)


@pytest.mark.parametrize("kind", ["GPT2Model", "GPT2LMHeadModel"])
def test_every_kind_of_gpt2_imports(kind):
    oracle = random_state(hf_gpt2(kind))
    model = huggingface.build(oracle.config.to_dict())
    assert huggingface.import_state(model, oracle.state_dict()) == []
    bare = oracle if kind == "GPT2Model" else oracle.transformer
    assert torch.equal(model.tokens.weight, bare.wte.weight)
    assert torch.equal(model.layers[1].attention.qkv.weight, bare.h[1].attn.c_attn.weight.t())


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_bare_t5_imports(version):
    oracle = random_state(hf_t5(version, "T5Model"))
    state = oracle.state_dict()
    model = huggingface.build(oracle.config.to_dict())
    assert huggingface.import_state(model, state) == []  # transformers 5 calls every head tied
    # Copies of the embedding are neither needed nor in the way; one of them is enough.
    names = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    for keep in names:
        fewer = {name: t for name, t in state.items() if name not in names or name == keep}
        fresh = huggingface.build(oracle.config.to_dict())
        huggingface.import_state(fresh, fewer)
        assert torch.equal(fresh.tokens.weight, oracle.shared.weight)


def test_buffers_and_spellings_of_old_folders_are_known():
    state = random_state(hf_bert()).state_dict()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in state.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(P)[None]
    assert old.keys() - state.keys()
    model, again = (huggingface.build(hf_bert().config.to_dict()) for _ in range(2))
    assert huggingface.import_state(model, old) == huggingface.import_state(again, state) == []
    same(model.state_dict(), again.state_dict())

    for prefix, kind in (("transformer.", "GPT2LMHeadModel"), ("", "GPT2Model")):
        oracle = random_state(hf_gpt2(kind))
        old = dict(oracle.state_dict())
        for layer in range(2):
            old[f"{prefix}h.{layer}.attn.bias"] = torch.ones(1, 1, P, P).tril()
            old[f"{prefix}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        assert huggingface.import_state(huggingface.build(oracle.config.to_dict()), old) == []

    oracle = random_state(hf_t5("1.0"))
    quirk = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    old = {**oracle.state_dict(), quirk: torch.zeros(32, 2)}
    assert huggingface.import_state(huggingface.build(oracle.config.to_dict()), old) == []


# Faults


@FAMILIES
def test_a_missing_a_strange_and_a_misshapen_tensor_are_named(make):
    oracle = random_state(make())
    model = huggingface.build(oracle.config.to_dict())
    state = huggingface.export_state(model)
    for name in state:
        if name in ("lm_head.weight",):  # a whole head: its absence is a note
            continue
        if name in ("cls.seq_relationship.weight", "bert.pooler.dense.weight"):
            continue  # below
        rest = {other: tensor for other, tensor in state.items() if other != name}
        assert fault(model, rest) == (f"the weights do not belong to this config: missing: {name}")
        wrong = {**state, name: torch.cat([state[name], state[name]])}
        message = fault(model, wrong)
        assert "misshapen" in message and name in message and "instead of" in message
    message = fault(model, {**state, "strange.weight": torch.zeros(1)})
    assert message == "the weights do not belong to this config: left over: strange.weight"


def test_a_part_of_a_head_may_not_be_missing():
    model = huggingface.build(hf_bert().config.to_dict())
    state = huggingface.export_state(model)
    for name in ("cls.seq_relationship.weight", "bert.pooler.dense.bias", "cls.predictions.bias"):
        rest = {other: tensor for other, tensor in state.items() if other != name}
        assert f"missing: {name}" in fault(model, rest)


def test_a_transposed_matrix_is_misshapen():
    model = huggingface.build(hf_gpt2().config.to_dict())
    state = huggingface.export_state(model)
    name = "transformer.h.0.mlp.c_fc.weight"
    message = fault(model, {**state, name: state[name].t()})
    assert message.endswith(f"misshapen: {name} (24, 16) instead of (16, 24)")


def test_many_faults_name_five():
    model = huggingface.build(hf_gpt2().config.to_dict())
    message = fault(model, {})
    assert message.count("transformer.") == 5
    assert message.endswith("and 23 more")


def test_an_untied_copy_is_refused():
    oracle = random_state(hf_gpt2())
    state = {**oracle.state_dict(), "lm_head.weight": torch.randn(V, 16)}
    model = huggingface.build(oracle.config.to_dict())
    assert "lm_head.weight differs from transformer.wte.weight" in fault(model, state)


def test_weights_of_another_size_or_family_are_refused():
    small, large = (huggingface.build(hf_gpt2().config.to_dict() | {"n_layer": n}) for n in (1, 2))
    assert "left over: transformer.h.1" in fault(small, huggingface.export_state(large))
    assert "missing: transformer.h.1" in fault(large, huggingface.export_state(small))
    other = huggingface.build(hf_bert().config.to_dict())
    assert "missing" in fault(other, huggingface.export_state(large))


@pytest.mark.parametrize("config", [{}, {"model_type": "gemma"}, {"model_type": None}], ids=str)
def test_an_unknown_family_is_refused_with_the_known_ones(config):
    with pytest.raises(InputError, match="model_type .* use one of bert, gpt2, llama, .*, t5"):
        huggingface.build(config)


@pytest.mark.parametrize(
    "make, change",
    [
        (hf_bert, {"position_embedding_type": "relative_key"}),
        (hf_bert, {"hidden_act": "relu"}),
        (hf_bert, {"is_decoder": True}),
        (hf_bert, {"add_cross_attention": True}),
        (hf_bert, {"type_vocab_size": 1}),
        (hf_bert, {"layer_norm_eps": 1e-5}),
        (hf_bert, {"num_attention_heads": 3}),
        (hf_gpt2, {"activation_function": "relu"}),
        (hf_gpt2, {"add_cross_attention": True}),
        (hf_gpt2, {"scale_attn_by_inverse_layer_idx": True}),
        (hf_gpt2, {"reorder_and_upcast_attn": True}),
        (hf_gpt2, {"scale_attn_weights": False}),
        (hf_gpt2, {"tie_word_embeddings": False}),
        (hf_t5, {"feed_forward_proj": "gated-silu"}),
        (hf_t5, {"relative_attention_num_buckets": 8}),
        (hf_t5, {"relative_attention_max_distance": 64}),
        (hf_t5, {"decoder_start_token_id": 3}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value.__name__,
)
def test_variants_that_are_not_implemented_are_refused_by_name(make, change):
    with pytest.raises(InputError) as error:
        huggingface.build(make().config.to_dict() | change)
    name = next(iter(change))
    assert name.replace("num_attention_", "") in str(error.value)
    assert "\n" not in str(error.value)


@FAMILIES
def test_a_config_without_a_size_is_refused_by_name(make):
    exported = huggingface.export_config(huggingface.build(make().config.to_dict()))
    for name in ("vocab_size", "num_attention_heads", "n_head", "num_heads"):
        if name in exported:
            rest = {key: value for key, value in exported.items() if key != name}
            with pytest.raises(InputError, match=f"'{name}' is missing"):
                huggingface.build(rest)


@FAMILIES
def test_a_size_that_is_no_number_is_refused(make):
    exported = huggingface.export_config(huggingface.build(make().config.to_dict()))
    for value in (None, "many"):
        with pytest.raises(InputError, match="whole number"):
            huggingface.build(exported | {"vocab_size": value})


RATES = [
    (hf_bert, {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}),
    (hf_bert, {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.0}),
    (hf_gpt2, {"resid_pdrop": 0.2, "attn_pdrop": 0.3, "embd_pdrop": 0.4}),
    (hf_gpt2, {"resid_pdrop": 0.0, "attn_pdrop": 0.3, "embd_pdrop": 0.0}),
]


@pytest.mark.parametrize("make, rates", RATES)
def test_each_kind_of_dropout_keeps_its_own_rate(make, rates):
    """From config.json and back; ``dropout`` alone replaces them all."""
    model = huggingface.build(make(**rates).config.to_dict())
    exported = huggingface.export_config(model)
    assert {name: exported[name] for name in rates} == rates
    assert huggingface.build(exported).config == model.config
    for rate in (0.0, 0.15):
        exported = huggingface.export_config(huggingface.build(exported, dropout=rate))
        assert {name: exported[name] for name in rates} == dict.fromkeys(rates, rate)
    for name in rates:
        with pytest.raises(InputError, match="config.json: .*dropout must be less than 1"):
            huggingface.build(make().config.to_dict() | {name: 1.0})


def test_old_configs_that_leave_out_defaults_are_read():
    config = hf_t5("1.0").config.to_dict()
    for name in ("relative_attention_max_distance", "feed_forward_proj", "num_decoder_layers",
                 "tie_word_embeddings", "scale_decoder_outputs"):  # fmt: skip
        config.pop(name, None)
    found = huggingface.build(config).config
    assert (found.version, found.decoder_layers, found.key_width) == ("1.0", 0, 5)


# A model without a table


class Toy(Model):
    """Its file has no table in checkpoint/tables."""

    ROLE = "encoder"
    INPUTS = ("tokens", "mask")
    Config = Sizes

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.tokens = torch.nn.Embedding(config.vocabulary, config.width)
        self.heads = torch.nn.ModuleDict({"tokens": TiedHead(self.tokens)})

    def forward(self, tokens, mask=None):
        return self.tokens(tokens)


def test_a_model_without_a_table_keeps_its_own_names(monkeypatch):
    found = models.known() | {"toy": Toy}
    monkeypatch.setattr(models, "known", lambda: found)
    monkeypatch.setattr(models, "name_of", lambda model: "toy")
    model = Toy(Sizes(vocabulary=V, width=16, layers=1, num_heads=2))
    config, state = huggingface.export_config(model), huggingface.export_state(model)
    assert config["model_type"] == "minicpt-toy" and state.keys() == {"tokens.weight"}
    json.dumps(config)
    again, notes = huggingface.load(config, state)
    assert not notes and isinstance(again, Toy) and again.config == model.config
    same(again.state_dict(), model.state_dict())
    with pytest.raises(InputError, match="missing: tokens.weight"):
        huggingface.load(config, {"other": state["tokens.weight"]})


def test_every_table_belongs_to_a_model():
    names = {path.stem for path in Path(huggingface.tables.__path__[0]).glob("[!_]*.py")}
    assert names == set(models.known())
