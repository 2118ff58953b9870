"""``compare --change``, ``--sweep`` and ``--tune-rates``: matrices, curves and chosen rates."""

import dataclasses
import json
import math
import shlex
import shutil
import signal

import pytest
import torch

from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.comparison import advice, curves, matrix, tuning
from minicpt.comparison.arms import KNOBS, compared, fits, knob, sweeps, swept
from minicpt.comparison.parts import Part, bases_of, parts, understood, ways
from minicpt.comparison.plan import Asked, Comparison
from minicpt.comparison.statistics import Interval
from minicpt.comparison.summary import rows
from minicpt.comparison.work import Work
from minicpt.objectives import known
from minicpt.training.trainer import Trainer

SIZES = "--width 16 --layers 1 --window 24 --vocab-size 280 --batch-size 4 --steps 2 --base-steps 3"
SIZES += " --seeds 2 --evaluate-passages 12"
CHANGE = ["compare", *SIZES.split(), "--change", "--objectives", "masked-lm", "next-sentence"]
CHANGE += ["replaced-token-detection"]
WORDS = {"old": "cat dog owl fox rain wind snow sun", "new": "x = y def f ( z )"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for side, words in WORDS.items():
        for number in range(30):
            tokens = words.split() * 6
            turned = " ".join([*tokens[number % 7 :], str(number * 37)])
            path = folder / side / f"{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{turned.capitalize()} {side}. {turned}. Then {number}.\n")
    return ["--old-corpus", str(folder / "old"), "--corpus", str(folder / "new")]


@pytest.fixture
def counted(monkeypatch):
    """The names of the parts that are done."""
    names, do = [], Work.do

    def counting(self, part, watch):
        names.append(part.name)
        return do(self, part, watch)

    monkeypatch.setattr(Work, "do", counting)
    return names


@pytest.fixture(scope="module")
def changed(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("changed") / "out"
    assert main([*CHANGE, *sources, "--out", str(out)]) == 0
    return out


def shown(words, capsys):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def cells(line):
    """The columns of a row that have a number."""
    return {name for name, cell in line["cells"]["new"].items() if cell}


# --- the objective changes


def test_every_base_is_continued_with_every_objective(changed, sources, capsys, counted):
    result = shown([*CHANGE, *sources, "--out", str(changed)], capsys)
    assert counted == [] and result["rows"] == [] and result["sentences"] == []
    (found,) = result["matrices"]
    words = ["masked-lm", "next-sentence", "next-sentence+masked", "replaced-token-detection"]
    assert list(found["units"]) == words
    halves = {
        "next-sentence+masked": ["masked-lm", "replaced-token-detection"],
        "masked-lm": ["next-sentence", "replaced-token-detection"],
        "replaced-token-detection": ["next-sentence", "masked-lm"],
    }
    assert [(line["base"], line["continued"]) for line in found["lines"]] == [
        (base, word)
        for base in bases_of("encoder")
        for word in (None, *words, *(f"{base}&{other}" for other in halves[base]))
    ]
    assert all(line["seeds"] == 2 for line in found["lines"])
    by_name = {(line["base"], line["continued"]): line for line in found["lines"]}
    detection = {"replaced-token-detection"}
    both = {"masked-lm", "next-sentence", "next-sentence+masked"}
    assert cells(by_name["next-sentence+masked", None]) == both
    assert cells(by_name["masked-lm", None]) == cells(by_name["masked-lm", "masked-lm"])
    assert cells(by_name["masked-lm", None]) == {"masked-lm"}  # no pair was ever seen
    assert cells(by_name["masked-lm", "next-sentence"]) == both
    assert cells(by_name["masked-lm", "replaced-token-detection"]) == {"masked-lm"} | detection
    assert cells(by_name["masked-lm", "masked-lm&next-sentence"]) == both
    # Its head "tokens" is the generator's, which the model itself never read for.
    assert cells(by_name["replaced-token-detection", None]) == detection
    assert cells(by_name["replaced-token-detection", "masked-lm"]) == {"masked-lm"} | detection
    for line in found["lines"]:
        for side in ("new", "old"):
            base = by_name[line["base"], None]["cells"][side]
            for name, cell in line["cells"][side].items():
                if not cell or not base[name] or not line["continued"]:
                    assert cell is None or cell["change"] is None
                    continue
                change = cell["level"]["value"] - base[name]["level"]["value"]
                assert cell["change"]["value"] == pytest.approx(change, abs=1e-9)


def test_a_column_has_the_generator_of_the_base_in_every_row(changed):
    name = "encoder-replaced-token-detection.replaced-token-detection.nothing.0.json"
    losses = json.loads((changed / "parts" / name).read_text())["result"]["losses"]
    own, base = (losses["replaced-token-detection" + end]["new"] for end in ("", "@base"))
    assert own["units"] == base["units"] and own["heads"] != base["heads"]


def test_a_change_that_is_killed_ends_with_the_same_table(
    changed, sources, tmp_path, capsys, counted, monkeypatch
):
    words = [*CHANGE, *sources, "--out", str(tmp_path / "out")]
    advance = Trainer.advance

    def interrupted(self):
        if counted[4:]:
            signal.raise_signal(signal.SIGINT)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        assert main(words) == 130
    done = counted[:4]
    del counted[:]
    capsys.readouterr()
    again = shown(words, capsys)
    assert not set(counted) & set(done)
    first = shown([*CHANGE, *sources, "--out", str(changed)], capsys)
    assert again["matrices"] == first["matrices"]


def test_the_text_fits_any_width(changed, sources, capsys, monkeypatch):
    for columns in ("100", "40"):
        monkeypatch.setenv("COLUMNS", columns)
        assert main([*CHANGE, *sources, "--out", str(changed)]) == 0
        output = capsys.readouterr().out
        table = output[output.index("encoders, new text") :]
        assert max(map(len, table.splitlines())) < int(columns) and table.isascii()
        assert "2 seeds." in table and "- Keep masked-lm" in table.replace("\n  ", " ")


def measured(value, unit="bits/byte"):
    heads = {"tokens": [[value * 3] * 12, [3] * 12]}
    both = {"unit": unit, "units": list(map(str, range(12))), "heads": heads}
    return {"new": both, "old": both}


def test_a_matrix_by_hand():
    """Two columns, one base and two continuations; both seeds and all units are alike."""
    losses = {None: (4.0, 5.0), "causal-lm": (3.0, 4.5), "prefix-lm": (3.25, 4.0)}
    results = {}
    for seed in range(2):
        for word, pair in losses.items():
            arm = "nothing" if word else None
            own = zip(("causal-lm", "prefix-lm"), map(measured, pair), strict=True)
            known = {"causal-lm": True, "prefix-lm": word is not None}
            part = Part("decoder", seed, word, arm, seed if word else 0)
            results[part] = {"losses": dict(own), "known": known}
    (found,) = matrix.matrices(results, {"decoder": ["causal-lm", "prefix-lm"]})
    base, kept, other = found.lines
    assert (base.base, base.continued, kept.continued, base.seeds) == (
        "causal-lm", None, "causal-lm", 2
    )  # fmt: skip
    assert base.cells["new"]["prefix-lm"] is None and base.cells["old"]["causal-lm"].change is None
    assert kept.cells["new"]["causal-lm"].change == Interval(-1.0, -1.0, -1.0)
    assert kept.cells["old"]["prefix-lm"].level.value == 4.5
    assert kept.cells["old"]["prefix-lm"].change is None  # the base had no head for it
    assert matrix.ahead(kept.cells["new"]["causal-lm"], other.cells["new"]["causal-lm"]).value == (
        0.25
    )
    own, others = matrix.sayings(found)
    assert "better than prefix-lm, the best of the others, by 0.250 [0.250, 0.250]" in own
    assert "prefix-lm by 0.500 [0.500, 0.500] bits/byte" in others
    text = matrix.shown(found, 100)
    assert "4.000" in text and "3.000 +-.000" in text and "  prefix-lm" in text


def test_all_objectives_of_all_roles_change():
    found = ways((), None)
    for role, words in found.items():
        able = {name for name, kind in known().items() if role in kind.roles}
        assert {word.partition("+")[0] for word in words} == able
        assert set(bases_of(role)) <= set(words)
    assert set(ways(("prefix-lm",), None)) == {"decoder", "encoder-decoder"}
    assert set(ways((), "encoder")) == {"encoder"}
    every = parts(Comparison(seeds=2), {}, {}, found)
    names = [part.name for part in every]
    assert len(set(names)) == len(names)
    count = 0
    for role, words in found.items():  # and half of its own with each of the others
        mains = len(bases_of(role))
        count += mains * (1 + len(words) + mains - 1)
    assert len(names) == 2 * count and "causal-lm&prefix-lm.nothing.0" in names
    assert "encoder-masked-lm.masked-lm&next-sentence.nothing.1" in names
    assert understood("next-sentence+masked") == ("next-sentence", {"masked": True})


# --- sweeps


SWEEP = ["compare", *SIZES.split(), "--sweep", "replay", "interpolation", "warmup"]


def test_a_sweep_trains_once_for_what_acts_at_the_end(sources, tmp_path, capsys, counted):
    """Interpolation is measured at all strengths on the continuation without a remedy."""
    trained, begin = [], Trainer.run

    def running(self):
        trained.append(1)
        return begin(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run", running)
        words = [*SWEEP, *sources, "--seeds", "1", "--out", str(tmp_path / "out")]
        result = shown(words, capsys)
    ends = [f"interpolation={x:g}" for x in (0.1, 0.25, 0.75, 0.9)]
    at_end = [name for name in counted if "interpolation" in name]
    assert len(at_end) == len(ends) + 1 and len(trained) == len(counted) - len(at_end)
    names = {curve["name"]: curve["arms"] for curve in result["curves"]}
    assert names["interpolation"] == [*ends[:2], "interpolation", *ends[2:]]
    assert names["replay"][:3] == ["replay=0.005", "replay=0.01", "replay"]
    by_arm = {row["arm"]: row for row in result["rows"]}
    assert by_arm["warmup=0.5"]["gained"] != by_arm["nothing"]["gained"]
    assert by_arm["replay=0.5"]["gained"] != by_arm["replay"]["gained"]
    assert result["settings"]["remedies"]["replay=0.5"]["replay_fraction"] == 0.5
    assert any("the rate rises again on the same old text" in line for line in result["shapes"])
    out = tmp_path / "out"
    part = json.loads((out / "parts" / "causal-lm.control.0.json").read_text())["result"]
    assert list(part["path"]) == ["1", "2"]
    assert part["path"]["2"]["heads"] == part["losses"]["causal-lm"]["old"]["heads"]
    (out / "parts" / "causal-lm.interpolation=0.9.0.json").unlink()
    del counted[:]
    again = shown(words, capsys)  # the continuation is trained once more, and ends the same
    assert counted == ["causal-lm.interpolation=0.9.0"]
    assert again["rows"] == result["rows"]


def test_the_strengths_of_a_sweep():
    asked = Asked.of(lora=4)
    found = swept(("kl", "lora", "warmup"), asked.strengths)
    assert found == [
        "kl=0.1", "kl", "kl=10", "kl=100", "lora=1", "lora=2", "lora", "lora=8", "lora=16",
        "warmup=0", "warmup=0.2", "warmup=0.5",
    ]  # fmt: skip
    every = swept(("all",), asked.strengths)
    assert {word.partition("=")[0] for word in every} == set(sweeps())
    for name, kind in compared().items():
        assert not kind.swept or knob(name) in kind.measured
        assert list(kind.swept) == sorted(kind.swept)
    for word in every:
        for settings in asked.remedies(word).values():
            compared()[word.partition("=")[0]].Settings(**settings)
        assert set(asked.training(word)) == {
            name.replace("-", "_") for name in KNOBS if word.startswith(name)
        }
    assert not fits("self-replay=0.5", "masked-lm", "encoder")
    with pytest.raises(InputError, match="nothing called 'hope'"):
        swept(("hope",), asked.strengths)


def result(new, old):
    losses = {"causal-lm": {"new": measured(new)["new"], "old": measured(old)["new"]}}
    return {"losses": losses, "probe": {"new": None, "old": None}}


def replayed(**changes):
    """Curves of replay: each arm's (gained, forgotten)."""
    found = {Part("decoder", 0): result(4.0, 2.0)}
    for arm, (gained, forgotten) in changes.items():
        name = arm.replace("replay", "replay=0.") if arm[-1].isdigit() else arm
        for seed in range(2):
            part = Part("decoder", 0, "causal-lm", name, seed)
            found[part] = result(4.0 - gained, 2.0 + forgotten)
    return curves.curves(rows(found), Asked.of().value)


def test_the_shape_of_replay_is_held_against_theirs():
    (curve,) = replayed(nothing=(1, 1), replay01=(1, 0.4), replay1=(1, 0.175), replay5=(0.9, 0))
    assert [row.arm for row in curve.points] == ["replay=0.01", "replay=0.1", "replay=0.5"]
    assert [row.arm for row in curve.line][0] == "nothing"
    lines = curves.sayings([curve], Asked.of().value)
    theirs = "theirs 64% with a weak shift, 55% with a strong shift"
    assert f"1.0% 60% (60% to 60%; {theirs})" in lines[0]
    assert "costs +0.100" in lines[1] and "no dose shows another shape" in lines[2]
    (curve,) = replayed(nothing=(1, 1), replay01=(1, 0.9), replay=(1, 0.95), replay5=(0.9, 0))
    said = curves.sayings([curve], Asked.of().value)[-1]
    assert "1.0% of old text spares a smaller share than theirs" in said
    assert "more replay forgets more between replay=0.01 and replay" in said
    (curve,) = replayed(nothing=(1, 1), replay=(1, 1), replay5=(0.9, 1))
    assert "no effect on the old text" in curves.sayings([curve], Asked.of().value)[0]


# --- learning rates


def test_a_rate_is_chosen_on_one_half_of_the_units():
    units = 10
    measured = {"units": list(map(str, range(units))), "heads": {}}
    values = torch.arange(units).double()
    measured["heads"]["tokens"] = [values.tolist(), [1] * units]
    half = tuning.half_loss(measured)
    all_of = float(values.mean())
    assert half != all_of
    measured["heads"]["tokens"] = [(9 - values).tolist(), [1] * units]
    assert half + tuning.half_loss(measured) == pytest.approx(9)  # the same half of the units


def test_the_best_rate_of_each_objective():
    found = tuning.trials([("decoder", "causal-lm"), ("encoder", "masked-lm")])
    assert len(found) == 2 * (1 + len(tuning.RATES)) and found[0] == Part("decoder", 0)
    best = {"causal-lm": 0.001, "masked-lm": 0.003}

    def loss(part):
        rate = float(part.arm.partition("=")[2])
        return abs(math.log(rate / best[part.objective]))

    trained = [part for part in found if part.arm]
    results = {part: {"losses": {part.objective: measured(loss(part))}} for part in trained}
    assert tuning.chosen(results, found) == {
        ("decoder", "causal-lm"): 0.001, ("encoder", "masked-lm"): 0.003
    }  # fmt: skip


def test_continuations_take_the_rate_that_was_chosen(sources, tmp_path, capsys, counted):
    rates, begin = {}, Trainer.__init__

    def beginning(self, model, objective, corpus, training, *rest, **options):
        if counted:
            rates[counted[-1]] = training.learning_rate
        begin(self, model, objective, corpus, training, *rest, **options)

    words = ["compare", *SIZES.split(), *sources, "--objectives", "causal-lm"]
    words += ["--remedies", "replay", "--tune-rates", "--seeds", "1"]
    words += ["--out", str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", beginning)
        found = shown(words, capsys)
    ((role, name, rate),) = found["settings"]["rates"]
    assert (role, name) == ("decoder", "causal-lm") and rate in tuning.RATES
    assert rates["causal-lm.replay.0"] == rates["causal-lm.nothing.0"] == rate
    assert [rates[f"causal-lm.learning-rate={x:g}.0"] for x in tuning.RATES] == [*tuning.RATES]
    assert counted[: 1 + len(tuning.RATES)] == [
        "base.decoder.0", *(f"causal-lm.learning-rate={x:g}.0" for x in tuning.RATES)
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "out" / "bases")  # all parts are done: nothing is read of it
    del counted[:]
    assert shown(words, capsys)["rows"] == found["rows"] and counted == []


# --- a user's own base


@pytest.fixture
def many(tmp_path):
    """Texts of sixty files each: enough to choose on one half and to report on the other."""
    for side, words in WORDS.items():
        for number in range(160):
            tokens = words.split() * 4
            turned = " ".join([*tokens[number % 7 :], str(number * 37)])
            path = tmp_path / side / f"{number}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{turned.capitalize()} {side} {number * 91}. Then {number}.\n")
    return ["--old-corpus", str(tmp_path / "old"), "--corpus", str(tmp_path / "new")]


def test_the_command_that_is_recommended_runs(many, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = "--width 16 --layers 1 --window 24 --vocab-size 280 --batch-size 4 --steps 4"
    words = ["train", "causal-lm", "--corpus", many[1], *sizes.split(), "--out", "base"]
    assert main(words) == 0
    sizes = "--window 24 --batch-size 4 --steps 4 --seeds 1 --evaluate-passages 100"
    words = ["compare", "--init", "base", *many[2:], *sizes.split(), "--remedies", "kl", "replay"]
    words += ["--learning-rate", "0.01"]
    capsys.readouterr()
    assert main([*words, "--out", "compared"]) == 0
    output = capsys.readouterr().out
    begin, line = output.rstrip().splitlines()[-2:]
    assert begin == "Recommended:" and line.startswith("minicpt train causal-lm --init base ")
    assert "plan " in output and "time " in output
    found = shown([*words, "--out", "compared"], capsys)
    assert found["command"] == line
    monkeypatch.setenv("COLUMNS", "30")
    assert main(shlex.split(line)[1:]) == 0
    (path,) = (tmp_path / "runs/continued").glob("step-*/training.json")
    record = json.loads(path.read_text())
    config = record["config"]
    assert config["length"]["steps"] == 4 and config["training"]["learning_rate"] == 0.01


def test_the_command_says_the_strength_of_its_remedy():
    asked = Asked.of(init="my base", corpus="notes", kl=2.0, steps=7, dtype="bfloat16")
    row = rows({Part("decoder", 0): result(4.0, 2.0)} | {
        Part("decoder", 0, "causal-lm", "nothing", 0): result(3.0, 2.0)})[0]  # fmt: skip

    def line(arm):
        return advice.recommended(dataclasses.replace(row, arm=arm), asked, 0.002)

    assert line("kl") == (
        "minicpt train causal-lm --init 'my base' --corpus notes --window 64 --learning-rate 0.002"
        " --steps 7 --batch-size 16 --kl 2.0 --dtype bfloat16 --out runs/continued"
    )
    assert "--replay base --replay-fraction 0.25" in line("replay=0.25")
    assert "--learning-rate 0.01 --steps" in line("learning-rate=0.01")
    assert "--kl" not in line("nothing")


def test_what_does_not_fit_the_memory_is_left_out():
    base = torch.nn.Linear(1000, 100, bias=False)  # 400,000 bytes
    arms = ["nothing", "kl=0.1", "lora", "replay", "control"]
    assert list(advice.too_large(arms, base, 1_800_000)) == ["kl=0.1"]
    assert list(advice.too_large(arms, base, 1_000_000)) == ["nothing", "kl=0.1", "replay"]
    assert advice.too_large(arms, base, 0) == {}
