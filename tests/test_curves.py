"""Curves: what is read of metrics.jsonl, whatever became of the run, and what is drawn of it."""

import json
import math
import sys

import pytest

from minicpt.cli.main import main
from minicpt.common.outputs import COLOURS
from minicpt.pictures import curves
from minicpt.runs import metrics
from minicpt.runs.history import history


def step(number, loss=2.0, **more):
    line = {"kind": "step", "step": number, "loss": loss, "losses": {"tokens": loss}, "terms": {}}
    line |= {"learning_rate": number / 1000, "tokens": 100, "seconds": 0.5}
    return line | {"tokens_per_second": 200.0} | more


def evaluation(number, total=3.0, **changes):
    return {"kind": "evaluation", "step": number, "held out": {"total": total}} | changes


def written(folder, lines, torn=b""):
    folder.mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / metrics.NAME).write_bytes(text.encode() + torn)
    return str(folder)


@pytest.fixture
def base(tmp_path):
    return written(tmp_path / "base", [evaluation(0, 4.0), step(1), step(2), evaluation(2)])


@pytest.fixture
def drawn(monkeypatch):
    """Figures and legends in place of files."""
    found = []
    monkeypatch.setattr(curves, "write_picture", lambda path, *rest, **_: found.append(rest))
    return found


def titled(figure):
    return {axis.get_title(): axis for axis in figure.axes}


def points(line):
    return list(zip(*map(list, line.get_data()), strict=True))


# --- what is read


def test_the_columns_hold_what_the_lines_say(tmp_path):
    lines = [
        evaluation(0, gained={"bits/byte": 0.0}, forgotten={"bits/byte": 0.0}),
        step(1, 2.5),
        step(2, None, losses={"tokens": None}),  # not finite
        step(3, 0, losses={}),  # no target
        step(4, 1.5, losses={"tokens": 1.0, "pair": 0.5}),
        evaluation(4, gained={"bits/byte": 0.5}, forgotten={"bits/byte": 0.25}),
    ]
    found = history(written(tmp_path / "run", lines))
    assert list(found.steps) == [1, 2, 3, 4] and list(found.rate) == [0.001, 0.002, 0.003, 0.004]
    assert found.loss[0] == 2.5 and math.isnan(found.loss[1]) and math.isnan(found.loss[2])
    assert found.loss[3] == 1.5 and found.heads["pair"][3] == 0.5
    assert all(map(math.isnan, found.heads["pair"][:3])) and found.heads["tokens"][3] == 1.0
    assert found.changes() == {
        ("gained", "bits/byte"): [(0, 0.0), (4, 0.5)],
        ("forgotten", "bits/byte"): [(0, 0.0), (4, 0.25)],
    }
    assert not found.notes


def test_a_torn_last_line_and_damaged_ones_are_left_out_and_named(tmp_path):
    whole = json.dumps(step(3)).encode()
    for cut in (1, 30, len(whole)):  # the end of the line is written with it
        found = history(written(tmp_path / f"torn-{cut}", [step(1), step(2)], whole[:cut]))
        assert list(found.steps) == [1, 2]
        assert len(found.notes) == 1 and "the last line is half written" in found.notes[0]
    damaged = [7, {"kind": "step"}, step(3) | {"step": "3"}, step(2), step(4, "much")]
    damaged += [{"kind": "x", "step": 1}]
    damaged += [evaluation(2) | {"gained": {"bits/byte": []}}, evaluation(2, total=True)]
    found = history(written(tmp_path / "damaged", [step(1), step(2), *damaged, step(5)]))
    assert list(found.steps) == [1, 2, 5] and len(found.loss) == 3 and not found.evaluations
    (note,) = found.notes
    assert "8 lines are not what minicpt writes" in note and "(the first: 3)" in note


def test_a_checkpoint_stands_for_its_run(base, tmp_path, monkeypatch):
    (tmp_path / "base" / "step-00000002").mkdir()
    assert list(history(f"{base}/step-00000002").steps) == [1, 2]
    monkeypatch.chdir(f"{base}/step-00000002")
    assert list(history(".").steps) == [1, 2]


# --- what is drawn


def test_three_runs_on_one_page(tmp_path, drawn, capsys):
    """A point stands for two steps of the long run; each run has a colour and a marker."""
    many = curves.POINTS + 2
    long = [step(n, float(n), learning_rate=0.5, tokens=n) for n in range(1, many + 1)]
    changes = {"gained": {"bits/byte": 0.5}, "forgotten": {"bits/byte": 0.25}}
    other = {"gained": {"nats/token": 0.1}, "forgotten": {"nats/token": 0.2}}
    runs = [
        written(tmp_path / "long", long),
        written(tmp_path / "continued", [evaluation(0), step(1), evaluation(1, **changes)]),
        written(tmp_path / "masked", [step(1, 7.0), evaluation(1, **other)]),
    ]
    assert main(["plot", *runs, "--out", str(tmp_path / "x.png")]) == 0
    assert f"{runs[0]} has no evaluation yet" in capsys.readouterr().err
    ((figure, legend),) = drawn
    panels = titled(figure)
    assert list(panels) == [
        "loss, nats/target", "gained and forgotten, bits/byte", "gained and forgotten, nats/token",
        "learning rate", "tokens/s",
    ]  # fmt: skip
    first = panels["loss, nats/target"].lines[0]
    assert points(first)[:2] == [(2, 1.5), (4, 3.5)] and len(points(first)) == many // 2
    speed = panels["tokens/s"].lines[0]
    assert points(speed)[:2] == [(2, 3 / 1.0), (4, 7 / 1.0)]  # all tokens by all seconds
    gained, forgotten = panels["gained and forgotten, bits/byte"].lines[:2]
    assert (points(gained), points(forgotten)) == ([(1, 0.5)], [(1, 0.25)])
    assert gained.get_markerfacecolor() == COLOURS[1] != forgotten.get_markerfacecolor()
    shown = [legend[run] for run in runs]
    assert [each.get_color() for each in shown] == list(COLOURS[:3])
    assert len({each.get_marker() for each in shown}) == 3
    assert "training: mean and range of up to 2 steps" in legend


def test_a_base_has_no_panel_of_changes_and_each_head_a_line(tmp_path, drawn, capsys):
    heads = {"tokens": 1.0, "pair": 0.5}
    lines = [step(1, 1.5, losses=heads), step(2, 1.25, losses=heads), evaluation(2, 1.75)]
    run = written(tmp_path / "run $1$", lines)
    assert main(["plot", run, "--out", str(tmp_path / "x.svg"), "--json"]) == 0
    output = capsys.readouterr()
    assert "is a base" in output.err and json.loads(output.out)["steps"] == {run: 2}
    ((figure, legend),) = drawn
    panels = titled(figure)
    assert list(panels) == ["loss, nats/target", "learning rate", "tokens/s"]
    loss, held_out, *_ = panels["loss, nats/target"].lines
    assert points(loss) == [(1, 1.5), (2, 1.25)] and points(held_out) == [(2, 1.75)]
    assert points(legend["head pair"]) == [(1, 0.5), (2, 0.5)]
    assert any(label.endswith(r"run \$1\$") for label in legend)  # no formula


@pytest.mark.parametrize("ending, begin", [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_a_picture_is_written_and_never_over_another(ending, begin, base, tmp_path, capsys):
    out = tmp_path / f"a{ending}"
    assert main(["plot", base, "--out", str(out)]) == 0
    assert out.read_bytes().startswith(begin)
    out.write_text("mine")
    assert main(["plot", base, "--out", str(out)]) == 2
    assert out.read_text() == "mine" and "--overwrite" in capsys.readouterr().err
    assert main(["plot", base, "--out", str(out), "--overwrite"]) == 0
    assert out.read_bytes().startswith(begin)


def test_what_cannot_be_drawn_is_refused_in_one_line(base, tmp_path, monkeypatch, capsys):
    started = written(tmp_path / "started", [evaluation(0)])
    out = str(tmp_path / "x.png")
    for words, why in {
        (started,): "no step to draw yet",
        (str(tmp_path),): "holds no metrics.jsonl",
        (str(tmp_path / "gone"),): "is not a folder",
        tuple(written(tmp_path / f"run-{n}", [step(1)]) for n in range(8)): "at most 7",
    }.items():
        assert main(["plot", *words, "--out", out]) == 2
        error = capsys.readouterr().err
        assert why in error and error.count("\n") == 1
    assert main(["plot", base, "--out", str(tmp_path / "x.txt")]) == 2
    assert "must end in .png, .svg or .pdf" in capsys.readouterr().err
    assert main(["plot", base, "--out", str(tmp_path / "no" / "x.png")]) == 2
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", base, "--out", out]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "x.png").exists()
