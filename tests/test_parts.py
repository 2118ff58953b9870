"""Parts in the house: a run that trains, stops, goes on, is continued, judged and exported."""

import json
import shutil

import pytest
import torch

from minicpt.cli.main import main

TEXT = "\n\n".join(
    f"On day {day} the {animal} saw {day + 3} boats. It counted them twice. Then it rained."
    for day, animal in enumerate(["cat", "dog", "owl", "fox"] * 10)
)
PARTS = {
    "multi-token-prediction": ("tokens+2", "tokens+3"),
    "replaced-token-detection": ("generator", "original"),
}
OWN = {"multi-token-prediction": ["--ahead", "3"], "replaced-token-detection": []}
BEFORE = {"multi-token-prediction": "causal-lm", "replaced-token-detection": "masked-lm"}
TINY = "--width 8 --layers 1 --num-heads 1 --vocab-size 256".split()
SHORT = "--window 16 --batch-size 4 --micro-batch-size 3 --blocks --evaluate-passages 8".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    (folder / "text.txt").write_text(TEXT)
    for name in PARTS:
        for run in (name, BEFORE[name]):
            words = ["train", run, "--corpus", str(folder / "text.txt"), *SHORT, *TINY, "--steps"]
            own = OWN[name] if run == name else []
            assert main([*words, "4", "--save-every", "2", "--out", str(folder / run), *own]) == 0
    return folder


def state(path):
    weights = torch.load(path / "pytorch_model.bin", weights_only=True)
    return weights, torch.load(path / "state.pt", weights_only=True)["parts"]


def run_of(name, folder, path, *more):
    words = ["train", name, "--init", str(folder / path), "--corpus", str(folder / "text.txt")]
    return main([*words, *SHORT, "--steps", "2", *OWN[name], *map(str, more)])


@pytest.mark.parametrize("name", PARTS)
def test_a_run_that_was_stopped_ends_with_the_same_model_and_parts(name, folder, tmp_path, capsys):
    whole = state(folder / name / "step-00000004")
    shutil.copytree(folder / name, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "step-00000004")
    assert main(["resume", str(tmp_path / "run")]) == 0
    for before, after in zip(whole, state(tmp_path / "run" / "step-00000004"), strict=True):
        assert before.keys() == after.keys()
        assert all(torch.equal(each, after[key]) for key, each in before.items())
    assert {key.split(".")[0] for key in whole[1]} == set(PARTS[name])


@pytest.mark.parametrize("name", PARTS)
def test_parts_are_taken_over_and_what_is_new_is_named(name, folder, tmp_path, capsys):
    assert run_of(name, folder, name, "--out", tmp_path / "same") == 0
    assert "not learnt yet" not in capsys.readouterr().err
    assert run_of(name, folder, BEFORE[name], "--out", tmp_path / "other") == 0
    assert f"not learnt yet: {', '.join(PARTS[name])}" in capsys.readouterr().err
    begun = [json.loads(line) for line in (tmp_path / "same" / "metrics.jsonl").open()][0]
    words = ["evaluate", str(folder / name), "--passages", "8", "--json"]
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)["held out"]["nats_per_target"]
    assert set(shown) == set(begun["held out"]["nats_per_target"])
    # A checkpoint without the parts is not measured: untrained ones would say nothing of it.
    assert main(["evaluate", str(folder / BEFORE[name]), "--objective", name, *words[2:]]) == 2
    assert "needs parts that are trained with the model" in capsys.readouterr().err


@pytest.mark.parametrize("name", PARTS)
def test_beside_remedies(name, folder, tmp_path):
    remedies = ["--lora", "2"], ["--freeze", "embeddings", "--ewc", "1", "--ewc-passages", "4"]
    for place, each in enumerate(remedies):
        assert run_of(name, folder, name, *each, "--out", tmp_path / str(place)) == 0
        before = state(folder / name / "step-00000004")[1]
        after = state(tmp_path / str(place) / "step-00000002")[1]
        assert any(not torch.equal(value, after[key]) for key, value in before.items())


def test_a_remedy_that_cannot_be_used_is_refused_before_anything_is_done(folder, tmp_path, capsys):
    out = tmp_path / "kl"
    assert run_of("replaced-token-detection", folder, "masked-lm", "--kl", 1, "--out", out) == 2
    assert "--kl cannot be used here: no head of the base" in capsys.readouterr().err
    assert not out.exists()
    assert run_of("multi-token-prediction", folder, "causal-lm", "--kl", 1, "--out", out) == 0


@pytest.mark.parametrize("name", PARTS)
def test_an_export_leaves_them_out_and_says_so(name, folder, tmp_path, capsys):
    assert main(["export", str(folder / name), "--to", str(tmp_path / "out")]) == 0
    assert ", ".join(PARTS[name]) in capsys.readouterr().err
    auto = pytest.importorskip("transformers").AutoModelForPreTraining
    _, found = auto.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]


def test_generating_uses_them(folder, capsys):
    assert main(["generate", str(folder / "replaced-token-detection"), "the cat"]) == 0
    capsys.readouterr()
    words = ["generate", str(folder / "masked-lm"), "the cat"]
    assert main([*words, "--objective", "replaced-token-detection"]) == 2
    assert "train it with replaced-token-detection" in capsys.readouterr().err
    assert main(["explain", "multi-token-prediction", "--init", str(folder / "causal-lm"),
                 "--window", "16", "--text", "the cat saw a boat"]) == 0  # fmt: skip
    assert "tokens+4" in capsys.readouterr().err
