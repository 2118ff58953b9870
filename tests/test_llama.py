"""Llama's family: each key of its config alone against transformers, masks, refusals, sizes."""

import json

import making
import pytest
import torch
import transformers
from oracles import P, V, exact, llama
from test_weights import same

from minicpt import checkpoint, objectives
from minicpt.checkpoint import huggingface
from minicpt.common.errors import InputError
from minicpt.models.llama import Llama, LlamaConfig, Places
from minicpt.models.norm import RMSNorm
from minicpt.models.rotary import frequencies, llama3_frequencies, rotate, rotation
from minicpt.proofs import suite
from minicpt.proofs.bounds import gap, largest

FAMILY = ("Llama", "Mistral", "Qwen2", "Qwen3", "SmolLM3")
# Of the three pairs of a head, the first turns 5 times in 32 positions, the second 1.9 times, the
# last 0.7 times: each is in another of Llama 3's three zones.
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 20.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
SLIDING = {"use_sliding_window": True, "sliding_window": 5}
MIXED = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
OF_ALL = [
    {},
    {"num_key_value_heads": 1},
    {"num_key_value_heads": 4},
    {"head_dim": 10},
    {"intermediate_size": 7},
    {"rms_norm_eps": 0.5},
    {"tie_word_embeddings": False},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    {"rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 2.5}},
    {"rope_parameters": LLAMA3},
]
QWEN = [
    SLIDING | {"max_window_layers": 0},
    SLIDING | {"max_window_layers": 1},
    SLIDING | MIXED,
    {"use_sliding_window": False, "sliding_window": 5, "max_window_layers": 0},
]
OF_ONE = {
    "Llama": [{"attention_bias": True}],
    "Mistral": [{"sliding_window": None}, {"sliding_window": 1}, {"sliding_window": 40}],
    "Qwen2": QWEN,
    "Qwen3": [*QWEN, {"attention_bias": True}],
    "SmolLM3": [
        {"attention_bias": True},
        {"no_rope_layer_interval": 2},
        {"no_rope_layers": [0, 1, 0]},
        {"no_rope_layers": [1, 1, 1]},
        SLIDING | {"no_rope_layers": [0, 1, 0]},
        SLIDING | MIXED,
    ],
}
VARIANTS = [
    pytest.param(family, change, id=f"{family}-{'-'.join(change)}-{number}")
    for family in FAMILY
    for number, change in enumerate(
        OF_ONE[family] + (OF_ALL if family == "Llama" else OF_ALL[:1])
    )
]
# Rows, positions, padding: batch 1, odd, beyond the window, beyond P and Llama 3's 32 positions.
SHAPES = [(1, 7, 0), (3, 13, 5), (2, 1, 0), (1, 2 * P + 1, 0)]
MOST = {torch.float64: 1e-10, torch.float32: 1e-5}  # of the largest logit


def config_of(oracle):
    """config.json as transformers writes it."""
    return json.loads(oracle.config.to_json_string())


def in_old_spelling(config):
    """Rotary positions as transformers 4 wrote them."""
    rope = dict(config["rope_parameters"])
    theta = rope.pop("rope_theta")
    scaling = rope if rope["rope_type"] != "default" else None
    rest = {key: value for key, value in config.items() if key != "rope_parameters"}
    return rest | {"rope_theta": theta, "rope_scaling": scaling}


def ours_of(oracle, config=None):
    model = huggingface.build(config or config_of(oracle)).eval()
    assert huggingface.import_state(model, oracle.state_dict()) == []
    return model.to(next(oracle.parameters()).dtype)


def logits_of(model, tokens, **inputs):
    return model.heads["tokens"](model(tokens, **inputs))


def tokens_of(rows, length, seed=0):
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(seed))


def model_of(**changes):
    """A tiny one of ours in float64, its weights nowhere 0 or 1 exactly."""
    sizes = {"vocabulary": V, "width": 16, "layers": 2, "num_heads": 2} | changes
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**sizes)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


# --- each key alone


@pytest.mark.parametrize("family, change", VARIANTS)
@torch.no_grad()
def test_logits_and_loss_are_those_of_transformers(family, change, monkeypatch):
    oracle = llama(f"{family}ForCausalLM", **change)
    for dtype in (torch.float32, torch.float64):
        if dtype == torch.float64:
            exact(monkeypatch)
        oracle.to(dtype)
        model = ours_of(oracle)
        for rows, length, short in SHAPES:
            tokens, mask = tokens_of(rows, length), torch.ones(rows, length, dtype=torch.bool)
            mask[-1, length - short :] = False
            expected = oracle(tokens, attention_mask=mask.long()).logits
            found = logits_of(model, tokens, mask=mask)
            assert found.dtype == expected.dtype == dtype
            assert gap(found[mask], expected[mask], largest(expected)) <= MOST[dtype]
    loss = torch.nn.functional.cross_entropy(found[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert gap(loss, oracle(tokens, labels=tokens).loss, float(loss)) <= 1e-10


@pytest.mark.parametrize("family, change", VARIANTS)
@torch.no_grad()
def test_the_config_is_read_in_both_spellings_and_written_in_both(family, change):
    oracle = llama(f"{family}ForCausalLM", **change)
    config, tokens = config_of(oracle), tokens_of(2, P + 5)
    model = ours_of(oracle)
    assert ours_of(oracle, in_old_spelling(config)).config == model.config
    exported, state = huggingface.export_config(model), huggingface.export_state(model)
    assert exported["model_type"] == config["model_type"]
    assert exported["architectures"] == [f"{family}ForCausalLM"]
    assert huggingface.build(exported).config == model.config
    expected = oracle(tokens).logits
    for left_out in ({"rope_theta", "rope_scaling"}, {"rope_parameters"}, {"layer_types"}):
        if left_out == {"layer_types"} and change.keys() & MIXED.keys():
            continue  # max_window_layers cannot say it
        kept = {key: value for key, value in exported.items() if key not in left_out}
        again = type(oracle)(type(oracle.config).from_dict(kept)).eval()
        lacking = again.load_state_dict(state, strict=False)
        assert not lacking.unexpected_keys
        assert set(lacking.missing_keys) <= {"lm_head.weight"}
        again.tie_weights()
        assert torch.equal(again(tokens).logits, expected), left_out


def test_what_a_config_leaves_out_is_what_transformers_takes():
    """The keys that older folders lack; the sizes are those of the class's defaults."""
    may = {
        "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings", "attention_bias",
        "max_position_embeddings", "attention_dropout", "rope_parameters", "sliding_window",
        "use_sliding_window", "max_window_layers", "layer_types", "no_rope_layers",
        "no_rope_layer_interval",
    }  # fmt: skip
    for family in FAMILY:
        config = getattr(transformers, f"{family}Config")
        whole = json.loads(config(num_hidden_layers=30).to_json_string(use_diff=False))
        short = {key: value for key, value in whole.items() if key not in may}
        found = [huggingface.read_config(each)[1] for each in (whole, short)]
        assert found[0] == found[1]


# --- folders


@pytest.mark.parametrize("tied", [True, False])
def test_a_sharded_folder_keeps_every_bit(tied, tokenizer, tmp_path):
    """Theirs in shards -> ours -> theirs in shards -> ours."""
    oracle = llama("Qwen2ForCausalLM", tie_word_embeddings=tied)
    loaded = []
    for name in ("theirs", "again"):
        oracle.save_pretrained(tmp_path / name, max_shard_size="8KB")
        assert len(list((tmp_path / name).glob("*.safetensors"))) > 2
        tokenizer.save(tmp_path / name)
        loaded.append(checkpoint.load(tmp_path / name).model)
        checkpoint.export(tmp_path / f"ours of {name}", loaded[-1], tokenizer)
        before, oracle = oracle, type(oracle).from_pretrained(tmp_path / f"ours of {name}")
        same(oracle, before)
    same(*loaded)
    assert (loaded[1].heads["tokens"].weight is loaded[1].tokens.weight) == tied


def test_a_bare_model_gets_a_head_and_old_buffers_are_passed_over():
    oracle = llama("LlamaModel", tie_word_embeddings=False)
    model = huggingface.build(config_of(oracle))
    state = oracle.state_dict() | {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}
    notes = huggingface.import_state(model, state)
    assert notes == ["head 'tokens' is not in the folder: initialised at random"]
    tokens = tokens_of(1, 5)
    making.close(model.eval()(tokens), oracle(tokens).last_hidden_state, model, tokens)


YARN = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}


@pytest.mark.parametrize(
    "family, change",
    [
        ("Llama", {"hidden_act": "gelu"}),
        ("Llama", {"mlp_bias": True}),
        ("Llama", {"pretraining_tp": 2}),
        ("Llama", {"sliding_window": 8}),
        ("Llama", {"layer_types": ["sliding_attention"] * 3}),
        ("Llama", {"partial_rotary_factor": 0.5}),
        ("Llama", {"rope_interleaved": True}),
        ("Llama", {"attention_chunk_size": 16}),
        ("Llama", {"quantization_config": {"bits": 4}}),
        ("Llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        ("Llama", {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}),
        ("Llama", {"rope_parameters": YARN}),
        ("Llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
        ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 2, "mscale": 0.7}}),
        ("Llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}),
        ("Llama", {"rope_parameters": "linear"}),
        ("Mistral", {"attention_bias": True}),
        ("Mistral", {"layer_types": ["full_attention"] * 3}),
        ("Mistral", {"sliding_window": 0}),
        ("Qwen2", {"attention_bias": False}),
        ("Qwen2", {"use_mrope": True}),
        ("Qwen2", {"layer_types": ["full_attention", "chunked_attention", "full_attention"]}),
        ("Qwen2", {"layer_types": ["full_attention"] * 2}),
        ("Qwen3", {"layer_types": ["sliding_attention"] * 3}),  # and no window is used
        ("SmolLM3", {"no_rope_layers": [1, 1, 2]}),
        ("SmolLM3", {"mlp_bias": True}),
        ("Llama", {"num_key_value_heads": 3}),
        ("Llama", {"head_dim": 5}),
        ("Llama", {"rms_norm_eps": 0}),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else each,
)
def test_variants_that_are_not_computed_are_refused_by_name(family, change):
    config = config_of(llama(f"{family}ForCausalLM"))
    with pytest.raises(InputError, match="config.json: ") as error:
        huggingface.build(config | change)
    (name,) = change
    words = {
        "num_key_value_heads": "num-key-value-heads", "head_dim": "head",
        "rms_norm_eps": "epsilon", "sliding_window": "sliding",
    }  # fmt: skip
    assert words.get(name, name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["llama4", "qwen2_moe", "qwen3_next", "mistral3", "gemma"])
def test_the_rest_of_the_family_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"model_type '{name}' is not implemented: use one of"):
        huggingface.build(config_of(llama()) | {"model_type": name})


# --- answers worked by hand


SIZES = {  # parameters as their publishers count them, a tied matrix once
    134_515_008: ("llama", 49152, 576, 30, 9, 3, 1536, {}),  # SmolLM2-135M
    1_100_048_384: ("llama", 32000, 2048, 22, 32, 4, 5632, {"tied": False}),  # TinyLlama
    1_235_814_400: ("llama", 128256, 2048, 16, 32, 8, 8192, {}),  # Llama 3.2 1B
    7_241_732_096: ("mistral", 32000, 4096, 32, 32, 8, 14336, {"tied": False}),  # Mistral 7B
    494_032_768: ("qwen2", 151936, 896, 24, 14, 2, 4864, {}),  # Qwen2.5-0.5B
    596_049_920: ("qwen3", 151936, 1024, 28, 16, 8, 3072, {"head_width": 128}),  # Qwen3-0.6B
    3_075_098_624: ("smollm3", 128256, 2048, 36, 16, 4, 11008, {}),  # SmolLM3-3B
}


@pytest.mark.parametrize("expected", SIZES)
def test_sizes_of_published_models(expected):
    family, vocabulary, width, layers, heads, shared, inner, more = SIZES[expected]
    config = LlamaConfig(
        vocabulary, width=width, layers=layers, num_heads=heads, num_key_value_heads=shared,
        feed_forward=inner, family=family, **more,
    )  # fmt: skip
    draft = huggingface.without_memory(Llama, config)
    assert sum(each.numel() for each in draft.parameters()) == expected


def masks_of(model, positions, mask):
    x = torch.zeros(len(mask), mask.size(-1), 1)
    return Places(model.config, x, mask, positions, positions).masks


def test_a_window_is_a_mask_that_can_be_printed():
    model = model_of(sliding_window=3, fused=False)  # the fused form adds it to the scores
    place = torch.arange(5)[None]
    causal, both = torch.ones(1, 1, 5, 5).tril().bool(), torch.ones(1, 1, 5, 5).bool()
    found = masks_of(model, place, causal)["sliding"][0, 0].int().tolist()
    assert found == [
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1],
    ]  # fmt: skip
    # A pattern that looks to both sides keeps what is near on both.
    found = masks_of(model, place, both)["sliding"][0, 0].int().tolist()
    assert found == [
        [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 1, 1, 1],
    ]  # fmt: skip
    assert masks_of(model, place, both)["full"] is both
    assert "sliding" not in masks_of(model_of(), place, both)
    added = masks_of(model_of(sliding_window=3), place, causal)["sliding"]
    assert (added == 0).int()[0, 0].tolist()[3] == [0, 1, 1, 1, 0] and added.min() == -torch.inf


@torch.no_grad()
def test_a_window_in_packed_documents_is_counted_in_each():
    model = model_of(sliding_window=3, rotates=("rotary", "none"))
    tokens = tokens_of(2, 9)
    document = torch.arange(18)[None] // 9
    pattern = (document[:, :, None] == document[:, None, :]) & torch.ones(18, 18).tril().bool()
    for positions in (torch.arange(18)[None] % 9, None):  # distances alone count
        found = model(tokens.reshape(1, 18), mask=pattern, positions=positions).view(2, 9, 16)
        making.close(found, model(tokens), model, tokens)


@torch.no_grad()
def test_only_distances_count():
    model = model_of(rope_theta=100.0)
    tokens = tokens_of(1, 9)
    far = model(tokens, positions=torch.arange(9)[None] + 300)
    # The angles are 300 times as large: so are their rounding errors.
    making.close(far, model(tokens), 300 * 1000)
    apart = model(tokens, positions=2 * torch.arange(9)[None])
    assert (apart - model(tokens)).abs().max() > 0.01


STEPPED = [
    {"sliding_window": 4},
    {"sliding_window": 4, "attends": ("full", "sliding"), "family": "qwen2"},
    {"rotates": ("rotary", "none"), "family": "smollm3"},
    {"num_heads": 4, "num_key_value_heads": 2, "head_width": 6, "family": "qwen3"},
    {"rope_type": "llama3", "rope_theta": 20.0, "rope_length": 9},
]


@pytest.mark.parametrize("change", STEPPED, ids=lambda change: "-".join(change))
@torch.no_grad()
def test_steps_with_a_cache_are_the_forward_pass(change):
    """Beyond the window too, in pieces, and in a row that begins a new text on its way."""
    model, tokens = model_of(**change), tokens_of(2, 15)
    expected, anew = model(tokens), model(tokens[1:, 6:])
    for pieces in ([1] * 15, [5, 1, 7, 2], [15]):
        cache = model.cache(2, 15)
        found = [model.step(part, cache) for part in tokens.split(pieces, dim=1)]
        making.close(torch.cat(found, dim=1), expected, model, tokens)
    cache = model.cache(2, 15)
    model.step(tokens[:, :6], cache)
    cache.place[1] = 0
    found = torch.cat([model.step(tokens[:, at, None], cache) for at in range(6, 15)], dim=1)
    making.close(found[:1], expected[:1, 6:], model, tokens)
    making.close(found[1:], anew, model, tokens)


@torch.no_grad()
def test_one_more_layer_is_of_the_kind_of_the_last():
    model = model_of(sliding_window=3, attends=("full", "sliding"), rotates=("rotary", "none"))
    block, x = model.block().double(), torch.randn(1, 9, 16, dtype=torch.float64)
    causal = torch.ones(9, 9).tril().bool()
    changed = x.clone()
    changed[:, 2] += 1
    moved = (block(x, causal) - block(changed, causal)).abs().amax(-1)[0] > 1e-9
    assert moved.tolist() == [2 <= place < 5 for place in range(9)]
    places = Places(model.config, x, causal, torch.arange(9)[None], torch.arange(9)[None])
    block.load_state_dict(model.layers[1].state_dict())
    assert torch.equal(block(x, causal), model.layers[1](x, places))


def test_a_pair_turns_by_the_angle_of_its_position():
    """Written as complex numbers: number k + i number k+K/2, times e^(i p frequency)."""
    x, turning = torch.randn(2, 3, 5, 8, dtype=torch.float64), frequencies(8, 50.0, torch.float64)
    assert turning.tolist() == pytest.approx([1, 50**-0.25, 50**-0.5, 50**-0.75], rel=1e-15)
    positions = torch.tensor([[0, 1, 2, 9, 700], [3, 3, 0, 1, 2]])
    found = rotate(x, rotation(positions, turning))
    pairs = torch.complex(x[..., :4], x[..., 4:])
    turn = torch.exp(1j * positions[:, None, :, None] * turning)
    expected = torch.cat([(pairs * turn).real, (pairs * turn).imag], dim=-1)
    making.close(found, expected, 4 * 700)


def test_llama3_leaves_fast_pairs_and_slows_slow_ones():
    turning = frequencies(64, 500_000.0, torch.float64)
    found = llama3_frequencies(turning, 8.0, 1.0, 4.0, 8192)
    turns = turning * 8192 / (2 * torch.pi)
    assert torch.equal(found[turns >= 4], turning[turns >= 4])
    making.close(found[turns <= 1], turning[turns <= 1] / 8, 10)
    between = (turns > 1) & (turns < 4)
    assert between.any() and (found[between] < turning[between]).all()
    assert (found[between] > turning[between] / 8).all()


def test_norm_and_angles_are_computed_in_float32_at_least():
    half = torch.randn(4, 512).bfloat16()
    norm = RMSNorm(512).bfloat16()
    exactly = RMSNorm(512).double()(half.double())
    assert torch.equal(norm(half), exactly.bfloat16())
    x, place = half.new_zeros(1, 3, 16), torch.tensor([[0, 256, 257]])
    cos, _ = Places(model_of().config, x, torch.ones(3, 3).bool(), place, place).turns
    assert cos.dtype == torch.float32 and cos[0, 0, 1, 0] != cos[0, 0, 2, 0]
    model = model_of().bfloat16()
    assert model(tokens_of(1, 5)).dtype == torch.bfloat16


def test_heads_of_one_group_share_keys_and_values():
    """Copied into all heads of its group, a shared key and value give the same."""
    model = model_of(num_heads=4, num_key_value_heads=2)
    wide = Llama(LlamaConfig(V, width=16, layers=2, num_heads=4)).double()
    state = model.state_dict()
    for name, value in state.items():
        if "key_value" in name:
            parts = value.unflatten(0, (2, 2, 4)).repeat_interleave(2, dim=1)  # (2, H, K, D)
            state[name] = parts.flatten(0, 2)
    wide.load_state_dict(state)
    tokens = tokens_of(2, 9)
    making.close(wide.eval()(tokens), model(tokens), model, tokens)


@pytest.mark.parametrize(
    "fault, words",
    [
        ({"num_key_value_heads": 3}, "--num-key-value-heads 3 does not divide --num-heads 4"),
        ({"head_width": 3}, "a head has the width 3"),
        ({"rope_low": 4.0}, "rope_low must be less than rope_high"),
        ({"attends": ("full",)}, "attends must say full or sliding for each of the layers"),
        ({"rotates": ("rotary", "all")}, "rotates must say rotary or none"),
        ({"attends": ("full", "sliding")}, "sliding layers need a window"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_sizes_that_do_not_fit_are_refused(fault, words):
    with pytest.raises(InputError, match=words):
        LlamaConfig(V, width=16, layers=2, num_heads=4, **fault)


# --- objectives


LOOKS = ("equivalence", "padding")


@pytest.mark.parametrize("name", suite.trainable())
def test_every_objective_of_decoders_is_proved_with_llama(name):
    """The whole pass against one pass a target, with padding and without."""
    if "decoder" not in objectives.known()[name].roles:
        pytest.skip("it trains no decoder")
    for subject in suite.subjects([name], "llama"):
        assert isinstance(subject.model, Llama)
        for proof in LOOKS:
            found = suite.known()[proof](subject)
            found = found if isinstance(found, list) else [found]
            assert all(each.passed for each in found)
