"""Checkpoint folders: whole or not there, checked before use, open to other tools."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from making import close

from minicpt import checkpoint
from minicpt.checkpoint.huggingface import export_config
from minicpt.common.errors import InputError, WorkError
from minicpt.data.tokenizer import Tokenizer
from minicpt.models.bert import BERT
from minicpt.models.gpt2 import GPT2
from minicpt.models.t5 import T5

ORACLES = {
    "decoder": transformers.GPT2LMHeadModel,
    "encoder": transformers.BertForPreTraining,
    "encoder-decoder": transformers.T5ForConditionalGeneration,
}
KINDS = {"decoder": GPT2, "encoder": BERT, "encoder-decoder": T5}
RECORD = {"fused": True, "config": {"objective": "some"}}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["a small text for a small tokenizer"], 270)


def model_of(kind, tokenizer):
    model = KINDS[kind]
    sizes = {"width": 16, "layers": 2, "num_heads": 2}
    if kind != "encoder-decoder":
        sizes["positions"] = 12
    return model(model.Config(vocabulary=tokenizer.size, **sizes)).eval()


@pytest.fixture
def saved(tmp_path, tokenizer):
    """A run's folder with two checkpoints, and the model of the newer one."""
    (tmp_path / "run").mkdir()
    for step in (1, 2):
        torch.manual_seed(step)
        model = model_of("decoder", tokenizer)
        record = RECORD | {"step": step}
        folder = tmp_path / "run" / f"step-{step:08d}"
        checkpoint.save(folder, model, tokenizer, record, {"step": step})
    return tmp_path / "run", model


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load_gives_the_same_weights_ties_and_tokenizer(kind, tmp_path, tokenizer):
    model = model_of(kind, tokenizer)
    checkpoint.save(tmp_path / "a", model, tokenizer, RECORD, {"step": 3})
    loaded = checkpoint.load(tmp_path / "a")
    assert not loaded.notes and loaded.record == RECORD and loaded.state() == {"step": 3}
    assert export_config(loaded.model) == export_config(model)
    assert loaded.tokenizer.sha256 == tokenizer.sha256
    expected, found = dict(model.named_parameters()), dict(loaded.model.named_parameters())
    assert expected.keys() == found.keys()  # named once, though tied
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("kind", ORACLES)
def test_a_checkpoint_opens_in_transformers(kind, tmp_path, tokenizer):
    model = model_of(kind, tokenizer)
    checkpoint.save(tmp_path / "a", model, tokenizer, RECORD, {})
    oracle, info = ORACLES[kind].from_pretrained(tmp_path / "a", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.tensor([tokenizer.encode("a small text")])
    with torch.no_grad():
        if kind == "encoder-decoder":
            start = torch.tensor([[oracle.config.decoder_start_token_id, 7]])
            assert oracle.config.decoder_start_token_id == tokenizer.need("pad")
            theirs = oracle.eval()(input_ids=ids, decoder_input_ids=start).logits
            hidden = model(tokens=ids, decoder_tokens=start)
        else:
            output = oracle.eval()(input_ids=ids)
            theirs = output.prediction_logits if kind == "encoder" else output.logits
            hidden = model(tokens=ids)
        close(model.heads["tokens"](hidden), theirs, model, ids)
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "a")
    assert words("a small text", add_special_tokens=False).input_ids == ids[0].tolist()
    assert words.pad_token_id == tokenizer.need("pad") == oracle.config.pad_token_id
    assert words.eos_token_id == tokenizer.need("end") == oracle.config.eos_token_id


def test_nothing_is_left_of_a_checkpoint_that_could_not_be_written(saved, tokenizer, monkeypatch):
    run, model = saved
    before = sorted(path.name for path in run.iterdir())

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WorkError, match="No space left"):
        checkpoint.save(run / "step-00000003", model, tokenizer, RECORD, {})
    assert sorted(path.name for path in run.iterdir()) == before
    assert checkpoint.find(run)[0].name == "step-00000002"


def test_a_kill_before_the_rename_leaves_the_previous_one(saved, tokenizer):
    run, model = saved
    child = os.fork()
    if child == 0:  # the process dies when everything is written but nothing renamed
        Path.rename = lambda *_: os._exit(9)
        checkpoint.save(run / "step-00000003", model, tokenizer, RECORD, {})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert checkpoint.find(run)[0].name == "step-00000002"
    checkpoint.clean(run)  # as every run does when it begins
    assert not list(run.glob(".*"))
    checkpoint.save(run / "step-00000003", model, tokenizer, RECORD, {})
    assert checkpoint.find(run)[0].name == "step-00000003"
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "config.json", "training.json", "state.pt"])
def test_a_flipped_bit_is_noticed_and_an_older_checkpoint_taken(saved, name):
    run, _ = saved
    path = run / "step-00000002" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name} differs"):
        checkpoint.load(run / "step-00000002")
    loaded = checkpoint.load(run)
    assert loaded.folder.name == "step-00000001" and loaded.record["step"] == 1
    assert any("taking an older one" in note for note in loaded.notes)


def test_missing_files_and_manifests_are_noticed(saved):
    run, _ = saved
    (run / "step-00000002" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="tokenizer.json is missing"):
        checkpoint.load(run / "step-00000002")
    manifest = run / "step-00000001" / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"format": 2}))
    with pytest.raises(InputError, match="format '2'"):
        checkpoint.load(run / "step-00000001")
    manifest.write_text("{")
    with pytest.raises(InputError, match="manifest.json cannot be read"):
        checkpoint.load(run / "step-00000001")
    with pytest.raises(InputError, match="no checkpoint that can be loaded"):
        checkpoint.load(run)


def test_a_folder_of_somebody_else_is_unverified_but_loads(saved, tmp_path):
    run, model = saved
    shutil.copytree(run / "step-00000002", tmp_path / "foreign")
    for name in ("manifest.json", "training.json", "state.pt"):
        (tmp_path / "foreign" / name).unlink()
    loaded = checkpoint.load(tmp_path / "foreign")
    assert loaded.record == {} and any("unverified" in note for note in loaded.notes)
    expected = dict(model.named_parameters())
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, expected[name])


class Malicious:
    def __reduce__(self):
        return os.mkdir, (Malicious.target,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_weights_file_is_not_run(saved, tmp_path):
    run, _ = saved
    Malicious.target = str(tmp_path / "owned")
    folder = tmp_path / "foreign"
    shutil.copytree(run / "step-00000002", folder)
    for name in ("manifest.json", "training.json", "state.pt"):
        (folder / name).unlink()
    for content in (pickle.dumps(Malicious()), b"", b"not a checkpoint"):
        (folder / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(InputError, match="cannot be loaded"):
            checkpoint.load(folder)
    torch.save({"a": Malicious()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        checkpoint.load(folder)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("what", ["missing", "file", "empty"])
def test_what_is_no_checkpoint_is_refused(tmp_path, what):
    path = tmp_path / what
    if what == "file":
        path.write_text("text")
    if what == "empty":
        path.mkdir()
    with pytest.raises(InputError):
        checkpoint.load(path)
