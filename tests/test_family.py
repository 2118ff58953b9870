"""The benchmark of all objectives: its floor by hand and counted anew, its table, its errors."""

import json
import math
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from making import close
from test_selection import row_of

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import family  # noqa: E402
import timing  # noqa: E402

from minicpt import models, objectives  # noqa: E402
from minicpt.batch import IGNORE  # noqa: E402
from minicpt.runs.build import build  # noqa: E402
from minicpt.runs.config import Length, RunConfig, Text, Vocabulary  # noqa: E402
from minicpt.training.evaluation import evaluate  # noqa: E402

KEYS = set(
    "objective role model head steps seconds targets loss floor below error clearly".split()
)


@pytest.fixture(autouse=True)
def threads():
    """The script sets the number of torch's threads, for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    sentences = (f"On day {number} the cat saw {7 * number} boats." for number in range(200))
    path.write_text("\n\n".join(sentences))
    return path


def test_the_floor_worked_out_by_hand():
    """Class 0 was seen twice and class 1 once; with one more of each of 3: 3/6, 2/6 and 1/6.

    Two passages. The first has the targets 0 and 2, of weights 1 and 2; the second one target 1 of
    weight 1, and one of weight 0, which counts.
    """
    found = family.HeldOut()
    target = torch.tensor([[0, IGNORE, 2]])
    found.add(row_of([0.5, 1.0], target, torch.tensor([[1.0, 0.0, 2.0]])), 1)
    found.add(row_of([0.25], torch.tensor([[1, 0]]), torch.tensor([[1.0, 0.0]])), 1)
    row = found.against(torch.tensor([2.0, 1.0]))
    floors = math.log(2) + 2 * math.log(6), math.log(3)
    assert row["targets"] == 4
    close(row["loss"], (0.5 + 2.0 + 0.25) / 4, 8)
    close(row["floor"], sum(floors) / 4, 8)
    close(row["below"], row["floor"] - row["loss"], 16, size=row["floor"])
    apart = abs((floors[0] - 2.5) - (floors[1] - 0.25)) / math.sqrt(2)  # standard deviation of two
    close(row["error"], apart * math.sqrt(2) / 4, 16, size=row["floor"])


def test_clearly_is_five_percent_and_four_errors():
    row = {"floor": 2.0, "below": 0.11, "error": 0.01}
    assert family.clearly(row)
    assert not family.clearly(row | {"below": 0.1}) and not family.clearly(row | {"error": 0.03})


def test_a_training_is_counted_as_it_went(text, monkeypatch):
    """Floor and loss from batches that are made anew, and from an evaluation of its own."""
    made = []
    monkeypatch.setattr(family, "build", lambda *a, **k: made.append(build(*a, **k)) or made[-1])
    options = family.read_options(
        ["--quick", "--corpus", str(text), "--steps", "3", "--passages", "9", "--threads", "1"]
    )
    (row,) = family.measure("causal-lm", "gpt2", options)
    assert row.keys() == KEYS and row["role"] == "decoder" and row["head"] == "tokens"
    trainer, held_out = made[0].trainer, made[0].held_out["held out"]
    objective = trainer.objective
    found = evaluate(trainer.model, objective, held_out, 9).losses["tokens"]
    assert row["targets"] == found.count
    close(row["loss"], float(found.mean), 100)

    config = RunConfig(
        "causal-lm", text=Text((str(text),)), vocabulary=Vocabulary(512), length=Length(3)
    )
    again = build(config, quiet=True).trainer  # the same text, order and tokenizer
    passages, draws = again.stream.passages(0, 3 * again.settings.batch_size)
    targets = again.objective.batch(passages, draws).targets["tokens"]
    often = Counter(targets[targets != IGNORE].tolist())
    seen: list[int] = []
    real = again.objective.batch

    def listening(*given):
        batch = real(*given)
        seen.extend(batch.targets["tokens"][batch.targets["tokens"] != IGNORE].tolist())
        return batch

    again.objective.batch = listening
    evaluate(trainer.model, again.objective, held_out, 9)
    classes = 1 + max(*often, *seen)
    total = often.total() + classes
    floor = -sum(math.log((often[token] + 1) / total) for token in seen) / len(seen)
    close(row["floor"], floor, 4 * len(seen))


def test_every_role_of_every_objective_is_trained():
    found = family.trainings(family.read_options([]).objectives)
    able = {kind.ROLE for kind in models.known().values()}
    expected = {
        (name, role)
        for name, kind in objectives.known().items()
        for role in able.intersection(kind.roles)
    }
    assert {(name, models.known()[model].ROLE) for name, model in found} == expected
    assert len(found) == len(expected)


def test_the_table_and_the_file(text, tmp_path, capsys):
    path = tmp_path / "rows.json"
    words = ["--quick", "--corpus", str(text), "--steps", "2", "--threads", "1"]
    words += ["--objectives", "causal-lm", "masked-lm", "--json", str(path)]
    assert timing.run(family.main, words) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(family.__doc__.splitlines()[0] + "\n") and timing.machine(1) in shown
    rows = json.loads(path.read_text())
    assert [row["objective"] for row in rows] == ["causal-lm", "masked-lm"]
    assert all(row.keys() == KEYS for row in rows)
    assert not any(row["clearly"] for row in rows) and "clearly" in shown  # after two steps


def test_errors_are_one_line(tmp_path, capsys):
    for words, told in {
        ("--objectives", "hope"): "no objective is called 'hope'",
        ("--steps", "0"): "--steps must be at least 1",
        ("--json", str(tmp_path / "no" / "rows.json")): "rows.json",
    }.items():
        assert timing.run(family.main, list(words)) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
