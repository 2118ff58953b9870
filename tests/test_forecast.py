"""train --dry-run says what a run will take and leaves nothing; --config takes another's settings.
"""

import itertools
import json
import os
from pathlib import Path

import pytest

from minicpt import checkpoint
from minicpt.cli.main import main
from minicpt.runs import forecast

SMALL = "--width 16 --layers 1 --num-heads 2 --vocab-size 300 --window 32 --blocks".split()
OFTEN = ["--batch-size", "4", "--evaluate-passages", "20", "--save-every", "3", "--steps", "8"]
OFTEN += ["--evaluate-every", "5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two texts, a base, and a run that continues it, each with its record."""
    folder = tmp_path_factory.mktemp("forecast")
    for name, what in {"old": "owl", "new": "ship"}.items():
        lines = (f"On day {n} the {what} saw {n + 3} of {n * 7}. It rained." for n in range(250))
        (folder / f"{name}.txt").write_text("\n\n".join(lines))
    before = os.getcwd()
    os.chdir(folder)
    base = ["train", "causal-lm", "--corpus", "old.txt", *SMALL, *OFTEN, "--out", "base"]
    assert main([*base, "--learning-rate", "0.002"]) == 0
    more = ["train", "causal-lm", "--init", "base", "--corpus", "new.txt", "--blocks", *OFTEN]
    assert main([*more, "--kl", "0.5", "--replay", "base", "--out", "more"]) == 0
    os.chdir(before)
    return folder


@pytest.fixture
def inside(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def record(run):
    folder, _ = checkpoint.find(run)
    return json.loads((folder / checkpoint.RECORD).read_text())


def rehearsed(capsys, *words):
    assert main(["train", "causal-lm", *words, "--dry-run", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def everything(folder):
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


# --- --config


@pytest.mark.parametrize("run", ["base", "more"])
def test_a_run_is_repeated_from_its_record(run, inside, capsys):
    kept = record(run)["config"]
    assert rehearsed(capsys, "--config", run)["config"] == kept
    file = str(checkpoint.find(run)[0] / checkpoint.RECORD)
    changed = rehearsed(capsys, "--config", file, "--batch-size", "2", "--epochs", "1")["config"]
    assert changed["training"] == kept["training"] | {"batch_size": 2}
    assert changed["length"] == {"steps": None, "epochs": 1.0, "minutes": None}
    rest = {name: value for name, value in kept.items() if name not in ("training", "length")}
    assert rest == {name: changed[name] for name in rest}


def test_a_base_brings_its_own_model_and_tokenizer(inside, capsys):
    """Those of the file do not count where --init is given."""
    words = ["--config", "base", "--init", "base", "--corpus", "new.txt"]
    found = rehearsed(capsys, *words)["config"]
    assert found["base"]["init"] == "base" and found["text"]["corpus"] == ["new.txt"]
    assert found["training"]["learning_rate"] == 0.002 and found["sizes"] == {}


@pytest.mark.parametrize(
    "content, why",
    [
        ({"trainin": {}}, "no setting 'trainin', perhaps training"),
        ({"training": {"batch": 2}}, "training has no setting 'batch'"),
        ({"settings": {"windo": 2}}, "perhaps window"),
        ({"sizes": {"widht": 2}}, "perhaps width"),
        ({"remedies": {"kll": {}}}, "perhaps kl"),
        ({"remedies": {"kl": {"kll": 1}}}, "kl has no setting 'kll'"),
        ({"training": {"batch_size": "2"}}, "--batch-size must be a whole number"),
        ({"training": {"learning_rate": -1}}, "--learning-rate must be"),
        ({"text": {"corpus": 3}}, "--corpus must be"),
        ({"text": []}, "text must be a JSON object"),
        ({"model": 3}, "model must be a text"),
        ({"objective": "masked-lm"}, "minicpt train masked-lm"),
        ([], "not a JSON object"),
        (None, "is no file"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(content, why, tmp_path, capsys):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(json.dumps(content))
    assert main(["train", "causal-lm", "--config", str(path), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and why in error and error.count("\n") == 1


# --- --dry-run


def test_it_counts_what_the_run_does_and_leaves_nothing(inside, capsys, monkeypatch):
    """Each look at the clock takes a second: two steps take one, and so does an evaluation of 16
    passages of each text."""
    before = everything(inside)
    clock = itertools.count()
    monkeypatch.setattr(forecast.time, "perf_counter", lambda: next(clock))
    found = rehearsed(capsys, "--config", "more", "--out", "there")
    assert everything(inside) == before
    done = record("more")
    assert found["steps"] == done["steps"] == 8 and found["step_seconds"] == 0.5
    assert found["evaluations"] == len(done["evaluations"]) == 3  # at 0, 5 and 8
    assert found["evaluation_seconds"] == 20 / 16 + 1  # of the texts, and the sample
    assert found["seconds"] == 8 * 0.5 + 3 * 2.25
    assert found["checkpoints"] == 3 and found["kept"] == len(checkpoint.steps(Path("more")))
    folder = checkpoint.find("more")[0]
    size = sum((folder / name).stat().st_size for name in (checkpoint.WEIGHTS, checkpoint.STATE))
    weights = (folder / checkpoint.WEIGHTS).stat().st_size
    # The state of this run holds KL's copy of the base too, and each file some names.
    assert size - 1.5 * weights < found["checkpoint_bytes"] < size
    parts = found["memory"]
    assert parts["total"] == sum(value for name, value in parts.items() if name != "total")


def test_it_prints_the_plan(inside, capsys):
    words = ["train", "causal-lm", "--config", "base", "--dry-run"]
    before = everything(inside)
    assert main(words) == 0
    shown = capsys.readouterr().out
    labels = [line.split()[0] for line in shown.splitlines()]
    assert labels == "text training held model time memory disk set".split()
    assert "8 steps of 4 passages" in shown and "an estimate" in shown
    assert main([*words, "--out", "base"]) == 2  # as the run itself would be refused
    assert "not empty" in capsys.readouterr().err
    assert everything(inside) == before
