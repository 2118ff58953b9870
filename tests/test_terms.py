"""Staying near the base, and longer runs, as users of the command line meet them."""

import json
import shutil

import pytest
import torch

from minicpt import checkpoint
from minicpt.batch import Batch
from minicpt.cli.main import main
from minicpt.data.order import Plan
from minicpt.models.gpt2 import GPT2, GPT2Config
from minicpt.remedies import ewc
from minicpt.remedies.base import Situation
from minicpt.runs.fitting import objective_of
from minicpt.runs.texts import OldText, old_texts, recorded_texts

SMALL = "--width 16 --layers 1 --num-heads 2 --vocab-size 300 --window 32".split()
FEW = ["--batch-size", "4", "--evaluate-passages", "4"]
NEAR = ["--kl", "0.5", "--l2", "0.1", "--ewc", "2", "--ewc-passages", "5"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """An old text and a new one."""
    folder = tmp_path_factory.mktemp("texts")
    for name, sentence in (("old", "On day {} the cat saw boats."), ("new", "x{} = y + 1; z.")):
        lines = (sentence.format(number) for number in range(100))
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def base(texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("base") / "out"
    words = ["train", "causal-lm", "--corpus", str(texts / "old.txt"), "--steps", "4"]
    assert main([*words, "--out", str(out), *SMALL, *FEW]) == 0
    return out


def error_of(words, capsys):
    """The one line of a refused command, which must have status 2."""
    assert main(words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert len(errors) == 1
    return errors[0]


def last_weights(folder):
    return torch.load(checkpoint.find(folder)[0] / "pytorch_model.bin", weights_only=True)


def same_weights(one, other):
    one, other = last_weights(one), last_weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def continuing(base, texts, out, *more):
    words = ["train", "causal-lm", "--corpus", str(texts / "new.txt"), "--init", str(base)]
    return [*words, "--steps", "4", "--out", str(out), *FEW, *more]


def test_each_term_is_reported_by_itself_and_resuming_needs_no_base(base, texts, tmp_path, capsys):
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    whole = tmp_path / "whole"
    words = continuing(folder, texts, whole, *NEAR, "--save-every", "2", "--evaluate-every", "2")
    assert main(words) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "| training" in line]
    assert len(lines) == 2 and all(
        f", {name} 0." in line for line in lines for name in ("kl", "l2", "ewc")
    )
    record = checkpoint.load(whole).record
    assert record["config"]["remedies"] == {
        "ewc": {"ewc": 2.0, "ewc_passages": 5},
        "kl": {"kl": 0.5},
        "l2": {"l2": 0.1},
    }
    first, _, last = record["evaluations"]
    assert first["terms"] == {} and set(last["terms"]) == {"ewc", "kl", "l2"}
    assert all(0 < value < 1 for value in last["terms"].values())
    # From the middle on, in a folder where nothing but that is, without the base and its text.
    shutil.rmtree(folder)
    half = tmp_path / "half"
    shutil.copytree(whole / "step-00000002", half / "step-00000002")
    assert main(["resume", str(half)]) == 0
    assert same_weights(whole, half)
    capsys.readouterr()
    again = checkpoint.load(half).record["evaluations"][-1]
    assert again["terms"] == last["terms"] and again["training"] == last["training"]


@pytest.mark.parametrize("name, heavy", [("kl", 30), ("l2", 100), ("ewc", 10_000)])
def test_a_heavy_term_keeps_the_model_near(name, heavy, base, texts, tmp_path, capsys):
    """By the term's own measure, its weight taken out."""
    apart = []
    for weight in (1e-9, heavy):
        out = tmp_path / str(weight)
        more = [f"--{name}", str(weight), "--dropout", "0", "--steps", "12"]
        assert main(continuing(base, texts, out, *more)) == 0
        apart.append(checkpoint.load(out).record["evaluations"][-1]["terms"][name] / weight)
    capsys.readouterr()
    assert apart[1] < 0.7 * apart[0]


def test_weight_zero_is_the_run_without_the_term(base, texts, tmp_path, capsys):
    assert main(continuing(base, texts, tmp_path / "none")) == 0
    assert main(continuing(base, texts, tmp_path / "zero", "--kl", "0", "--l2", "0")) == 0
    assert same_weights(tmp_path / "none", tmp_path / "zero")
    assert checkpoint.load(tmp_path / "zero").record["config"]["remedies"] == {}


@pytest.mark.parametrize("flag", ["--kl", "--l2", "--ewc", "--ewc-passages"])
def test_without_a_base_there_is_nothing_to_stay_near(flag, texts, tmp_path, capsys):
    words = ["train", "causal-lm", "--corpus", str(texts / "new.txt"), flag, "1"]
    message = error_of([*words, "--out", str(tmp_path / "out")], capsys)
    if flag == "--ewc-passages":
        assert message.endswith("--ewc-passages belongs to --ewc, which is not given")
    else:
        assert f"{flag} cannot be used here: there is no base without --init" in message


def test_what_is_refused(base, texts, tmp_path, capsys):
    words = continuing(base, texts, tmp_path / "out")
    assert "--kl must be at least 0" in error_of([*words, "--kl", "-1"], capsys)
    assert "--l2 must be a finite number" in error_of([*words, "--l2", "nan"], capsys)
    assert "belongs to --ewc" in error_of([*words, "--ewc-passages", "9"], capsys)
    assert not (tmp_path / "out").exists()


def test_ewc_needs_old_text(base, texts, tmp_path, capsys):
    """A folder that does not say what it was trained on; then the text is named."""
    loaded = checkpoint.load(base)
    shutil.copytree(loaded.folder, tmp_path / "foreign")
    for name in ("manifest.json", "training.json", "state.pt"):
        (tmp_path / "foreign" / name).unlink()
    words = continuing(tmp_path / "foreign", texts, tmp_path / "out", "--ewc", "1")
    assert "needs the text that" in error_of(words, capsys)
    assert not (tmp_path / "out").exists()
    assert main([*words, "--old-corpus", str(texts / "old.txt"), "--ewc-passages", "2"]) == 0


def test_old_text_is_read_one_passage_at_a_time_and_repeats(base):
    loaded = checkpoint.load(base)
    objective = objective_of(loaded)
    (old,) = old_texts(loaded.record["texts"])
    (text,) = [recorded_texts(each) for each in loaded.record["texts"]]
    old_text = OldText(text, [old], objective, "", old.settings)
    situation = Situation(loaded.model, objective, 0, old_text=old_text)
    first, again = (list(ewc.old_batches(situation, 3)) for _ in range(2))
    assert [len(batch.inputs["tokens"]) for batch in first] == [1, 1, 1]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.inputs["tokens"], other.inputs["tokens"])
    everything = len(objective.plan(old_text(), 0, 0))
    assert len(list(ewc.old_batches(situation, 10**6))) == everything


def test_old_text_is_read_in_all_its_lengths():
    """Neighbours in a plan are of like length: the first few passages are not a fair sample."""
    lengths = torch.arange(100).repeat_interleave(10)

    class Lengths:
        plan = staticmethod(lambda corpus, seed, epoch: Plan(lengths[:, None], int, lengths))
        batch = staticmethod(lambda passages, draws: Batch({}, {"tokens": torch.tensor(passages)}))

    class Old:
        plans = {}

    model = GPT2(GPT2Config(vocabulary=9, positions=4, width=4, layers=1, num_heads=1))
    situation = Situation(model, Lengths, old_text=lambda sources: Old)
    found = [int(batch.targets["tokens"]) for batch in ewc.old_batches(situation, 20)]
    assert sum(found) / 20 == pytest.approx(49.5, abs=5)
    assert min(found) < 10 and max(found) > 90


# --- runs made longer


LEVEL = ["--schedule", "constant", "--warmup", "0.25"]
STABLE = ["--schedule", "warmup-stable-decay", "--warmup", "0.25", "--decay", "0.25"]


def scratch(texts, out, steps, *more):
    words = ["train", "causal-lm", "--corpus", str(texts / "old.txt"), "--steps", str(steps)]
    return [*words, "--out", str(out), "--save-every", "2", *SMALL, *FEW, *more]


def test_a_level_run_made_longer_is_the_long_run(texts, tmp_path, capsys):
    assert main(scratch(texts, tmp_path / "long", 8, *LEVEL[:2], "--warmup", "0.125")) == 0
    assert main(scratch(texts, tmp_path / "short", 4, *LEVEL)) == 0  # one step of warm-up, both
    assert main(["resume", str(tmp_path / "short"), "--steps", "8"]) == 0
    assert same_weights(tmp_path / "long", tmp_path / "short")
    record = checkpoint.load(tmp_path / "short").record
    assert record["step"] == record["steps"] == 8
    capsys.readouterr()
    assert "less than the 8" in error_of(
        ["resume", str(tmp_path / "short"), "--steps", "7"], capsys
    )
    folder = str(tmp_path / "short" / "step-00000006")
    message = error_of(["resume", folder, "--steps", "9"], capsys)
    assert "newest" in message and f"--init {folder}" in message


def test_the_stable_part_can_be_made_longer_and_the_decay_cannot(texts, tmp_path, capsys):
    """Stopped in its stable part, the run of 8 steps goes on as one of 12."""
    assert main(scratch(texts, tmp_path / "run", 8, *STABLE, "--keep", "9")) == 0
    assert "(warmup-stable-decay)" in error_of(
        ["resume", str(tmp_path / "run"), "--steps", "12"], capsys
    )
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "run" / "step-00000004", stopped / "step-00000004")
    assert main(["resume", str(stopped), "--steps", "12"]) == 0
    long = [*STABLE[:2], "--warmup", str(2 / 12), "--decay", "0.25"]
    assert main(scratch(texts, tmp_path / "long", 12, *long)) == 0
    assert same_weights(stopped, tmp_path / "long")


def test_a_falling_rate_is_not_made_longer(base, capsys):
    message = error_of(["resume", str(base), "--steps", "8"], capsys)
    assert "(cosine)" in message and "--init" in message


def test_continued_from_the_stable_part_at_the_same_rate(base, texts, tmp_path, capsys):
    words = continuing(base, texts, tmp_path / "out", *LEVEL[:2], "--warmup", "0", "--json")
    assert main(words) == 0
    settings = json.loads(capsys.readouterr().out)["config"]["training"]
    assert settings["warmup"] == 0 and settings["schedule"] == "constant"
