"""``minicpt compare`` as its users meet it, at tiny sizes."""

import json
import shutil
import signal
import sys

import pytest

import minicpt
from minicpt import objectives, remedies
from minicpt.checkpoint import folder as checkpoint
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.comparison.work import Work
from minicpt.training.trainer import Trainer

SIZES = "--width 16 --layers 1 --window 24 --vocab-size 280 --batch-size 4 --steps 2 --base-steps 3"
SIZES += " --seeds 2 --evaluate-passages 12 --probe-passages 8 --lora 2 --l2 1"
WORDS = ["compare", *SIZES.split()]
ONE = ["--objectives", "causal-lm", "--remedies", "replay", "control"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """An old and a new text, each of two folders of twenty files."""
    folder = tmp_path_factory.mktemp("text")
    words = {"old": ("cat dog owl fox", "rain wind snow sun"), "new": ("x = y", "def f ( z )")}
    for side, kinds in words.items():
        for kind, text in enumerate(kinds):
            for number in range(20):
                tokens = text.split() * 8
                turned = tokens[number % 4 :] + [str(number * 37)]
                path = folder / side / f"part{kind}" / f"{number}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                sentence = " ".join(turned[:9]).capitalize()
                path.write_text(f"{sentence} {side}. {' '.join(turned)}. Then {number}.\n")
    return ["--old-corpus", str(folder / "old"), "--corpus", str(folder / "new")]


@pytest.fixture
def counted(monkeypatch):
    """The names of the parts that are done."""
    names = []
    do = Work.do

    def counting(self, part, watch):
        names.append(part.name)
        return do(self, part, watch)

    monkeypatch.setattr(Work, "do", counting)
    return names


def error_of(words, capsys):
    assert main(words) == 2
    output = capsys.readouterr().err
    errors = [line for line in output.splitlines() if line.startswith("minicpt: error: ")]
    assert len(errors) == 1 and "Traceback" not in output
    return errors[0]


def test_everything_once_and_its_json(sources, tmp_path, capsys, counted):
    out, picture = tmp_path / "out", tmp_path / "front.png"
    words = [*WORDS, *sources, "--out", str(out), "--json"]
    pytest.importorskip("matplotlib")
    assert main([*words, "--quick", "--plot", str(picture)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(counted) == 3 + 2 * (7 + 2) and len(set(counted)) == len(counted)
    assert len(list((out / "parts").glob("*.json"))) == len(counted)
    rows = {(row["objective"], row["arm"]): row for row in result["rows"]}
    arms = ["nothing", "replay", "self-replay", "kl", "l2", "lora", "control"]
    others = ["masked-lm", "reconstruction"]
    assert list(rows) == [("causal-lm", arm) for arm in arms] + [(n, "nothing") for n in others]
    for (name, arm), row in rows.items():
        assert row["seeds"] == 2
        assert row["unit"] == (
            "bits/byte" if name in ("causal-lm", "reconstruction") else "nats/target"
        )
        for side, sign in (("new", "gained"), ("old", "forgotten")):
            change = row["after"][side] - row["before"][side]
            estimate = row[sign]
            expected = -change if side == "new" else change
            assert estimate["value"] == pytest.approx(expected, abs=1e-9)
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
            shares = row["probe"][side]
            assert list(shares) == ["4", "8", *["tuned"] * (arm == "nothing")]
            assert all(0 <= each["value"] <= 1 for each in shares.values())
        assert (row["spared"] is None) == (arm == "nothing")
    assert {base["role"] for base in result["bases"]} == {
        "decoder", "encoder", "encoder-decoder"
    }  # fmt: skip
    assert all(0.5 <= each < 0.7 for each in result["bases"][0]["majority"].values())
    assert "nothing" in result["front"]["causal-lm"] or result["front"]["causal-lm"]
    assert result["sentences"][-1].startswith("Advice for causal-lm:")
    assert result["settings"]["steps"] == 2 and "torch" in result["versions"]
    base = checkpoint.load(out / "bases" / "decoder-0")
    assert base.record["config"]["objective"] == "causal-lm" and base.record["step"] == 3
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    del counted[:]
    assert main([*words, "--quick"]) == 0  # nothing is left to do, and the numbers are the same
    again = json.loads(capsys.readouterr().out)
    assert counted == [] and again == result
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == before


@pytest.fixture(scope="module")
def finished(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    assert main([*WORDS, *sources, *ONE, "--out", str(out)]) == 0
    return out


def measured(folder):
    """The losses of every part."""
    paths = sorted((folder / "parts").glob("*.json"))
    return {path.name: json.loads(path.read_text())["result"]["losses"] for path in paths}


def test_bases_are_trained_for_every_seed(finished):
    names = {path.name for path in (finished / "bases").iterdir()}
    assert names == {"decoder-0", "decoder-1"}


def test_it_repeats(finished, sources, tmp_path):
    assert main([*WORDS, *sources, *ONE, "--out", str(tmp_path / "out")]) == 0
    assert measured(tmp_path / "out") == measured(finished)


def test_a_notebook_calls_it_as_a_function(finished, sources, tmp_path, capsys, counted):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    given = dict(zip(WORDS[1::2], WORDS[2::2], strict=True))
    settings = {name[2:].replace("-", "_"): int(value) for name, value in given.items()}
    settings |= {"old_corpus": sources[1], "corpus": [sources[3]], "out": str(out)}
    asked = {"objectives": "causal-lm", "remedies": ["replay", "control"]}
    result = minicpt.compare(tell=lambda line: None, **settings, **asked)
    assert counted == [] and capsys.readouterr().out == ""
    assert [row.arm for row in result.rows] == ["nothing", "replay", "control"]
    assert "causal-lm, in bits/byte" in str(result) and result.plain()["out"] == str(out)
    with pytest.raises(InputError, match="no setting called 'sedes'"):
        minicpt.compare(sedes=3)


def test_lost_parts_are_done_again_and_no_others(finished, sources, tmp_path, counted):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (out / "parts" / "causal-lm.replay.1.json").unlink()
    (out / "parts" / "base.decoder.1.json").unlink()  # its checkpoint is there: only measured
    assert main([*WORDS, *sources, *ONE, "--out", str(out)]) == 0
    assert counted == ["base.decoder.1", "causal-lm.replay.1"]
    assert measured(out) == measured(finished)


def test_more_seeds_add_to_what_is_done(finished, sources, tmp_path, counted, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    assert main([*WORDS, *sources, *ONE, "--out", str(out), "--seeds", "3"]) == 0
    assert len(counted) == 4 and all(name.endswith(".2") for name in counted)
    assert "8 of 12 parts done" in capsys.readouterr().out


def test_another_remedy_adds_to_what_is_done(finished, sources, tmp_path, counted):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    words = [*WORDS, *sources, *ONE, "ewc", "freeze", "--seeds", "1", "--ewc-passages", "4"]
    assert main([*words, "--out", str(out)]) == 0
    assert counted == ["causal-lm.ewc.0", "causal-lm.freeze.0"]


def test_another_setting_in_the_same_folder_is_refused(finished, sources, capsys, counted):
    words = [*WORDS, *sources, *ONE, "--out", str(finished)]
    assert "'replay_fraction': 0.5" in error_of([*words, "--replay-fraction", "0.5"], capsys)
    assert "steps 2, and this one has 5" in error_of([*words, "--steps", "5"], capsys)
    assert "texts" in error_of([*words, "--old-corpus", __file__], capsys)
    assert counted == []


def test_a_base_that_is_given(finished, sources, tmp_path, capsys):
    base = finished / "bases" / "decoder-0"
    out = tmp_path / "out"
    sizes = "--window 24 --batch-size 4 --steps 2 --seeds 1 --evaluate-passages 12"
    words = ["compare", *sizes.split(), *sources[2:], "--init", str(base), "--out", str(out)]
    assert main([*words, "--remedies", "replay"]) == 0
    output = capsys.readouterr().out
    assert "causal-lm, in bits/byte" in output and "masked-lm" not in output
    assert not (out / "bases").exists()
    first, second = (measured(folder)["causal-lm.nothing.0.json"] for folder in (out, finished))
    assert first == second  # the same base, text, budget and seed
    assert "--width" in error_of([*words, "--width", "8"], capsys)
    assert "masked-lm trains an encoder" in error_of([*words, "--objectives", "masked-lm"], capsys)
    assert "nowhere is not a folder" in error_of([*words, "--init", "nowhere"], capsys)


def test_the_output_fits_a_narrow_terminal(finished, sources, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert main([*WORDS, *sources, *ONE, "--out", str(finished)]) == 0
    output = capsys.readouterr().out
    shown = output[output.index("causal-lm, in bits/byte") :]
    assert max(map(len, shown.splitlines())) < 40 and shown.isascii()
    assert "    gained " in shown and "replay 5 %" in shown


@pytest.mark.parametrize(
    "words, message",
    [
        (["--objectives", "sorting"], "no objective is called 'sorting'"),
        (["--objectives", "causal-lm", "causal-lm"], "twice"),
        (["--remedies", "hope"], "no remedy is called 'hope'"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--replay-fraction", "1"], "--replay-fraction must be less than 1"),
        (["--lora", "17"], "--lora 17"),
        (["--train-last", "2"], "--train-last is 2, but the model has 1 layers"),
        (["--kl", "0"], "--kl 0.0 leaves kl out"),
        (["--width", "18"], "--num-heads 4 does not divide --width 18"),
        (["--held-out", "0"], "--held-out must be more than 0"),
        (["--corpus", "nowhere.txt"], "no such file"),
        (["--out", __file__], "is a file"),
        (["--plot", "no/folder/x.png"], "cannot write"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(words, message, sources, tmp_path, capsys, counted):
    out = ["--out", str(tmp_path / "out")]
    assert message in error_of([*WORDS, *sources, *out, *words], capsys)
    assert counted == [] and not (tmp_path / "out").exists()


def test_the_new_text_must_not_be_the_old_one(sources, tmp_path, capsys):
    words = [*WORDS, *sources, "--corpus", sources[1], "--out", str(tmp_path / "out")]
    words[words.index(sources[3])] = sources[1]
    assert "the new text is the old one" in error_of(words, capsys)


def test_a_comparison_that_is_interrupted_goes_on(
    sources, finished, tmp_path, capsys, counted, monkeypatch
):
    """Ctrl-C within the third part: status 130, two parts stay, the same command ends the same."""
    words = [*WORDS, *sources, *ONE, "--out", str(tmp_path / "out")]
    advance = Trainer.advance

    def interrupted(self):
        if counted[2:]:
            signal.raise_signal(signal.SIGINT)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        assert main(words) == 130
    said = capsys.readouterr().err
    assert "SIGINT: 2 of 8 parts are done" in said and "the same command goes on" in said
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 2
    done = counted[:2]
    del counted[:]
    assert main(words) == 0
    assert len(counted) == 6 and not set(counted) & set(done)
    assert measured(tmp_path / "out") == measured(finished)


# --- names that look like messages


NAMES = ("a, token {}.txt", "x, from character {}", "y:{}", "z, block {}")


def test_files_may_be_called_as_messages_call_their_parts(tmp_path, capsys):
    """Where a passage stands is read from its fields, and not from its name."""
    for side, words in (("old", "the cat sat on a mat"), ("new", "def f of x is y")):
        for folder in "pq":
            (tmp_path / side / folder).mkdir(parents=True)
            for name in (each.format(number) for each in NAMES for number in range(10)):
                turned = " ".join(f"{word} {hash_of(name + folder)}" for word in words.split())
                text = f"{side} {turned}. {folder} again {name}.\n"
                (tmp_path / side / folder / name).write_text(text)
    texts = ["--old-corpus", str(tmp_path / "old"), "--corpus", str(tmp_path / "new")]
    words = [*WORDS, *texts, *ONE, "--seeds", "1", "--out", str(tmp_path / "out")]
    assert main([*words, "--evaluate-passages", "1000", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    for parts in result["bases"][0]["parts"].values():
        assert sorted(parts) == ["p", "q"]
    part = tmp_path / "out" / "parts" / "causal-lm.nothing.0.json"
    losses = json.loads(part.read_text())["result"]["losses"]["causal-lm"]
    for side, each in losses.items():
        assert 12 <= len(each["units"]) <= 20  # of 80 documents, about a fifth is held out
        files = [tmp_path / side / unit.split(f"/{side}/")[1] for unit in each["units"]]
        assert all(file.is_file() for file in files)


def hash_of(name):
    return sum(map(ord, name)) * 7919 % 1000


# --- new files are found


TOY_OBJECTIVE = """
from dataclasses import dataclass

from minicpt.batch import IGNORE, Batch, pad, padding
from minicpt.common.settings import Checked, setting
from minicpt.objectives.base import Objective


@dataclass(frozen=True)
class Settings(Checked):
    window: int = setting(32, "the most tokens read at once", least=2)


class Copy(Objective):
    roles = ("encoder",)
    Settings = Settings

    def batch(self, passages, draws):
        rows = [passage.tokens for passage in passages]
        inputs = {"tokens": pad(rows, 0), "mask": padding(rows)}
        return Batch(inputs, {"tokens": pad(rows, IGNORE)})
"""
TOY_REMEDY = """
from dataclasses import dataclass

from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy


@dataclass(frozen=True)
class Settings(Checked):
    shrink: float = setting(0.0, "pull all weights toward 0", least=0)


class Shrink(Remedy):
    Settings = Settings
    measured = {"shrink": 0.5}

    def on_weights(self, model):
        return self.settings.shrink * sum(each.square().sum() for each in model.parameters())
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """An objective ``copy_toy`` and a remedy ``shrink``, each one new file."""
    for package, name, text in (
        (objectives, "copy_toy", TOY_OBJECTIVE),
        (remedies, "shrink", TOY_REMEDY),
    ):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    yield
    for name in ("minicpt.objectives.copy_toy", "minicpt.remedies.shrink"):
        sys.modules.pop(name, None)
    for package, name in ((objectives, "copy_toy"), (remedies, "shrink")):
        if hasattr(package, name):
            delattr(package, name)


def test_a_new_objective_and_a_new_remedy_are_compared(toys, sources, tmp_path, capsys):
    out = tmp_path / "out"
    words = [*WORDS, *sources, "--seeds", "1", "--shrink", "0.25", "--out", str(out)]
    assert main([*words, "--objectives", "copy-toy", "--remedies", "shrink", "lora", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["arm"] for row in result["rows"]] == ["nothing", "lora", "shrink"]
    assert {row["objective"] for row in result["rows"]} == {"copy-toy"}
    assert result["settings"]["remedies"]["shrink"] == {"shrink": 0.25}
    assert [base["role"] for base in result["bases"]] == ["encoder"]
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--shrink X pull all weights toward 0 (default: 0.5)" in shown
