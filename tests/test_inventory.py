"""minicpt runs: what a folder holds is listed, and what is damaged in it is named."""

import json

import pytest

from minicpt import checkpoint
from minicpt.cli.main import main
from minicpt.common.terminal import columns
from minicpt.runs import lock, metrics

CONTENT = {"config.json": "{}", checkpoint.WEIGHTS: "w" * 2000, "tokenizer.json": "{}"}


def summary(bits, nats=2.0):
    return {"nats_per_target": {"tokens": nats}, "bits_per_byte": bits, "total": nats}


def evaluation(step, bits=None, **changes):
    return {"step": step, "held out": summary(bits)} | changes


def saved(run, step, evaluations, objective="causal-lm", base=None, steps=10):
    """A checkpoint whose manifest is right; its weights are none."""
    folder = run / f"step-{step:08d}"
    folder.mkdir(parents=True)
    record = {"config": {"objective": objective}, "base": base, "step": step, "steps": steps}
    for name, text in (CONTENT | {checkpoint.STATE: "s"}).items():
        (folder / name).write_text(text)
    (folder / checkpoint.RECORD).write_text(json.dumps(record | {"evaluations": evaluations}))
    checkpoint.write_manifest(folder)
    return folder


def lines_of(run, *entries, torn=""):
    lines = [json.dumps({"kind": "evaluation"} | each) + "\n" for each in entries]
    (run / metrics.NAME).write_text("".join(lines) + torn)


@pytest.fixture
def runs(tmp_path):
    """A base, a run that continues it and went on after its checkpoint, and a killed one."""
    folder = tmp_path / "runs"
    first = [evaluation(0, 4.0), evaluation(10, 3.0)]
    saved(folder / "base", 5, first[:1])
    saved(folder / "base", 10, first)
    lines_of(folder / "base", *first)
    changes = {"gained": {"bits/byte": 0.25}, "forgotten": {"bits/byte": -0.5}}
    more = [evaluation(5, 2.75, **changes), evaluation(8, 2.5, **changes)]
    saved(folder / "more" / "again", 5, more[:1], base=str(folder / "base"))
    lines_of(folder / "more" / "again", *more)
    saved(folder / "masked", 10, [evaluation(10)], "masked-lm")
    lines_of(folder / "masked", evaluation(10))
    return folder


def listed(folder, capsys, *words):
    assert main(["runs", str(folder), "--json", *words]) == 0
    return {each["name"]: each for each in json.loads(capsys.readouterr().out)["runs"]}


def test_runs_and_checkpoints_are_listed(runs, capsys):
    found = listed(runs, capsys)
    assert list(found) == [str(runs / name) for name in ("base", "masked", "more/again")]
    base, masked, again = found.values()
    assert (base["objective"], base["base"], base["step"], base["steps"]) == (
        "causal-lm", None, 10, 10
    )  # fmt: skip
    assert base["held_out"] == {"bits/byte": 3.0} and base["gained"] == {}
    assert [each["held_out"]["bits/byte"] for each in base["checkpoints"]] == [4.0, 3.0]
    assert masked["held_out"] == {"nats/token": 2.0}
    assert again["base"] == str(runs / "base") and again["held_out"] == {"bits/byte": 2.5}
    assert again["gained"] == {"bits/byte": 0.25} and again["forgotten"] == {"bits/byte": -0.5}
    sizes = [path.stat().st_size for path in (runs / "base").rglob("*") if path.is_file()]
    assert base["size"] == sum(sizes)
    assert not any(each["problems"] for each in found.values())


def test_a_table_in_any_width(runs, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["runs", str(runs)]) == 0  # no terminal: nothing is cut
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == "run objective base steps held out gained forgotten size".split()
    row = next(line for line in shown if line.startswith("more/again"))
    for cell in ("causal-lm", "base", "2.5000 bits/byte", "+0.2500", "-0.5000", "KiB"):
        assert cell in row
    assert "10 of 10" in shown[1] and shown[2].startswith("  step-00000005")
    for width in (100, 60, 30):
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(["runs", str(runs)]) == 0
        narrow = capsys.readouterr().out
        assert max(map(columns, narrow.splitlines())) < width
        assert "".join("2.5000 bits/byte".split()) in "".join(narrow.split())


def damage(runs):
    """What is damaged -> the words that name it."""
    (runs / "base" / "step-00000005" / checkpoint.STATE).unlink()
    (runs / "base" / ".step-00000011.tmp").mkdir()
    record = runs / "masked" / "step-00000010" / checkpoint.RECORD
    record.write_text(record.read_text()[:20])
    lines_of(runs / "more" / "again", evaluation(8, 2.5), torn='{"kind')
    (runs / "killed").mkdir()
    lines_of(runs / "killed", evaluation(0, 4.5))
    (runs / "half" / "step-00000001").mkdir(parents=True)
    (runs / "half" / "step-00000001" / checkpoint.RECORD).write_text('{"config": {}}')
    return {
        "base": "state.pt is missing, .step-00000011.tmp is half written",
        "masked": "training.json differs from the manifest",
        "more/again": "the last line is half written",
        "killed": "was stopped before its first checkpoint",
        "half": "manifest.json is missing",
    }


def test_what_is_damaged_is_named_and_the_rest_listed(runs, capsys):
    expected = damage(runs)
    found = listed(runs, capsys)
    assert main(["runs", str(runs)]) == 0
    shown = capsys.readouterr().out
    for name, words in expected.items():
        each = found[str(runs / name)]
        problems = each["problems"] + sum((x["problems"] for x in each["checkpoints"]), [])
        for part in words.split(", "):
            assert any(part in problem for problem in problems)
            assert any(part in line for line in shown.splitlines() if line.startswith("! "))
    assert found[str(runs / "base")]["held_out"] == {"bits/byte": 3.0}  # of the one that is whole
    assert found[str(runs / "killed")]["held_out"] == {"bits/byte": 4.5}


def test_a_changed_byte_is_found_with_check(runs, capsys):
    path = runs / "base" / "step-00000010" / checkpoint.WEIGHTS
    path.write_text("v" + "w" * 1999)
    last = listed(runs, capsys)[str(runs / "base")]["checkpoints"][-1]
    assert last["problems"] == [] and last["step"] == 10
    last = listed(runs, capsys, "--check")[str(runs / "base")]["checkpoints"][-1]
    assert "pytorch_model.bin differs from the manifest" in last["problems"][0]


def test_a_running_one_is_not_called_damaged(runs, capsys):
    run = runs / "masked"
    (run / ".step-00000011.tmp").mkdir()
    lines_of(run, evaluation(10), torn='{"kind')
    with lock.locked(run):
        found = listed(runs, capsys)
    each = found[str(run)]
    assert each["running"] and not each["problems"]
    each = listed(runs, capsys)[str(run)]
    assert not each["running"] and len(each["problems"]) == 2


def test_one_run_one_checkpoint_a_model_of_somebody_else_and_nothing(runs, tmp_path, capsys):
    assert list(listed(runs / "base", capsys)) == [str(runs / "base")]
    step = runs / "base" / "step-00000010"
    assert listed(step, capsys)[str(step)]["step"] == 10
    other = tmp_path / "other"
    other.mkdir()
    assert main(["runs", str(other)]) == 0 and "holds no run" in capsys.readouterr().out
    (other / "config.json").write_text("{}")
    (other / "model.safetensors").write_text("w" * 99)
    each = listed(other, capsys)[str(other)]
    assert (each["objective"], each["size"], each["problems"]) == ("", 101, [])
    assert main(["runs", str(tmp_path / "gone")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
