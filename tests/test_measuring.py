"""One model measured by several objectives: by ``evaluate``, and on the way with ``--also``."""

import dataclasses
import hashlib
import json
import math

import pytest
import torch
from making import close, model_of, objective_of

from minicpt import checkpoint
from minicpt.batch import IGNORE
from minicpt.cli.main import main
from minicpt.comparison import measure
from minicpt.objectives.base import Objective
from minicpt.objectives.causal_lm import CausalLM
from minicpt.runs import measuring, table
from minicpt.runs.resume import resumed
from minicpt.training.evaluation import evaluate

SMALL = "--width 16 --layers 1 --num-heads 2 --window 32 --vocab-size 300 --dropout 0".split()
OFTEN = "--steps 4 --evaluate-every 2 --save-every 2 --keep 9 --evaluate-passages 6".split()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    animals = ("cat", "dog", "owl", "fox")
    path.write_text("\n\n".join(
        f"On day {day} the {animals[day % 4]} saw {day * 7} boats. It counted them. Then it"
        f" rained for {day + 2} hours."
        for day in range(60)
    ))  # fmt: skip
    return str(path)


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
    """Objective -> the folder of a run of it that shows another one."""
    folder = tmp_path_factory.mktemp("runs")
    also = {"causal-lm": "masked-diffusion", "masked-diffusion": "masked-lm"}
    for name, other in also.items():
        words = ["train", name, "--corpus", text, "--blocks", *SMALL, *OFTEN, "--batch-size", "4"]
        assert main([*words, "--also", other, "--out", str(folder / name)]) == 0
    return folder


def error_of(words, capsys):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("minicpt: error: ") and "Traceback" not in "".join(lines)
    return lines[-1]


def files(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- evaluate ----------------------------------------------------------------------------------


def test_several_objectives_each_as_it_measures_alone(trained, capsys):
    folder = trained / "causal-lm"
    before, found = files(folder), {}
    names = ["causal-lm", "masked-diffusion"]
    for some in ([*names], names[:1], names[1:]):
        words = ["evaluate", str(folder), "--json", "--objective", *some]
        assert main([*words, *["--draws", "3"] * ("masked-diffusion" in some)]) == 0
        found[tuple(some)] = json.loads(capsys.readouterr().out)
    assert files(folder) == before, "an evaluation changed the files of the run"
    both = found[tuple(names)]["held out"]
    assert list(both) == names
    for name in names:
        assert found[name,]["held out"] == both[name]  # bitwise: evaluations are deterministic
    exact, bound = (both[name]["likelihood"] for name in names)
    assert exact["kind"] == "exact" and exact["bits_per_byte"] == both["causal-lm"]["bits_per_byte"]
    assert exact["standard_error"] is None and exact["draws"] == 0
    assert bound["kind"] == "bound" and bound["draws"] == 3 and bound["standard_error"] > 0
    # Diffusion does not predict end-of-text: apart from that, both measure the same tokens.
    counts = [both[name]["targets"]["tokens"] for name in names]
    assert counts[0] - counts[1] == 6  # held-out documents


def test_the_lines_say_what_a_number_is(trained, capsys):
    words = ["evaluate", str(trained / "causal-lm"), "--objective", "causal-lm", "masked-diffusion"]
    assert main(words) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("held out, causal-lm: ") and "at most" not in first
    assert second.startswith("held out, masked-diffusion: ") and ", at most " in second
    assert "(standard error 0.0" in second and "8 draws)" in second
    assert main(["evaluate", str(trained / "masked-diffusion"), "--objective", "masked-lm"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("held out: ") and ", pseudo-likelihood " in line


def test_a_pseudo_likelihood_is_no_bits_per_byte(trained, capsys):
    words = ["evaluate", str(trained / "masked-diffusion"), "--objective", "masked-lm", "--json"]
    assert main(words) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["bits_per_byte"] is None and "no likelihood" in found["no_bits_per_byte"]
    assert found["likelihood"]["kind"] == "pseudo" and found["likelihood"]["bits_per_byte"] > 0
    assert "bits/byte" not in table.measures(found)  # so it is never gained or forgotten


def test_refused_in_one_line(trained, text, capsys, tmp_path):
    decoder = trained / "causal-lm"
    words = ["evaluate", decoder, "--objective"]
    assert "trains an encoder" in error_of([*words, "causal-lm", "masked-lm"], capsys)
    assert "no objective is called 'foo'" in error_of([*words, "foo"], capsys)
    told = error_of([*words, "causal-lm", "--draws", "3"], capsys)
    assert "--draws cannot be used here" in told
    told = error_of([*words, "masked-diffusion", "--draws", "0"], capsys)
    assert "--draws must be at least 1" in told
    told = error_of(["generate", decoder, "a", "--rounds", "3"], capsys)
    assert "--rounds cannot be used here" in told
    words = ["train", "masked-diffusion", "--corpus", text, "--out", tmp_path / "out", "--also"]
    assert "for a model of the role decoder" in error_of([*words, "causal-lm"], capsys)
    assert "is the objective of the run" in error_of([*words, "masked-diffusion"], capsys)
    assert "no objective is called 'foo'" in error_of([*words, "foo"], capsys)
    words = ["train", "causal-lm", "--init", decoder, "--corpus", text, "--also", "masked-lm"]
    told = error_of(words, capsys)
    assert "of the role decoder; use " in told and "masked-diffusion" in told.split("use ")[1]


def test_parts_that_were_not_trained_are_refused(trained, monkeypatch, capsys):
    kind = objective_of("masked-diffusion", checkpoint.load(trained / "causal-lm").tokenizer)
    parts = lambda self, model: torch.nn.ModuleDict({"more": torch.nn.Linear(2, 2)})  # noqa: E731
    monkeypatch.setattr(type(kind), "parts", parts)
    words = ["evaluate", trained / "causal-lm", "--objective", "causal-lm", "masked-diffusion"]
    told = error_of(words, capsys)
    assert "needs parts that are trained with the model (more)" in told


# --- train --also ------------------------------------------------------------------------------


def test_also_shows_what_evaluate_gives(trained, capsys):
    """At every evaluation: in the table's row, in the history, and in metrics.jsonl."""
    folder = trained / "causal-lm"
    entries = checkpoint.load(folder).record["evaluations"]
    assert [entry["step"] for entry in entries] == [0, 2, 4]
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    logged = [line for line in lines if line["kind"] == "evaluation"]
    for entry, line in zip(entries, logged, strict=True):
        assert line["also"] == entry["also"]
        assert entry["also"].keys() == {"masked-diffusion"}
        assert "| masked-diffusion: held out" in table.row(entry)
        assert "at most" in table.row(entry)
    words = ["evaluate", str(folder), "--objective", "masked-diffusion", "--draws", "1"]
    assert main([*words, "--passages", "6", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["held out"]
    assert found == entries[-1]["also"]["masked-diffusion"]["held out"]


def test_also_changes_nothing_of_the_training_and_goes_on(trained, text, tmp_path, capsys):
    plain = ["train", "causal-lm", "--corpus", text, "--blocks", *SMALL, *OFTEN]
    assert main([*plain, "--batch-size", "4", "--out", str(tmp_path / "plain")]) == 0
    watched, alone = (checkpoint.load(x) for x in (trained / "causal-lm", tmp_path / "plain"))
    for name, value in watched.model.state_dict().items():
        assert torch.equal(value, alone.model.state_dict()[name])
    run = resumed(trained / "causal-lm" / "step-00000002", quiet=True)
    assert run.go() == 0
    assert run.history == watched.record["evaluations"]


def test_the_window_is_that_of_the_run(trained):
    base = checkpoint.load(trained / "causal-lm")
    own = objective_of("causal-lm", base.tokenizer, window=20)
    found = measuring.beside(["masked-diffusion"], own, base.model)
    assert found["masked-diffusion"].length == 20
    assert found["masked-diffusion"].tokenizer is base.tokenizer


# --- a likelihood of a part of the text --------------------------------------------------------


class Behind(CausalLM):
    """Predicts nothing of the first half of a window: as prefix-lm, without its pattern."""

    whole_text = False

    def batch(self, passages, draws):
        batch = super().batch(passages, draws)
        target = batch.targets["tokens"].clone()
        for row, passage in zip(target, passages, strict=True):
            row[: len(passage.tokens) // 2] = IGNORE
        return dataclasses.replace(batch, targets={"tokens": target})

    def places(self, passage):
        """More than there are positions: the last ones count."""
        return torch.cat([torch.tensor([0, 1]), super().places(passage)])


def test_an_exact_likelihood_behind_a_prefix(tokenizer, corpus):
    """Its bytes are those of the tokens that are predicted, and of no others."""
    objective = Behind(tokenizer, CausalLM.Settings(window=24))
    model = model_of(objective).double()
    found = evaluate(model, objective, corpus, batch_size=3)
    nats, size = 0.0, 0
    for passage in objective.plan(corpus, 0, 0):
        batch = objective.batch([passage], [None])
        with torch.no_grad():
            logits = model.heads["tokens"](model(**batch.inputs)[0]).log_softmax(-1)
        read = [*([objective.end] if passage.first else []), *passage.tokens.tolist()]
        following = [objective.end if passage.last else passage.following]
        numbers = range(passage.start - passage.first, passage.start + len(passage.tokens))
        for place, (token, number) in enumerate(zip([*read[1:], *following], numbers, strict=True)):
            text = not (passage.last and place == len(read) - 1)
            if place >= len(passage.tokens) // 2 and text:
                nats -= float(logits[place, token])
                size += int(corpus.bytes[number + 2] - corpus.bytes[number + 1])
    assert found.text_bytes == size and found.likelihood == "exact"
    close(found.text_nats, nats, model, batch)
    close(found.bits_per_byte, nats / math.log(2) / size, model, batch)


@pytest.mark.parametrize("name", ["masked-diffusion", "masked-lm"])
def test_tokens_that_hide_their_text_are_counted_as_hidden(name, tokenizer, corpus):
    """An unknown token is special, so nobody predicts it: its bytes are still bytes of the text."""
    tokens, place = corpus.tokens.clone(), 5
    tokens[place] = tokenizer.need("sep")
    broken = dataclasses.replace(corpus, tokens=tokens, unknown=torch.tensor([place]))
    objective = objective_of(name, tokenizer, window=24)
    found = evaluate(model_of(objective), objective, broken, draws=1)
    assert found.text_bytes == int(corpus.bytes[-1])
    assert found.hidden_bytes == int(corpus.bytes[place + 1] - corpus.bytes[place]) > 0


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_a_comparison_measures_the_bound_in_bits(role, tokenizer, corpus):
    objective = objective_of("masked-diffusion", tokenizer, role, window=24)
    model = model_of(objective, model={"encoder": "", "decoder": "gpt2"}[role])
    assert measure.in_bits(objective, [corpus])
    found = measure.measure(model, objective, corpus, 9, bits=True)
    expected = evaluate(model, objective, corpus, 9)
    close(measure.loss(found), expected.bits_per_byte, 9 * 24)
    close(measure.loss(measure.measure(model, objective, corpus, 9, False)), expected.total, 9 * 24)


def test_an_objective_may_say_nothing_of_likelihoods(tokenizer, corpus):
    assert Objective.likelihood == ""
    objective = objective_of("reconstruction", tokenizer)
    found = evaluate(model_of(objective), objective, corpus, passages=3)
    assert found.bits_per_byte is not None and found.common is None
