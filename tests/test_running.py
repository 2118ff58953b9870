"""What a run says of itself: gained and forgotten in its table, every step in metrics.jsonl."""

import json
import math
import os
import re
import signal
from pathlib import Path

import pytest

from minicpt import checkpoint
from minicpt.cli.main import main
from minicpt.runs import metrics, table
from minicpt.training.trainer import Trainer

SMALL = "--width 16 --layers 1 --num-heads 2 --vocab-size 300 --window 32".split()
OFTEN = ["--batch-size", "4", "--evaluate-passages", "6", "--evaluate-every", "2"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """An old and a new text, whose held-out parts have many more passages than are evaluated."""
    folder = tmp_path_factory.mktemp("text")
    old = (f"On day {n} the owl saw {n + 3} boats, {n} at noon. It rained.\n\n" for n in range(300))
    new = (f"Ship {n} of {n * 7} sank. Nobody swam in {n + 900}.\n\n" for n in range(300))
    (folder / "old.txt").write_text("".join(old))
    (folder / "new.txt").write_text("".join(new))
    return {name: str(folder / f"{name}.txt") for name in ("old", "new")}


@pytest.fixture(scope="module")
def bases(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    for name in ("causal-lm", "masked-lm"):
        words = ["train", name, "--corpus", texts["old"], "--blocks", "--steps", "2", *OFTEN]
        assert main([*words, *SMALL, "--out", str(folder / name)]) == 0
    return folder


def continuing(bases, texts, out, *flags, name="causal-lm"):
    words = ["train", name, "--init", str(bases / name), "--corpus", texts["new"], "--blocks"]
    return [*words, "--steps", "6", *OFTEN, "--out", str(out), *flags]


def stopping(monkeypatch, step, number=signal.SIGTERM):
    """Has a run get a signal within one of its steps."""
    advance = Trainer.advance

    def stopped(self):
        if self.step == step - 1:
            os.kill(os.getpid(), number)
        return advance(self)

    monkeypatch.setattr(Trainer, "advance", stopped)


# --- gained and forgotten


def test_a_run_that_changes_nothing_shows_the_same_numbers_in_every_row(
    bases, texts, tmp_path, capsys
):
    out = tmp_path / "out"
    assert main(continuing(bases, texts, out, "--learning-rate", "1e-30")) == 0
    rows = re.findall(r"^ +\d+ \|.*(held out .*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == 4 and len(set(rows)) == 1
    assert "gained +0.0000 bits/byte" in rows[0] and "forgotten +0.0000 bits/byte" in rows[0]
    # There are more passages than that, and the verb takes them all.
    last = checkpoint.load(out).record["evaluations"][-1]
    assert main(["evaluate", str(out), "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    for name in ("held out", "old text"):
        assert whole[name]["targets"]["tokens"] > 2 * last[name]["targets"]["tokens"]


@pytest.mark.parametrize("name, unit", [("causal-lm", "bits/byte"), ("masked-lm", "nats/token")])
def test_gained_and_forgotten_are_differences_to_the_base(
    name, unit, bases, texts, tmp_path, capsys
):
    """Both against the base's own loss on these passages, by the verb ``evaluate``."""
    out = tmp_path / "out"
    assert main(continuing(bases, texts, out, "--learning-rate", "0.01", name=name)) == 0
    output = capsys.readouterr().out

    def loss(folder, text):
        words = ["evaluate", str(folder), "--corpus", text, "--passages", "9999", "--json"]
        assert main([*words, "--blocks"]) == 0
        (found,) = json.loads(capsys.readouterr().out).values()
        bits = found["bits_per_byte"]
        return bits if unit == "bits/byte" else found["nats_per_target"]["tokens"]

    evaluations = checkpoint.load(out).record["evaluations"]
    first, last = evaluations[0], evaluations[-1]
    for side, change, sign in (("held out", "gained", -1), ("old text", "forgotten", 1)):
        then, now = (table.measures(each[side])[unit] for each in (first, last))
        assert last[change] == {unit: pytest.approx(sign * (now - then), rel=1e-12)}
        assert f"{change} {last[change][unit]:+.4f} {unit}" in output
    # The signs are those of the whole texts, too: it has learnt the new one.
    assert last["gained"][unit] > 0 < loss(bases / name, texts["new"]) - loss(out, texts["new"])


def test_without_a_base_there_is_neither(texts, tmp_path, capsys):
    words = ["train", "causal-lm", "--corpus", texts["new"], "--steps", "2", *OFTEN, *SMALL]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "held out" in output and "gained" not in output and "forgotten" not in output


def test_a_resumed_run_holds_its_rows_against_the_same_base(
    bases, texts, tmp_path, capsys, monkeypatch
):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(continuing(bases, texts, whole)) == 0
    with monkeypatch.context() as patch:
        stopping(patch, 3)
        assert main(continuing(bases, texts, out)) == 143
    assert main(["resume", str(out)]) == 0
    expected, found = (checkpoint.load(each).record["evaluations"] for each in (whole, out))
    assert [each["gained"] for each in found] == [each["gained"] for each in expected]
    assert [each["forgotten"] for each in found] == [each["forgotten"] for each in expected]


@pytest.mark.parametrize("side, change", [("new", "gained"), ("old", "forgotten")])
def test_a_text_that_has_changed_is_not_held_against_the_old_one(
    side, change, bases, texts, tmp_path, capsys, monkeypatch
):
    own = {name: str(tmp_path / f"{name}.txt") for name in texts}
    for name, path in texts.items():
        Path(own[name]).write_text(Path(path).read_text())
    base, out = tmp_path / "base", tmp_path / "out"
    words = ["train", "causal-lm", "--corpus", own["old"], "--blocks", "--steps", "1", *SMALL]
    assert main([*words, "--out", str(base)]) == 0
    words = continuing(tmp_path, own, out)
    words[words.index("--init") + 1] = str(base)
    with monkeypatch.context() as patch:
        stopping(patch, 3)
        assert main(words) == 143
    Path(own[side]).write_text(Path(own[side]).read_text()[:-2000])
    capsys.readouterr()
    assert main(["resume", str(out), "--accept-changes"]) == 0
    output = capsys.readouterr()
    other = {"gained": "forgotten", "forgotten": "gained"}[change]
    assert f"{change} is not shown any more" in output.err and change not in output.out
    assert other in output.out and other not in output.err.replace("no forgetting", "")


# --- metrics.jsonl


def lines(folder):
    return [json.loads(line) for line in (folder / metrics.NAME).read_text().splitlines()]


def timeless(folder):
    return [
        {key: value for key, value in line.items() if "second" not in key}
        for line in lines(folder)
    ]


def test_every_step_and_every_evaluation_is_a_line(bases, texts, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(continuing(bases, texts, out, "--kl", "1", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    found = lines(out)
    order = [(line["kind"], line["step"]) for line in found]
    steps = [[("step", n), ("step", n + 1), ("evaluation", n + 1)] for n in (1, 3, 5)]
    assert order == [("evaluation", 0), *sum(steps, [])]
    for line in found:
        assert line["seconds"] > 0
        if line["kind"] == "step":
            assert line["losses"].keys() == {"tokens"} and line["terms"].keys() == {"kl"}
            assert 0 < line["learning_rate"] <= 2e-3 and line["tokens"] > 50
            assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"])
    evaluations = [line for line in found if line["kind"] == "evaluation"]
    for line, entry in zip(evaluations, result["evaluations"], strict=True):
        for name in ("held out", "old text", "gained", "forgotten"):
            assert line[name] == entry[name]
    last = next(line for line in found if (line["kind"], line["step"]) == ("step", 6))
    assert last["losses"]["tokens"] == result["evaluations"][-1]["training"]
    assert last["terms"] == result["evaluations"][-1]["terms"]


@pytest.mark.parametrize("save_every", ["2", "3"])
def test_a_run_that_was_killed_ends_with_the_lines_of_one_that_was_not(
    save_every, bases, texts, tmp_path, monkeypatch
):
    """Killed in its fifth step and, as if in the midst of a write, with half a line at the end."""

    class Killed(BaseException):
        pass

    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(continuing(bases, texts, whole, "--save-every", save_every)) == 0
    advance = Trainer.advance

    def killed(self):
        if self.step == 4:
            raise Killed
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", killed)
        with pytest.raises(Killed):
            main(continuing(bases, texts, out, "--save-every", save_every))
    assert lines(out)[-1]["step"] == 4
    with open(out / metrics.NAME, "ab") as file:
        file.write(b'{"kind": "step", "st')
    assert main(["resume", str(out)]) == 0
    assert timeless(out) == timeless(whole)
    assert main(["resume", str(out)]) == 0  # nothing to do
    assert timeless(out) == timeless(whole)


def test_an_evaluation_that_was_interrupted_is_there_once(bases, texts, tmp_path, monkeypatch):
    """Stopped within the evaluation after step 2; the next try is killed after evaluating."""
    from minicpt.runs import loop

    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(continuing(bases, texts, whole)) == 0
    real, calls = loop.evaluate, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:  # the old text, after step 2
            raise loop.Interrupted(signal.SIGTERM)
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", interrupted)
        assert main(continuing(bases, texts, out)) == 143

    class Killed(BaseException):
        pass

    def killed(self):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", killed)
        with pytest.raises(Killed):
            main(["resume", str(out)])
    assert timeless(out)[-1]["kind"] == "evaluation" and timeless(out)[-1]["step"] == 2
    assert main(["resume", str(out)]) == 0
    assert timeless(out) == timeless(whole)


def test_a_folder_with_nothing_but_the_lines_of_a_killed_run_can_be_used(texts, tmp_path, capsys):
    words = ["train", "causal-lm", "--corpus", texts["new"], "--steps", "1", *OFTEN, *SMALL]
    for content in (b"", b'{"kind"', b'{"kind": "evaluation", "step": 0}\n'):
        out = tmp_path / f"out-{len(content)}"
        out.mkdir()
        (out / metrics.NAME).write_bytes(content)
        assert main([*words, "--out", str(out)]) == 0
        assert [line["step"] for line in lines(out)] == [0, 1, 1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / metrics.NAME).write_text("mine")
    assert main([*words, "--out", str(tmp_path / "other")]) == 2
    assert (tmp_path / "other" / metrics.NAME).read_text() == "mine"
    before = lines(out)
    assert main([*words, "--out", str(out)]) == 2 and lines(out) == before


def test_a_run_that_fails_at_its_first_step_leaves_nothing(texts, tmp_path, monkeypatch, capsys):
    from minicpt.training import trainer

    real = trainer.Learner.forward

    def poisoned(*arguments, **options):
        loss = real(*arguments, **options)[""]["tokens"]
        return {"": {"tokens": trainer.Loss(loss.sum * math.nan, loss.count)}}

    monkeypatch.setattr(trainer.Learner, "forward", poisoned)
    out = tmp_path / "out"
    words = ["train", "causal-lm", "--corpus", texts["new"], "--steps", "9", *OFTEN, *SMALL]
    assert main([*words, "--out", str(out)]) == 1
    assert not out.exists()


def test_a_file_that_cannot_be_written_does_not_stop_the_training(
    texts, tmp_path, capsys, monkeypatch
):
    words = ["train", "causal-lm", "--corpus", texts["new"], "--steps", "6", *OFTEN, *SMALL]
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stopping(patch, 3)
        assert main([*words, "--out", str(out)]) == 143
    (out / metrics.NAME).unlink()
    (out / metrics.NAME).mkdir()  # nothing can be written to a folder
    assert main(["resume", str(out)]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if metrics.NAME in line]
    assert len(said) == 1 and "cannot be written" in said[0] and "going on without it" in said[0]
    assert checkpoint.load(out).record["step"] == 6


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_disk_that_is_full_in_the_midst_of_a_line_is_said_once(tmp_path):
    said = []
    with metrics.Metrics(tmp_path, 3, 2, said.append) as some:
        some.file.close()
        some.file = open("/dev/full", "ab", buffering=0)
        for step in (4, 5):
            some.add("step", step, losses={})
    assert len(said) == 1 and "No space left" in said[0]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    with metrics.Metrics(tmp_path, 0, -1, print) as some:
        some.add("step", 1, losses={"tokens": math.inf}, terms={"kl": math.nan})
        (line,) = (tmp_path / metrics.NAME).read_text().splitlines()  # at once, not at the end
    assert line == '{"kind": "step", "step": 1, "losses": {"tokens": null}, "terms": {"kl": null}}'


def test_the_help_says_what_is_logged(capsys):
    for words in (["train", "--help"], ["train", "masked-lm", "--help"]):
        with pytest.raises(SystemExit):
            main(words)
        output = capsys.readouterr().out
        assert "every step and every evaluation is a line of metrics.jsonl" in output
