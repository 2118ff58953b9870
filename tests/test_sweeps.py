"""The sweep of training defaults, and the wait for a loss: what is computed, not how fast."""

import doctest
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import defaults  # noqa: E402
import time_to_loss  # noqa: E402


def test_a_sweep_goes_on_where_it_stopped(tmp_path, capsys, monkeypatch):
    path = tmp_path / "rows.jsonl"
    words = [str(path), "--quick", "--objectives", "causal-lm", "--corpus", "builtin:docs"]
    trained = []
    real = defaults.Material.loss
    monkeypatch.setattr(
        defaults.Material, "loss", lambda self, cell, label: trained.append(cell) or real(
            self, cell, label)
    )  # fmt: skip
    assert defaults.main(words) == 0
    whole = path.read_text()
    assert len(trained) == len(whole.splitlines()) == 2
    # The second line is torn, as by a kill: that cell is trained again, to the same loss.
    path.write_text(whole[:-20])
    assert defaults.main(words) == 0
    assert trained[2:] == trained[1:2]
    assert json.loads(path.read_text().splitlines()[-1]) == json.loads(whole.splitlines()[-1])
    assert "causal-lm     16      5" in capsys.readouterr().out


def test_the_table_marks_what_is_near_the_best():
    cells = [defaults.Cell("causal-lm", 64, 200, rate) for rate in (1e-3, 2e-3, 4e-3)]
    table = defaults.report(dict(zip(cells, (2.03, 2.0, None), strict=True)))
    assert table.splitlines()[1].split()[4:] == ["2.030*", "2.000*", "diverged"]
    table = defaults.report(dict(zip(cells, (2.05, 2.0, None), strict=True)))
    assert table.splitlines()[1].split()[4:] == ["2.050", "2.000*", "diverged"]


def test_cells_come_once_and_the_cheap_ones_first():
    cells = defaults.grid(list(defaults.OBJECTIVES), 2e-3)
    assert len(set(cells)) == len(cells)
    costs = [cell.cost for cell in cells]
    assert costs == sorted(costs)
    sizes = {(c.width, c.steps) for c in cells if c.objective == "causal-lm"}
    assert sizes == {(w, s) for w in defaults.WIDTHS for s in defaults.STEPS}
    # The dear ones leave out the lowest and the highest rate.
    rates = [{c.rate for c in cells if (c.width, c.steps) == size} for size in defaults.CORNERS]
    assert [len(each) for each in rates] == [5, 3, 3]


def test_a_curve_counts_start_and_steps_and_no_evaluation():
    assert doctest.testmod(time_to_loss).failed == 0
    points = [{"step": 1, "seconds": 1.0, "loss": 3.0}, {"step": 2, "seconds": 2.0, "loss": 2.5}]
    assert time_to_loss.reached(points, 2.7) == points[1]
    assert time_to_loss.reached(points, 2.4) is None


def test_cpu_time_is_shared_out_as_the_clocks():
    took = time_to_loss.Seconds(wall=4.0, cpu=6.0)
    assert time_to_loss.with_cpu([{"seconds": 2.0}], took) == [{"seconds": 2.0, "cpu": 3.0}]
