"""Continuing with replay, LoRA and frozen parts, as users meet it; how well the vocabulary fits."""

import json
import math
import os
import signal

import pytest
import torch
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers

from minicpt import checkpoint
from minicpt.cli.main import main
from minicpt.data.documents import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.runs.config import Text
from minicpt.runs.describe import coverage
from minicpt.runs.fitting import objective_of
from minicpt.runs.texts import OldText, old_texts
from minicpt.runs.texts import texts as read_texts
from minicpt.training.trainer import Trainer

SMALL = "--width 16 --layers 2 --num-heads 2 --vocab-size 300 --window 32".split()
SMALL += ["--batch-size", "4", "--evaluate-passages", "4"]
OBJECTIVES = ["causal-lm", "masked-lm", "reconstruction"]
LINES = "On day {} the {} saw {} boats. It counted them. Then it rained.\n\n"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    animals = ["cat", "dog", "owl", "fox"] * 23
    old = "".join(LINES.format(day, animals[day], day + 3) for day in range(90))
    new = "".join(f"The {n}th ship of stone sank. Nobody swam in {n + 900}.\n\n" for n in range(80))
    (folder / "old.txt").write_text(old)
    (folder / "new.txt").write_text(new)
    return {name: str(folder / f"{name}.txt") for name in ("old", "new")}


@pytest.fixture(scope="module")
def bases(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    for name in OBJECTIVES:
        words = ["train", name, "--corpus", texts["old"], "--blocks", "--steps", "3"]
        assert main([*words, "--out", str(folder / name), *SMALL]) == 0
    return folder


def continuing_words(bases, texts, name, out, *flags):
    words = ["train", name, "--init", str(bases / name), "--corpus", texts["new"], "--blocks"]
    words += ["--steps", "6", "--batch-size", "4", "--evaluate-passages", "4", "--out", str(out)]
    return [*words, *flags]


def error_of(words, capsys):
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("minicpt: error: ")]
    assert len(errors) == 1
    return errors[0]


def last(folder):
    found = checkpoint.find(folder)[0]
    return torch.load(found / "pytorch_model.bin", weights_only=True)


CASES = [
    ("causal-lm", ["--replay", "base", "--replay-fraction", "0.25"]),
    ("masked-lm", ["--replay", "OLD", "--replay-fraction", "0.4"]),
    ("causal-lm", ["--self-replay", "0.5"]),
    ("reconstruction", ["--lora", "2", "--replay", "base"]),
    ("masked-lm", ["--freeze", "embeddings"]),
    ("reconstruction", ["--train-last", "1"]),
]


@pytest.mark.parametrize("name, flags", CASES, ids=[" ".join(flags) for _, flags in CASES])
def test_a_run_that_stopped_goes_on_bitwise(name, flags, bases, texts, tmp_path, monkeypatch):
    flags = [texts["old"] if flag == "OLD" else flag for flag in flags]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(continuing_words(bases, texts, name, whole, *flags)) == 0
    # Stopped in its third step, as by SIGTERM.
    advance = Trainer.advance

    def interrupting(trainer):
        step = advance(trainer)
        if step.number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step

    monkeypatch.setattr(Trainer, "advance", interrupting)
    assert main(continuing_words(bases, texts, name, stopped, *flags)) == 143
    monkeypatch.setattr(Trainer, "advance", advance)
    assert main(["resume", str(stopped)]) == 0
    expected, found = last(whole), last(stopped)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert any(not torch.equal(last(bases / name)[key], expected[key]) for key in expected)
    records = [checkpoint.load(each).record for each in (whole, stopped)]
    assert records[0]["read"] == records[1]["read"]
    assert records[0]["config"] == records[1]["config"]


# --- replay


def test_what_is_held_out_is_never_replayed(bases, texts, tmp_path, capsys):
    base = checkpoint.load(bases / "causal-lm")
    (old,) = old_texts(base.record["texts"])
    new = read_texts(Text(corpus=(texts["new"],), blocks=True))
    objective = objective_of(base)
    held_out = {document.text for each in (old, new) for document in each.held_out}
    assert len(held_out) > 10
    for source in ((), (texts["old"],), (texts["old"], texts["new"])):
        corpus = OldText(new, [old], objective, "", old.settings)(source)
        spans = [corpus.document(place) for place in range(len(corpus.documents))]
        replayed = {base.tokenizer.decode(corpus.tokens[slice(*span)].tolist()) for span in spans}
        assert not replayed & held_out and len(replayed) > 50


def test_errors_says_of_replayed_text_too_what_is_to_be_done(bases, texts, tmp_path, capsys):
    """The base's own text was parted with ``--errors strict``; the flag of this run counts."""
    own = tmp_path / "own.txt"
    own.write_bytes(open(texts["old"], "rb").read().replace(b"cat", b"c\xfft"))
    words = continuing_words(bases, texts, "causal-lm", tmp_path / "out", "--replay", str(own))
    assert "replace what is invalid with --errors replace" in error_of(words, capsys)
    assert main([*words, "--errors", "replace"]) == 0
    assert "U+FFFD" in capsys.readouterr().err


def test_a_changed_replayed_text_is_noticed_when_resuming(bases, texts, tmp_path, capsys):
    own, out = tmp_path / "own.txt", tmp_path / "out"
    own.write_text(open(texts["old"]).read())
    words = continuing_words(bases, texts, "masked-lm", out, "--replay", str(own))
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "remedies  replay 5 %" in shown and f"read again: {own}, " in shown
    own.write_text(own.read_text() + "And more.")
    assert "SHA-256 differs" in error_of(["resume", str(out)], capsys)


def test_the_base_writes_what_the_run_needs_and_no_more_than_allowed(
    bases, texts, tmp_path, capsys
):
    sizes = []
    for more in ([], ["--self-replay-tokens", "100"]):
        out = tmp_path / f"out-{len(more)}"
        words = continuing_words(bases, texts, "causal-lm", out, "--self-replay", "0.5", *more)
        assert main(words) == 0
        assert "remedies  self-replay 50 %" in capsys.readouterr().out
        written = checkpoint.load(out).state()["remedies"]["self-replay"]["written"]
        sizes.append((len(written), written.numel()))
    needed = math.ceil(6 * 4 * 0.5) * 32
    assert sizes == [(12, needed), (3, 102)]  # as many rows as fit windows of 32; filled up


def test_replay_in_epochs_sees_the_new_text_as_often(bases, texts, tmp_path, capsys):
    steps = []
    for more in ([], ["--replay", "base", "--replay-fraction", "0.5"]):
        words = continuing_words(bases, texts, "masked-lm", tmp_path / f"o{len(more)}", *more)
        place = words.index("--steps")
        words[place : place + 2] = ["--epochs", "1", "--json"]
        assert main(words) == 0
        steps.append(json.loads(capsys.readouterr().out)["steps"])
    assert abs(steps[1] - 2 * steps[0]) <= 1


def test_refused_in_one_line(bases, texts, tmp_path, capsys):
    def refused(name, *flags):
        return error_of(continuing_words(bases, texts, name, tmp_path / "out", *flags), capsys)

    for name, role in (("masked-lm", "encoder"), ("reconstruction", "encoder-decoder")):
        message = refused(name, "--self-replay", "0.1")
        assert f"--self-replay fits decoder models, and this one is an {role}" in message
    assert "belongs to --replay" in refused("causal-lm", "--replay-fraction", "0.1")
    words = ["--replay", "base", "--self-replay-tokens", "9"]
    assert "belongs to --self-replay" in refused("causal-lm", *words)
    assert "alone" in refused("causal-lm", "--replay", "base", texts["old"])
    assert "--replay-fraction must be less than 1" in refused(
        "causal-lm", "--replay", "base", "--replay-fraction", "1"
    )
    words = ["--replay", "base", "--self-replay", "0.1"]
    assert "both decide what is mixed into the text" in refused("causal-lm", *words)
    words = ["--lora", "2", "--train-last", "1"]
    assert "both decide which weights learn" in refused("causal-lm", *words)
    assert "exclude each other" in refused("causal-lm", "--lora", "2", "--l2", "1")
    assert "belongs to --lora" in refused("causal-lm", "--lora-alpha", "2")
    assert "the model has 2 layers" in refused("masked-lm", "--train-last", "3")
    for flags in (["--replay", "base"], ["--lora", "4"], ["--train-last", "1"]):
        words = ["train", "causal-lm", "--corpus", texts["new"], *flags]
        assert f"{flags[0]} cannot be used here: there is no base without --init" in error_of(
            words, capsys
        )
    exported = tmp_path / "exported"
    assert main(["export", str(bases / "causal-lm"), "--to", str(exported)]) == 0
    words = ["train", "causal-lm", "--init", str(exported), "--corpus", texts["new"]]
    assert "is not known, or gone" in error_of([*words, "--replay", "base"], capsys)
    assert not (tmp_path / "out").exists()


def test_trained_parameters_are_shown(bases, texts, tmp_path, capsys):
    words = continuing_words(bases, texts, "causal-lm", tmp_path / "lora", "--lora", "2")
    place = words.index("--steps")
    words[place : place + 2] = ["--minutes", "0.005"]  # which times some steps, and takes them back
    assert main(words) == 0
    # 2 layers of 4 projections (16, 16), each with two factors of rank 2.
    assert f"{2 * 4 * 2 * 16 * 2} beside them trained" in capsys.readouterr().out


# --- vocabulary


def test_how_a_text_fits_worked_out_by_hand(tmp_path):
    """low and er are known whole, lower is in pieces, xyz and löw are unknown."""
    pieces_ = {"[UNK]": 0, "low": 1, "##er": 2, "er": 3}
    engine = Engine(models.WordPiece(pieces_, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.save(str(tmp_path / "tokenizer.json"))
    config = {"unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path)
    found = coverage([Document("a", "low er lower"), Document("b", "xyz löw")], tokenizer)
    assert (found.tokens, found.unknown, found.words, found.split) == (6, 2, 5, 1)
    assert found.size == len("low er lower") + len("xyz löw") + 1
    assert found.summary() == {
        "tokens_per_byte": 6 / 20,
        "words_in_pieces": 1 / 5,
        "unknown": 2 / 6,
        "hidden_bytes": 8 / 20,  # "xyz " and "löw"
    }


def test_a_large_text_is_sampled():
    tokenizer = Tokenizer.train([], 256)
    documents = [Document(str(place), "a" * 30_000) for place in range(40)]
    assert (1 << 18) - 30_000 < coverage(documents, tokenizer).size <= 1 << 18
    assert coverage([Document("one", "a" * 300_000)], tokenizer).size == 1 << 18


def test_both_sides_are_shown_before_training(bases, texts, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(continuing_words(bases, texts, "causal-lm", out)) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "tokens a byte" in line]
    assert len(lines) == 2 and "new text" in lines[0] and "old text" in lines[1]
    assert all("no unknown ones" in line for line in lines)
    found = checkpoint.load(out).record["vocabulary"]
    # The tokenizer was made from the old text.
    assert found["new text"]["tokens_per_byte"] > found["old text"]["tokens_per_byte"] > 0
