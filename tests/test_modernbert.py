"""ModernBERT: windows by hand, every key of its config against transformers, and its folders."""

import json

import making
import pytest
import torch
import transformers
from oracles import TEXT, P, bert_tokenizer, exact, modernbert

from minicpt import checkpoint
from minicpt.checkpoint import huggingface
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.loss import per_token_losses
from minicpt.models.bert import BERT
from minicpt.models.modernbert import ModernBERT, ModernBERTConfig, Places
from minicpt.models.rotary import count
from minicpt.possible import pooled
from minicpt.runs.assembly import make_objective

V = 320
# Rows, positions, and how many of the last row's are padding: batch 1, odd, beyond the window.
SHAPES = [(1, 7, 0), (3, 13, 5), (2, 31, 9), (2, 1, 0)]


def loaded(oracle, dtype=torch.float64):
    """Our model with the weights of an oracle, and what the folder lacks."""
    state = oracle.state_dict()
    model, notes = huggingface.load(oracle.config.to_dict(), state)
    return model.to(dtype).eval(), notes


def config_of(**changes):
    sizes = {"vocabulary": V, "width": 16, "layers": 4, "num_heads": 2}
    return ModernBERTConfig(**sizes | changes)


# Who sees whom


def test_a_local_layer_sees_half_the_window_on_each_side():
    x = torch.zeros(1, 6, 16)
    mask = torch.tensor([[True] * 5 + [False]])[:, None, None, :]
    masks = Places(config_of(local_attention=4), x, mask, count(x)).masks
    assert masks["sliding"][0, 0].int().tolist() == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 0],
    ]
    assert masks["full"].expand(1, 1, 6, 6)[0, 0].int().tolist() == [[1, 1, 1, 1, 1, 0]] * 6


def test_the_published_window_and_layers():
    """Of 22 layers, each third is global; a local one sees |i - j| <= 64."""
    config = ModernBERTConfig(vocabulary=V, width=768, layers=22, num_heads=12)
    kinds = [config.layer_attends(number) for number in range(22)]
    assert [place for place, kind in enumerate(kinds) if kind == "full"] == [*range(0, 22, 3)]
    x = torch.zeros(1, 200, 768)
    near = Places(config, x, torch.ones(1, 1, 1, 200).bool(), count(x)).masks["sliding"][0, 0]
    assert near[100].nonzero()[:, 0].tolist() == [*range(36, 165)]


@pytest.mark.parametrize("every, reach", [(3, 9), (1, 9), (9, 2)])
def test_what_one_token_reaches(every, reach):
    """A local layer carries it two positions on; one global layer carries it everywhere."""
    torch.manual_seed(0)
    config = config_of(local_attention=4, global_every=every, layers=1, dropout=0.0)
    if every == 9:
        config = config_of(local_attention=4, attends=("sliding",), layers=1)
    model = ModernBERT(config).double().eval()
    tokens = torch.randint(V, (1, 9))
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % V
    moved = (model(tokens) - model(changed))[0].abs().amax(-1) > 1e-9
    assert moved.tolist() == [abs(place - 4) <= reach for place in range(9)]


def test_packed_documents_are_as_if_alone_in_local_layers_too():
    torch.manual_seed(0)
    model = ModernBERT(config_of(local_attention=4)).double().eval()
    tokens = torch.randint(V, (2, 9))
    document = torch.arange(18)[None] // 9
    pattern = document[:, :, None] == document[:, None, :]
    found = model(tokens.view(1, 18), mask=pattern, positions=torch.arange(18)[None] % 9)
    making.close(found.view(2, 9, 16), model(tokens), model, tokens)


# Every key of the config, changed alone

KEYS = [
    {},
    {"local_attention": 2},
    {"local_attention": 7},
    {"local_attention": 128},
    {"global_attn_every_n_layers": 1},
    {"global_attn_every_n_layers": 2},
    {"layer_types": ["sliding_attention", "sliding_attention", "full_attention",
                     "sliding_attention"]},
    {"layer_types": ["sliding_attention"] * 4},
    {"global_rope_theta": 500.0},
    {"local_rope_theta": 500.0},
    {"rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 700.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
    }},
    {"attention_bias": True},
    {"mlp_bias": True},
    {"norm_bias": True},
    {"decoder_bias": False},
    {"classifier_bias": True},
    {"norm_eps": 1e-3},
    {"intermediate_size": 33},
    {"num_attention_heads": 2},
    {"num_hidden_layers": 1},
    {"tie_word_embeddings": False},
    {"max_position_embeddings": 7},
    {"pad_token_id": 3},
]  # fmt: skip


def name_of(change):
    return ", ".join(f"{key}={str(value)[:24]}" for key, value in change.items()) or "default"


@pytest.mark.parametrize("change", KEYS, ids=name_of)
@torch.no_grad()
def test_each_key_changed_alone_agrees_with_transformers(change, monkeypatch):
    """Logits in float32 to 1e-5 of the largest, and in float64 to 1e-10."""
    oracle = modernbert(**change)
    for dtype, most in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        oracle.to(dtype)
        if dtype == torch.float64:
            exact(monkeypatch)
        model, notes = loaded(oracle, dtype)
        assert notes == ["head 'pair' is not in the folder: initialised at random"]
        for rows, length, short in SHAPES:
            tokens = torch.randint(V, (rows, length))
            mask = torch.ones(rows, length, dtype=torch.bool)
            mask[-1, length - short :] = False
            expected = oracle(input_ids=tokens, attention_mask=mask.long()).logits[mask]
            found = model.heads["tokens"](model(tokens, mask=mask))[mask]
            assert found.dtype == expected.dtype == dtype
            assert (found - expected).abs().max() <= most * expected.abs().max()


@pytest.mark.parametrize("change", KEYS, ids=name_of)
def test_each_key_survives_the_way_there_and_back(change):
    """The config that we write means the same to transformers, and to us."""
    theirs = modernbert(**change).config
    kind, config = huggingface.read_config(theirs.to_dict())
    written = json.loads(json.dumps(huggingface.export_config(kind(config))))
    again = transformers.ModernBertConfig(**written)
    ignored = {"architectures", "pad_token_id", "global_rope_theta", "local_rope_theta"}
    ignored.add("global_attn_every_n_layers")  # layer_types says it
    for key in written.keys() - ignored:
        assert getattr(again, key) == getattr(theirs, key), key
    assert huggingface.read_config(written)[1] == config
    assert huggingface.read_config(again.to_dict())[1] == config


def test_the_keys_from_before_transformers_5_mean_the_same():
    """As the published folder has them. A null of the local theta was the global one then."""
    new = modernbert(global_rope_theta=900.0, local_rope_theta=80.0).config.to_dict()
    old = {k: v for k, v in new.items() if k not in ("layer_types", "rope_parameters")}
    published = {"position_embedding_type": "absolute", "layer_norm_eps": 1e-5}
    old |= {"global_attn_every_n_layers": 3, "reference_compile": None} | published
    thetas = {"global_rope_theta": 900.0, "local_rope_theta": 80.0}
    assert huggingface.read_config(old | thetas) == huggingface.read_config(new)
    found = huggingface.read_config(old | thetas | {"local_rope_theta": None})[1]
    assert (found.global_theta, found.local_theta) == (900.0, 900.0)


REFUSED = [
    {"hidden_activation": "silu"},
    {"classifier_activation": "tanh"},
    {"layer_types": ["full_attention", "chunked_attention", "full_attention", "full_attention"]},
    {"layer_types": ["full_attention"]},
    {"layer_types": "full_attention"},
    {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}},
    {"rope_parameters": {"full_attention": {"partial_rotary_factor": 0.5}}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}},
    {"rope_scaling": {"type": "linear", "factor": 2.0}},
    {"classifier_pooling": "max"},
    {"num_attention_heads": 8},  # of width 3
    {"global_attn_every_n_layers": 0, "layer_types": None},
]


@pytest.mark.parametrize("change", REFUSED, ids=name_of)
def test_what_is_not_computed_is_refused_by_name(change):
    with pytest.raises(InputError) as error:
        huggingface.read_config(modernbert().config.to_dict() | change)
    names = {"classifier_pooling": "pooling", "num_attention_heads": "width"}
    key = next(iter(change))
    key = {"global_attn_every_n_layers": "global-every"}.get(key, names.get(key, key))
    assert "config.json" in str(error.value) and key in str(error.value)
    assert "\n" not in str(error.value)


def test_each_kind_of_dropout_keeps_its_own_rate():
    kinds = ("mlp", "attention", "embedding", "classifier")
    rates = {f"{kind}_dropout": number / 10 for number, kind in enumerate(kinds, start=1)}
    config = modernbert(**rates).config.to_dict()
    model = huggingface.build(config)
    found = [model.layers[0].feed_forward.dropout, model.layers[0].attention.dropout, model.dropout]
    found.append(model.heads["pair"].dropout)
    assert [each.probability for each in found] == [0.1, 0.2, 0.3, 0.4]
    exported = huggingface.export_config(model)
    assert {name: exported[name] for name in rates} == rates
    exported = huggingface.export_config(huggingface.build(config, dropout=0.25))
    assert {name: exported[name] for name in rates} == dict.fromkeys(rates, 0.25)


# The classifier of a pair


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@torch.no_grad()
def test_the_classifier_agrees_with_transformers(pooling, monkeypatch):
    exact(monkeypatch)
    oracle = modernbert("ModernBertForSequenceClassification", classifier_pooling=pooling).double()
    model, _ = loaded(oracle)
    for rows, length, short in SHAPES:
        tokens = torch.randint(V, (rows, length))
        mask = torch.ones(rows, length, dtype=torch.bool)
        mask[-1, length - short :] = False
        expected = oracle(input_ids=tokens, attention_mask=mask.long()).logits
        hidden = pooled(model.heads["pair"], model(tokens, mask=mask), {"mask": mask})
        making.close(model.heads["pair"](hidden[:, 0]), expected, model, tokens)


def test_pooling_by_hand():
    """The mean of the real positions, at every position; of a pattern as of a mask."""
    head = ModernBERT(config_of(pooling="mean")).heads["pair"]
    hidden = torch.tensor([[[1.0], [3.0], [8.0]], [[2.0], [4.0], [6.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    expected = [[2.0] * 3, [4.0] * 3]
    assert pooled(head, hidden, {"mask": mask})[:, :, 0].tolist() == expected
    pattern = mask[:, :, None] & mask[:, None, :]
    assert pooled(head, hidden, {"mask": pattern})[:, :, 0].tolist() == expected
    assert pooled(head, hidden, {})[:, :, 0].tolist() == [[4.0] * 3] * 2
    assert pooled(ModernBERT(config_of()).heads["pair"], hidden, {"mask": mask}) is hidden


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_loss_of_pairs_is_that_of_one_pair_at_a_time(pooling, tokenizer, corpus):
    """With pooling, the answer reads the whole pair, and never the padding beside it."""
    model = making.model_of(
        objective := making.objective_of("next-sentence", tokenizer, ModernBERT, window=40),
        model="modernbert", pooling=pooling, local_attention=8,
    ).double().eval()  # fmt: skip
    batch = objective.batch(objective.plan(corpus, 0, 0)[:5], making.draws(5))
    assert not batch.inputs["mask"].all()
    losses = making.losses_of(model, objective)
    alone = per_token_losses(losses, batch, objective.visibility(batch))["pair"]
    making.close(losses(batch)["pair"].losses, alone, model, batch)


# No segments


def test_a_pair_is_read_with_segments_where_the_model_takes_them(tokenizer, corpus):
    made = [making.objective_of("next-sentence", tokenizer, kind) for kind in (BERT, ModernBERT)]
    passages = made[0].plan(corpus, 0, 0)[:4]
    with_segments, without = (each.batch(passages, making.draws(4)).inputs for each in made)
    assert with_segments.keys() - without.keys() == {"segments"}
    assert torch.equal(with_segments["tokens"], without["tokens"])
    kind = type(made[0])
    again = make_objective(kind, tokenizer, kind.Settings(), BERT)
    assert again.extra == kind.extra == ("segments",)  # nobody changed the class


def test_a_folder_feeds_no_segments(tmp_path):
    """What transformers' tokenizer gives is what the objective reads, and what the model takes."""
    modernbert().save_pretrained(tmp_path / "theirs")
    bert_tokenizer().save_pretrained(tmp_path / "theirs")
    base = checkpoint.load(tmp_path / "theirs")
    checkpoint.export(tmp_path / "ours", base.model, base.tokenizer)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert words.model_input_names == ["input_ids", "attention_mask"]
    assert words.model_max_length == P
    a, b = base.tokenizer.encode("a cat"), base.tokenizer.encode("a dog")
    found = words("a cat", "a dog", return_tensors="pt")
    assert found["input_ids"][0].tolist() == [3, *a, 4, *b, 4]
    oracle = transformers.ModernBertForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    expected = oracle(**found).logits
    model = base.model.eval()
    found = model.heads["tokens"](model(found["input_ids"]))
    making.close(found, expected, model, {"tokens": found[:, :, 0]})
    assert oracle.config.pad_token_id == 0 and oracle.config.cls_token_id is None


# Folders


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_sharded_folders_are_bitwise_the_same(tied, form, tokenizer, tmp_path):
    oracle = modernbert(tie_word_embeddings=tied)
    folder = tmp_path / "theirs"
    oracle.save_pretrained(folder, max_shard_size="20KB")
    if form == "torch":
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        shards = {name: {} for name in index["weight_map"].values()}
        for key, name in index["weight_map"].items():
            shards[name][key] = oracle.state_dict()[key]
        for name, state in shards.items():
            torch.save(state, folder / name.replace("safetensors", "bin"))
            (folder / name).unlink()
        (folder / "model.safetensors.index.json").unlink()
        index["weight_map"] = {
            key: name.replace("safetensors", "bin") for key, name in index["weight_map"].items()
        }
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert len(list(folder.glob("*-of-*"))) > 2
    tokenizer.save(folder)
    ours = checkpoint.load(folder)
    assert (ours.model.heads["tokens"].weight is ours.model.tokens.weight) == tied
    checkpoint.export(tmp_path / "ours", ours.model, tokenizer)
    again = transformers.ModernBertForMaskedLM.from_pretrained(tmp_path / "ours")
    for key, tensor in oracle.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key


@pytest.mark.parametrize(
    "kind, notes",
    [
        ("ModernBertModel", [
            "the dense layer and bias of head 'tokens' is not in the folder: initialised at random;"
            " its matrix is kept",
            "head 'pair' is not in the folder: initialised at random",
        ]),
        ("ModernBertForMaskedLM", ["head 'pair' is not in the folder: initialised at random"]),
        ("ModernBertForSequenceClassification", [
            "the bias of head 'tokens' is not in the folder: initialised at random; its dense layer"
            " and matrix is kept",
        ]),
    ],
)  # fmt: skip
def test_heads_that_are_missing_are_named(kind, notes):
    assert loaded(modernbert(kind))[1] == notes


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@torch.no_grad()
def test_a_folder_is_continued_with_its_own_pooling(pooling, tmp_path):
    """By the command line; then transformers' classifier judges a pair as ours does."""
    modernbert(classifier_pooling=pooling).save_pretrained(tmp_path / "theirs")
    bert_tokenizer().save_pretrained(tmp_path / "theirs")
    (tmp_path / "days.txt").write_text(TEXT)
    words = ["train", "next-sentence", "--masked", "--init", str(tmp_path / "theirs"), "--window"]
    words += [str(P), "--corpus", str(tmp_path / "days.txt"), "--steps", "2", "--batch-size", "4"]
    words += ["--evaluate-passages", "4", "--evaluate-every", "2"]
    with torch.enable_grad():
        assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "ours")]) == 0
    model = checkpoint.load(tmp_path / "ours").model.eval()
    before = checkpoint.load(tmp_path / "theirs").model
    assert model.config.pooling == pooling
    assert not torch.equal(model.tokens.weight, before.tokens.weight)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    given = tokenizer(["it rained", "a"], ["then a cat saw it", "x"], padding=True)
    tokens, mask = torch.tensor(given.input_ids), torch.tensor(given.attention_mask).bool()
    kind = transformers.ModernBertForSequenceClassification
    oracle, info = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert set(info.pop("unexpected_keys")) == {"decoder.bias"} and not any(info.values())
    expected = oracle.eval()(input_ids=tokens, attention_mask=mask.long()).logits
    hidden = pooled(model.heads["pair"], model(tokens, mask=mask), {"mask": mask})
    making.close(model.heads["pair"](hidden[:, 0]), expected, model, tokens)


# What it offers beside hidden states


def test_a_head_of_odd_width_is_refused():
    with pytest.raises(InputError, match="width 3.*--num-heads"):
        config_of(width=6)
    model = ModernBERT(config_of())
    with pytest.raises(InputError, match="even width"):
        model.smaller(5)
    assert model.smaller(6).inner.config.num_heads == 1


def test_both_heads_share_the_dense_layer_that_a_folder_has_room_for():
    model = ModernBERT(config_of())
    assert model.heads["pair"].dense is model.heads["tokens"].transform
    names = [name for name, _ in model.named_parameters() if "dense" in name]
    assert names == ["heads.tokens.transform.dense.weight"]


def test_initialised_as_published():
    torch.manual_seed(0)
    sizes = {"width": 128, "layers": 8, "feed_forward": 192, "num_heads": 4, "tied": False}
    model = ModernBERT(config_of(**sizes))
    usual = 0.02 * (768 / 128) ** 0.5  # published for width 768
    cut = 0.8796  # the deviation of a normal distribution that is cut off at two of them
    for weight, deviation in (
        (model.tokens.weight, usual),
        (model.layers[1].attention.qkv.weight, usual),
        (model.layers[1].attention.output.weight, usual / 4),
        (model.layers[1].feed_forward.gate_expand.weight, usual),
        (model.layers[1].feed_forward.contract.weight, usual / 4),
        (model.heads["tokens"].transform.dense.weight, usual / 4),
        (model.heads["tokens"].weight, usual / 4),
        (model.heads["pair"].weight, 128**-0.5),
    ):
        assert abs(weight.std().item() / (cut * deviation) - 1) < 0.1
        assert weight.abs().max() <= 2 * deviation
