"""From a Hugging Face folder through the command line and back: the recipes, export, refusals."""

import json
import sys

import pytest
import safetensors.torch
import torch
import transformers
from oracles import (
    SAMPLES,
    TEXT,
    bert,
    bert_tokenizer,
    gpt2,
    gpt2_tokenizer,
    t5_10,
    t5_11,
    t5_tokenizer,
)

from minicpt import checkpoint
from minicpt.cli.main import main

SMALL = ["--steps", "4", "--batch-size", "4", "--evaluate-passages", "4", "--evaluate-every", "4"]
# What the article trains, each from a folder as transformers writes it.
RECIPES = {
    "masked-lm": lambda: bert("BertForMaskedLM"),
    "next-sentence": lambda: bert("BertForNextSentencePrediction"),
    "reconstruction": t5_10,
    "causal-lm": gpt2,
}
FULLEST = {
    "masked-lm": transformers.BertForPreTraining,
    "next-sentence": transformers.BertForPreTraining,
    "reconstruction": transformers.T5ForConditionalGeneration,
    "causal-lm": transformers.GPT2LMHeadModel,
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "days.txt"
    path.write_text(TEXT)
    return str(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each recipe, model and tokenizer written by transformers itself."""
    root = tmp_path_factory.mktemp("theirs")
    for name, make in RECIPES.items():
        make().save_pretrained(root / name)
    for name in ("masked-lm", "next-sentence"):
        bert_tokenizer().save_pretrained(root / name)
    t5_tokenizer().save_pretrained(root / "reconstruction")
    gpt2_tokenizer(tmp_path_factory.mktemp("gpt2")).save_pretrained(root / "causal-lm")
    return root


@pytest.fixture(scope="module")
def trained(folders, text, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    for name in RECIPES:
        words = ["train", name, "--init", str(folders / name), "--corpus", text, "--blocks"]
        if name == "next-sentence":  # lines as documents are of three sentences each
            words.remove("--blocks")
        assert main([*words, *SMALL, "--out", str(out / name), "--learning-rate", "5e-5"]) == 0
    return out


def error_of(words, capsys):
    """The one line of a refused command, which must have status 2."""
    capsys.readouterr()
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("minicpt: ") for line in lines)
    (line,) = (line for line in lines if line.startswith("minicpt: error: "))
    return line


def copy_of(folder, path, **changes):
    """A copy of a folder, with other values in its config.json."""
    path.mkdir()
    for file in folder.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))
    return path


# --- the recipes


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_run_and_the_result_opens_in_transformers(name, trained, folders):
    folder = trained / name / "step-00000004"
    oracle, info = FULLEST[name].from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    before = checkpoint.load(folders / name).model
    after = dict(checkpoint.load(trained / name).model.named_parameters())
    changed = {
        n for n, parameter in before.named_parameters() if not torch.equal(parameter, after[n])
    }
    assert "tokens.weight" in changed
    words, theirs = (
        transformers.AutoTokenizer.from_pretrained(p) for p in (folder, folders / name)
    )
    for sample in SAMPLES:
        assert words(sample).input_ids == theirs(sample).input_ids
        assert words.decode(words(sample).input_ids) == theirs.decode(theirs(sample).input_ids)
    assert len(words) == len(theirs)
    assert words.all_special_ids and set(words.all_special_ids) == set(theirs.all_special_ids)


def test_a_model_larger_than_its_tokenizer_trains(trained, folders):
    base = checkpoint.load(folders / "reconstruction")
    assert base.tokenizer.size < base.model.config.vocabulary == 320
    assert checkpoint.load(trained / "reconstruction").model.config.vocabulary == 320


def test_roles_are_found_and_none_is_invented(folders):
    roles = {name: checkpoint.load(folders / name).tokenizer.roles for name in RECIPES}
    assert roles["masked-lm"] == {"pad": 0, "unk": 2, "cls": 3, "sep": 4, "mask": 5}
    assert roles["reconstruction"] == {"pad": 0, "end": 1, "unk": 2}
    assert set(roles["causal-lm"]) == {"end"}


@pytest.mark.parametrize("name", RECIPES)
def test_every_verb_takes_the_folder(name, folders, text, capsys):
    folder = str(folders / name)
    assert main(["evaluate", folder, "--objective", name, "--corpus", text, "--passages", "4"]) == 0
    words = ["generate", folder, "It rained. The cat saw.", "--objective", name, "--length", "3"]
    assert main(words) == 0
    assert main(["explain", name, "--init", folder, "--text", "It rained. A cat. A dog sat."]) == 0
    output = capsys.readouterr()
    assert output.err.count("unverified") == 3 and "nats/" in output.out
    assert "is not a run of minicpt" in error_of(["resume", folder], capsys)


@pytest.mark.parametrize("name", ["masked-lm", "causal-lm"])
def test_rates_of_dropout_outlive_a_run_and_a_flag_replaces_them(name, folders, text, tmp_path):
    """From the folder to the run's, through resuming, and to what ``export`` writes."""
    rates = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}
    if name == "causal-lm":
        rates = {"resid_pdrop": 0.2, "attn_pdrop": 0.3, "embd_pdrop": 0.4}
    base = copy_of(folders / name, tmp_path / "theirs", **rates)
    words = ["train", name, "--init", str(base), "--corpus", text, "--blocks", *SMALL]
    words += ["--schedule", "constant", "--warmup", "0"]  # so that it may be made longer

    def rates_in(folder):
        config = json.loads((folder / "config.json").read_text())
        return {rate: config[rate] for rate in rates}

    kept, replaced = tmp_path / "kept", tmp_path / "replaced"
    assert main([*words, "--out", str(kept)]) == 0
    assert main(["resume", str(kept), "--steps", "5"]) == 0
    assert main(["export", str(kept), "--to", str(tmp_path / "exported")]) == 0
    assert rates_in(kept / "step-00000005") == rates_in(tmp_path / "exported") == rates
    assert main([*words, "--dropout", "0.15", "--out", str(replaced)]) == 0
    assert rates_in(replaced / "step-00000004") == dict.fromkeys(rates, 0.15)


@pytest.mark.parametrize("kind, named", [("BertForMaskedLM", "pair"), ("BertModel", "tokens")])
def test_a_head_that_is_missing_is_named_and_follows_the_seed(kind, named, tmp_path, text, capsys):
    bert(kind).save_pretrained(tmp_path / "theirs")
    bert_tokenizer().save_pretrained(tmp_path / "theirs")
    heads = []
    for seed, run in (("1", "a"), ("1", "b"), ("2", "c")):
        # Steps so small that the first weights are still seen after one of them.
        words = ["train", "masked-lm", "--init", str(tmp_path / "theirs"), "--corpus", text]
        words += ["--steps", "1", "--learning-rate", "1e-30", "--seed", seed]
        assert main([*words, *SMALL[2:], "--out", str(tmp_path / run)]) == 0
        said = capsys.readouterr().err
        assert f"head '{named}'" in said and "is not in the folder: initialised at random" in said
        model = checkpoint.load(tmp_path / run).model
        heads.append(
            model.heads["pair"].weight if named == "pair" else model.heads["tokens"].dense.weight
        )
    assert torch.equal(heads[0], heads[1]) and not torch.allclose(heads[0], heads[2])


# --- export


@pytest.mark.parametrize("name", RECIPES)
def test_export_writes_what_transformers_opens_and_nothing_else(name, trained, tmp_path, capsys):
    assert main(["export", str(trained / name), "--to", str(tmp_path / "a" / "b")]) == 0
    assert "exported" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    _, info = FULLEST[name].from_pretrained(tmp_path / "a" / "b", output_loading_info=True)
    assert not any(info.values()), info
    state = safetensors.torch.load_file(tmp_path / "a" / "b" / "model.safetensors")
    saved = torch.load(trained / name / "step-00000004" / "pytorch_model.bin", weights_only=True)
    assert state.keys() == saved.keys() and all(torch.equal(state[n], saved[n]) for n in saved)
    words = ["export", str(tmp_path / "a" / "b"), "--to", str(tmp_path / "c"), "--json"]
    assert main(words) == 0  # somebody else's folder, too
    output = capsys.readouterr()
    assert json.loads(output.out)["to"] == str(tmp_path / "c") and "unverified" in output.err
    for file in (tmp_path / "c").iterdir():
        assert file.read_bytes() == (tmp_path / "a" / "b" / file.name).read_bytes()


def test_export_overwrites_nothing(trained, tmp_path, capsys):
    source = str(trained / "causal-lm")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "file", "link"):
        assert "exists already" in error_of(
            ["export", source, "--to", str(tmp_path / name)], capsys
        )
    assert "exists already" in error_of(["export", source, "--to", ""], capsys)
    assert (tmp_path / "file").read_text() == "mine"
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("absent", ["safetensors.torch", "safetensors", "numpy"])
def test_export_without_the_extra_says_what_to_install(
    absent, trained, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, absent, None)
    words = ["export", str(trained / "causal-lm"), "--to", str(tmp_path / "a")]
    assert "pip install safetensors numpy" in error_of(words, capsys)
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_nothing(trained, tmp_path, capsys, monkeypatch):
    def full(*arguments, **options):
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    assert main(["export", str(trained / "causal-lm"), "--to", str(tmp_path / "a")]) == 1
    assert "No space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- refusals


@pytest.mark.parametrize("fault", ["renamed", "missing", "extra", "misshapen", "integers"])
@pytest.mark.parametrize("name", ["masked-lm", "causal-lm", "reconstruction"])
def test_a_wrong_key_gives_one_line(name, fault, folders, tmp_path, text, capsys):
    folder = copy_of(folders / name, tmp_path / "copy")
    file = folder / "model.safetensors"
    state = safetensors.torch.load_file(file)
    key = next(key for key in sorted(state) if "LayerNorm" in key or "ln_" in key or "norm" in key)
    tensor = state[key]
    if fault in ("renamed", "missing"):
        del state[key]
    if fault in ("renamed", "extra"):
        state["strange.weight"] = tensor.clone()
    if fault == "misshapen":
        state[key] = torch.cat([tensor, tensor])
    if fault == "integers":
        state[key] = tensor.long()
    safetensors.torch.save_file(state, file, metadata={"format": "pt"})
    words = ["train", name, "--init", str(folder), "--corpus", text, "--out", str(tmp_path / "out")]
    line = error_of(words, capsys)
    named = "strange.weight" if fault == "extra" else key
    assert named in line and "do not belong to this config" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, changes",
    [
        ("masked-lm", {"position_embedding_type": "relative_key"}),
        ("masked-lm", {"hidden_act": "relu"}),
        ("causal-lm", {"add_cross_attention": True}),
        ("causal-lm", {"activation_function": "silu"}),
        ("reconstruction", {"feed_forward_proj": "gated-silu"}),
    ],
)
def test_variants_are_refused_by_name(name, changes, folders, tmp_path, capsys):
    folder = copy_of(folders / name, tmp_path / "copy", **changes)
    (key,) = changes
    (folder / "model.safetensors").write_bytes(b"never read")
    line = error_of(["generate", str(folder), "x"], capsys)
    assert key in line and repr(changes[key]) in line and "not implemented" in line


@pytest.mark.parametrize(
    "name, changes",
    [
        ("masked-lm", {"vocab_size": 10**12}),
        ("masked-lm", {"hidden_size": 3 * 10**9}),
        ("masked-lm", {"hidden_size": 3 * 10**30}),
        ("masked-lm", {"num_hidden_layers": 10**9}),
        ("masked-lm", {"max_position_embeddings": 10**13}),
        ("causal-lm", {"n_inner": 10**14}),
        ("causal-lm", {"n_layer": 10**9}),
        ("reconstruction", {"d_kv": 10**12}),
        ("reconstruction", {"num_decoder_layers": 10**9}),
        ("reconstruction", {"num_heads": 10**12}),
    ],
    ids=str,
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(
    name, changes, folders, tmp_path, capsys
):
    folder = copy_of(folders / name, tmp_path / "copy", **changes)
    error_of(["generate", str(folder), "x"], capsys)


def test_files_of_two_models_are_refused(tmp_path, text, capsys):
    words = ["train", "reconstruction", "--corpus", text, "--out", str(tmp_path / "out"), "--init"]
    t5_11(vocab_size=100).save_pretrained(tmp_path / "small")
    t5_tokenizer().save_pretrained(tmp_path / "small")
    size = len(t5_tokenizer())
    found = error_of([*words, str(tmp_path / "small")], capsys)
    assert f"the tokenizer has {size} tokens, more than the 100 of the model" in found
    export = ["export", str(tmp_path / "small"), "--to", str(tmp_path / "to")]
    assert f"{size} tokens, more than the 100" in error_of(export, capsys)
    t5_11(pad_token_id=7, decoder_start_token_id=7).save_pretrained(tmp_path / "pad")
    t5_tokenizer().save_pretrained(tmp_path / "pad")
    assert "pad_token_id is 7" in error_of([*words, str(tmp_path / "pad")], capsys)


def test_a_run_is_resumed_from_its_own_folders_alone(trained, tmp_path, capsys):
    """A foreign file among the steps, or a manifest taken away, is never resumed from."""
    folder = copy_of(trained / "causal-lm" / "step-00000004", tmp_path / "step-00000004")
    (folder / "manifest.json").unlink()
    assert "is damaged" in error_of(["resume", str(folder)], capsys)
    assert "no checkpoint that can be loaded" in error_of(["resume", str(tmp_path)], capsys)
