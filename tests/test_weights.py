"""Weights files in all their forms, as transformers writes them, and damaged ones."""

import json
import shutil
import sys

import pytest
import safetensors.torch
import torch
from oracles import FULLEST, KINDS, bert, gpt2, make

from minicpt import checkpoint
from minicpt.checkpoint import weights
from minicpt.common.errors import InputError


def same(found, expected):
    expected, found = dict(expected.named_parameters()), dict(found.named_parameters())
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def shards(folder, state, parts=3, suffix="bin"):
    """A state as shards and their index, by hand: today's transformers writes no .bin."""
    stem = "pytorch_model" if suffix == "bin" else "model"
    places = {}
    for part in range(parts):
        file = f"{stem}-{part + 1:05d}-of-{parts:05d}.{suffix}"
        shard = dict(list(state.items())[part::parts])
        places |= dict.fromkeys(shard, file)
        if suffix == "bin":
            torch.save(shard, folder / file)
        else:
            safetensors.torch.save_file(shard, folder / file, metadata={"format": "pt"})
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.fixture
def theirs(tmp_path, tokenizer):
    """A folder of transformers, and what it holds."""
    folder = tmp_path / "theirs"
    gpt2().save_pretrained(folder)
    tokenizer.save(folder)
    return folder, safetensors.torch.load_file(folder / "model.safetensors")


def fault(path):
    with pytest.raises(InputError) as error:
        weights.read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name",
    [FULLEST[each] for each in dict.fromkeys(KINDS.values())][:2]
    + ["T5ForConditionalGeneration-1.0", "T5ForConditionalGeneration-1.1"],
)
def test_every_form_gives_the_same_model(name, tmp_path, tokenizer):
    oracle = make(name)
    oracle.save_pretrained(tmp_path / "whole")
    oracle.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    state = dict(oracle.state_dict())  # tied weights under all their names, as old folders do
    for form in ("bin", "legacy", "bin-shards"):
        shutil.copytree(tmp_path / "whole", tmp_path / form)
        (tmp_path / form / "model.safetensors").unlink()
    torch.save(state, tmp_path / "bin" / "pytorch_model.bin")
    torch.save(
        state, tmp_path / "legacy" / "pytorch_model.bin", _use_new_zipfile_serialization=False
    )
    shards(tmp_path / "bin-shards", state)
    models = []
    for form in ("whole", "shards", "bin", "legacy", "bin-shards"):
        tokenizer.save(tmp_path / form)
        models.append(checkpoint.load(tmp_path / form).model)
        same(models[-1], models[0])
    assert torch.equal(models[0].tokens.weight, oracle.get_input_embeddings().weight)


def test_half_precision_is_widened(tmp_path, tokenizer):
    oracle = gpt2()
    for dtype in (torch.bfloat16, torch.float16):
        folder = tmp_path / str(dtype)
        oracle.to(dtype).save_pretrained(folder)
        tokenizer.save(folder)
        model = checkpoint.load(folder).model
        assert model.tokens.weight.dtype == torch.float32
        assert torch.equal(model.tokens.weight, oracle.transformer.wte.weight.float())


def test_a_folder_of_links_as_the_hub_keeps_it_loads(theirs, tmp_path):
    folder, state = theirs
    (tmp_path / "links").mkdir()
    for file in folder.iterdir():
        (tmp_path / "links" / file.name).symlink_to(file)
    assert weights.read(tmp_path / "links").keys() == state.keys()
    checkpoint.load(tmp_path / "links")


# What can be read is preferred


def test_without_safetensors_another_form_is_read(theirs, monkeypatch):
    folder, state = theirs
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    message = fault(folder)
    assert "model.safetensors" in message and "pip install safetensors numpy" in message
    with pytest.raises(InputError, match="pip install safetensors"):
        checkpoint.load(folder)
    torch.save(state, folder / "pytorch_model.bin")
    assert weights.read(folder).keys() == state.keys()
    (folder / "pytorch_model.bin").unlink()
    shards(folder, state)
    assert weights.read(folder).keys() == state.keys()


def test_reading_needs_no_numpy_and_training_no_safetensors(theirs):
    """In a process of its own: the extras are not there, and nothing asks for them early."""
    import subprocess

    code = (
        "import sys, pathlib; sys.modules['numpy'] = None;"
        "from minicpt.checkpoint import weights;"
        "from minicpt.cli.main import parser, verbs; parser(*verbs());"
        "assert 'safetensors' not in sys.modules;"
        f"assert weights.read(pathlib.Path({str(theirs[0])!r}))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


# Faults


def test_a_folder_without_weights_says_what_it_needs(tmp_path):
    assert "model.safetensors or pytorch_model.bin" in fault(tmp_path)


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_faults_of_shards_are_named(suffix, theirs, tmp_path):
    _, state = theirs
    folder = tmp_path / "shards"

    def fresh():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        index = shards(folder, state, suffix=suffix)
        return index, json.loads(index.read_text())["weight_map"]

    index, places = fresh()
    assert weights.read(folder).keys() == state.keys()
    name, file = next(iter(places.items()))
    (folder / file).unlink()
    assert f"{file} is missing, and {index.name} lists it" in fault(folder)

    for strange in ("../" + file, "/etc/passwd", "a\\b", "..", "", "sub/" + file):
        index, places = fresh()
        index.write_text(json.dumps({"weight_map": places | {name: strange}}))
        assert f"names {strange!r}, which is no file beside it" in fault(folder)

    index, places = fresh()
    index.write_text(json.dumps({"weight_map": places | {"made.up": file}}))
    assert f"{file} does not hold made.up" in fault(folder)

    for content in ({}, {"weight_map": 3}, {"weight_map": {"a": 1}}):
        index, places = fresh()
        index.write_text(json.dumps(content))
        assert "has no weight_map" in fault(folder)
    index.write_text("{")
    assert "cannot be read" in fault(folder)

    fresh()
    first, second = sorted(folder.glob(f"*.{suffix}"))[:2]
    second.write_bytes(first.read_bytes())
    assert "a second time" in fault(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_damaged_files_give_one_line(name, theirs, tmp_path):
    _, state = theirs
    folder = tmp_path / "damaged"
    folder.mkdir()
    if name.endswith("bin"):
        torch.save(state, folder / name)
    else:
        safetensors.torch.save_file(state, folder / name)
    whole = (folder / name).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\xff" * 100, b"text"):
        (folder / name).write_bytes(content)
        assert f"{name} cannot be loaded" in fault(folder)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in fault(folder)


def test_what_is_no_state_is_refused(tmp_path):
    for content in ([1], torch.ones(2), {"model": {"a": torch.ones(2)}}, {"epoch": 3}):
        torch.save(content, tmp_path / "pytorch_model.bin")
        assert "pytorch_model.bin" in fault(tmp_path)


def test_a_name_in_an_old_and_a_new_spelling_is_refused(tmp_path, tokenizer):
    oracle = bert()
    oracle.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    name = "bert.embeddings.LayerNorm.weight"
    state[name.replace("weight", "gamma")] = state[name] + 1
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=f"{name} twice"):
        checkpoint.load(tmp_path)
