"""Span corruption against answers worked by hand, published lengths, and transformers."""

import dataclasses
import math
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import oracles
import pytest
import torch
from making import drawn, draws, fake, objective_of
from torch import nn
from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

from minicpt.batch import IGNORE
from minicpt.cli.main import main
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.input_output import SENTINEL, SENTINELS, input_output
from minicpt.data.order import Draw
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling
from minicpt.objectives.span_corruption import (
    Settings,
    SpanCorruption,
    composition,
    corrupt,
    noise_mask,
    sizes,
)
from minicpt.proofs import faults, suite

BYTES = Tokenizer.train([], 256, SENTINELS)
MANY = Tokenizer.train([], 256, [SENTINEL.format(number) for number in reversed(range(300))])
PAD, END, A = 0, 1, 69
FIRST = BYTES.special_id("<extra_id_0>")
ROLES = ("encoder-decoder", "decoder")


def corpus_of(*texts, tokenizer=BYTES):
    return Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], tokenizer)


def mask_of(pattern):
    """"..xx.x" -> (6,) bool."""
    return torch.tensor([each == "x" for each in pattern])


def with_cut(objective, pattern):
    """The objective with a fixed pattern in place of a drawn one."""
    objective.cut = lambda tokens, _: corrupt(tokens, mask_of(pattern), objective.sentinels)
    return objective


def within(count, draws, share, sigmas=5):
    return abs(count - draws * share) <= sigmas * math.sqrt(draws * share * (1 - share)) + 1e-9


# --- worked by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern, read, written",
    [
        ("..xx.x", [10, 11, 999, 14, 998], [999, 12, 13, 998, 15]),
        # Turned patterns: they begin with noise, or end with what stays.
        ("x..xx.", [999, 11, 12, 998, 15], [999, 10, 998, 13, 14]),
        ("xx...x", [999, 12, 13, 14, 998], [999, 10, 11, 998, 15]),
        (".xxxx.", [10, 999, 15], [999, 11, 12, 13, 14]),
    ],
)
def test_what_is_read_and_what_is_written(pattern, read, written):
    found = corrupt(torch.arange(10, 16), mask_of(pattern), torch.tensor([999, 998, 997]))
    assert [each.tolist() for each in found] == [read, written]


def test_a_batch_of_an_encoder_decoder():
    objective = with_cut(SpanCorruption(BYTES, Settings(window=16, span=1.5, rate=0.5)), "..xx.x")
    passage = corpus_of("abcdef").passage(0, 6)
    batch = objective.batch([passage], [drawn(0)])
    a, b, c, d, e, f = range(A, A + 6)
    target = [FIRST, c, d, FIRST - 1, f, END]
    assert batch.inputs["tokens"].tolist() == [[a, b, FIRST, e, FIRST - 1, END]]
    assert batch.inputs["decoder_tokens"].tolist() == [[PAD, *target[:-1]]]
    assert batch.targets["tokens"].tolist() == [target]
    assert batch.inputs["mask"].all() and batch.inputs["decoder_mask"].all()


def test_a_batch_of_a_decoder():
    """One row; the last position of the input predicts the first sentinel."""
    settings = Settings(window=16, span=1.5, rate=0.5)
    objective = with_cut(SpanCorruption(BYTES, settings, "decoder"), "..x")
    batch = objective.batch([corpus_of("abc").passage(0, 3)], [drawn(0)])
    a, b, c = range(A, A + 3)
    assert batch.inputs["tokens"].tolist() == [[END, a, b, FIRST, END, FIRST, c]]
    assert batch.targets["tokens"].tolist() == [[IGNORE] * 4 + [FIRST, c, END]]
    sees = torch.tensor([[1, 1, 1, 1, 1, 0, 0]] * 5 + [[1] * 6 + [0], [1] * 7], dtype=torch.bool)
    assert torch.equal(batch.inputs["mask"][0], sees)
    assert torch.equal(objective.visibility(batch)["tokens"]["tokens"][0], sees)


def test_rows_of_different_lengths():
    rows = [torch.tensor([5, 6]), torch.tensor([7])]
    batch = input_output("decoder", rows, [torch.tensor([8]), torch.tensor([9, 4])], start=1)
    assert batch.inputs["tokens"].tolist() == [[1, 5, 6], [1, 7, 9]]
    assert batch.targets["tokens"].tolist() == [[IGNORE, IGNORE, 8], [IGNORE, 9, 4]]
    assert batch.inputs["mask"].int().tolist() == [
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
        [[1, 1, 0], [1, 1, 0], [1, 1, 1]],
    ]
    batch = input_output("decoder", [rows[1], rows[0]], [rows[1], rows[0]], start=1)
    assert batch.inputs["mask"][0].int().tolist() == [
        [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0],
    ]  # fmt: skip


def test_the_decoder_reads_what_transformers_gives_it():
    """T5's ``_shift_right`` of the labels."""
    objective = objective_of("span-corruption", BYTES, window=40, rate=0.4)
    corpus = corpus_of("The ferry left the old harbour.", "A gull followed it.")
    batch = objective.batch(objective.plan(corpus, 0, 0)[:], draws(2))
    oracle = oracles.make("T5ForConditionalGeneration-1.1", decoder_start_token_id=PAD)
    shifted = T5ForConditionalGeneration._shift_right(oracle, batch.targets["tokens"])
    real = batch.inputs["decoder_mask"]
    assert torch.equal(shifted[real], batch.inputs["decoder_tokens"][real]) and not real.all()


# --- how much is cut out -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "window, rate, span, raw, targets",
    [
        (512, 0.15, 3, 568, 114),
        (512, 0.15, 8, 588, 100),
        (512, 0.5, 3, 766, 512),
        (512, 0.5, 64, 1006, 512),
        (128, 0.15, 3, 141, 29),
        (64, 0.2, 2, 70, 22),
        (64, 0.2, 1, 63, 27),
    ],
)
def test_golden_lengths(window, rate, span, raw, targets):
    objective = SpanCorruption(MANY, Settings(window=window, rate=rate, span=span))
    assert objective.longest == raw
    batch = objective.batch([fake([raw]).passage(0, raw)], [drawn(1)])
    assert batch.inputs["tokens"].shape == (1, window)
    assert batch.targets["tokens"].shape == (1, targets)
    row = SpanCorruption(MANY, Settings(window=window + targets, rate=rate, span=span), "decoder")
    # A decoder holds both; at rate 0.5 one more raw token fits, which the encoder did not hold.
    assert row.positions(raw) == window + targets and row.longest >= raw


@pytest.mark.parametrize("rate", [0.001, 0.15, 0.5, 0.999])
@pytest.mark.parametrize("span", [1, 3, 64])
@pytest.mark.parametrize("roll", [False, True])
def test_every_length_is_cut_as_it_should_be(rate, span, roll):
    settings = Settings(rate=rate, span=span, roll=roll)
    for length in range(2, 80):
        mask = noise_mask(length, settings, generator(length))
        noise = min(max(round(rate * length), 1), length - 1)
        spans = min(max(1, round(noise / span)), noise, length - noise)
        assert len(mask) == length and int(mask.sum()) == noise
        runs = int(mask[0]) + sum(not one and other for one, other in pairwise(mask.tolist()))
        assert runs in ({spans, spans + 1} if roll else {spans})
        assert roll or not mask[0] and mask[-1]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("roll", [False, True])
@pytest.mark.parametrize("window", [8, 9, 31, 100])
def test_the_longest_passage_fits_and_a_longer_one_does_not(role, roll, window):
    settings = Settings(window=window, rate=0.4, span=2, roll=roll)
    objective = SpanCorruption(BYTES, settings, role)
    assert objective.positions(objective.longest) <= window < objective.positions(
        objective.longest + 1
    )
    passage = fake([objective.longest]).passage(0, objective.longest)
    for number in range(20):
        batch = objective.batch([passage], [drawn(number)])
        assert max(each.shape[1] for each in batch.inputs.values()) <= window


def test_every_composition_is_as_likely():
    """6 as a sum of 3 positive numbers: 10 ways."""
    count = 3000
    found = Counter(tuple(composition(6, 3, generator(n))) for n in range(count))
    assert len(found) == 10 and all(sum(each) == 6 and min(each) > 0 for each in found)
    assert all(within(times, count, 1 / 10) for times in found.values())


def test_what_stays_and_what_is_lost_are_drawn_apart():
    """5 tokens that stay and 4 that are lost, in 2 runs each: 4 x 3 patterns."""
    settings, count = Settings(rate=0.44, span=2), 3600
    assert sizes(9, settings) == (4, 2)
    found = Counter(tuple(noise_mask(9, settings, generator(n)).tolist()) for n in range(count))
    assert len(found) == 12 and all(within(times, count, 1 / 12) for times in found.values())


def test_a_short_text_loses_its_end_alone_unless_the_pattern_is_turned():
    plain = {tuple(noise_mask(10, Settings(), generator(n)).tolist()) for n in range(50)}
    assert plain == {(False,) * 8 + (True,) * 2}
    count = 2000
    turned = sum(noise_mask(10, Settings(roll=True), generator(n)).int() for n in range(count))
    assert all(within(times, count, 0.2) for times in turned.tolist())


# --- sentinels -----------------------------------------------------------------------------------


def test_sentinels_count_down_from_the_highest_id():
    objective = objective_of("span-corruption", BYTES)
    assert objective.sentinels.tolist() == list(
        range(BYTES.size - 1, BYTES.size - 1 - len(objective.sentinels), -1)
    )
    assert BYTES.token(int(objective.sentinels[0])) == "<extra_id_0>"


def test_the_sentinels_of_a_published_t5(tmp_path):
    oracles.t5_tokenizer().save_pretrained(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    objective = objective_of("span-corruption", tokenizer, rate=0.5)
    names = [tokenizer.token(index) for index in objective.sentinels.tolist()]
    assert names == [f"<extra_id_{number}>" for number in range(len(names))] and len(names) > 9
    assert objective.sentinels[0] == tokenizer.size - 1
    corpus = Corpus.build([Document("a", oracles.TEXT)], tokenizer)
    batch = objective.batch(objective.plan(corpus, 0, 0)[:1], [drawn(0)])
    assert batch.targets["tokens"][0, 0] == objective.sentinels[0]


def test_too_few_sentinels():
    """One line, with the number that is needed."""
    with pytest.raises(InputError, match="lacks 7 of the 7 special tokens.*--add-tokens"):
        SpanCorruption(Tokenizer.train([], 256), Settings(window=128))
    with pytest.raises(InputError, match="lacks 28 of the 128.*--add-tokens"):
        SpanCorruption(BYTES, Settings(window=512, rate=0.5))
    few = Tokenizer.train([], 256, [SENTINEL.format(number) for number in reversed(range(7))])
    assert len(SpanCorruption(few, Settings(window=128)).sentinels) == 7
    with pytest.raises(InputError, match="lacks 1 of the 8"):  # a turned pattern may part a span
        SpanCorruption(few, Settings(window=128, roll=True))


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--rate", "0"], "--rate must be more than 0"),
        (["--rate", "1"], "--rate must be less than 1"),
        (["--span", "0.5"], "--span must be at least 1"),
        (["--span", "200"], "--span 200 is longer than --window 128"),
        (["--window", "7"], "--window must be at least 8"),
    ],
)
def test_settings_that_make_no_sense(words, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "span-corruption", *words]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("role", ROLES)
def test_passages_that_are_too_short_are_skipped_and_counted(role):
    objective = objective_of("span-corruption", BYTES, role)
    plan = objective.plan(corpus_of("a", "bc", "d", "efg"), 0, 0)
    assert len(plan) == plan.skipped == 2
    with pytest.raises(InputError, match="needs passages of 2 tokens, and all 2 are shorter"):
        objective.plan(corpus_of("a", "b"), 0, 0)


# --- what a trained model does with a text -------------------------------------------------------


class Scripted(nn.Module):
    """Wants to write the tokens of a script, one after the other, and the first one in the end."""

    def __init__(self, tokenizer, script, role):
        super().__init__()
        self.size, self.script, self.role = tokenizer.size, script, role
        self.weight, self.read = nn.Parameter(torch.zeros(1)), []
        self.heads = nn.ModuleDict({"tokens": nn.Identity()})

    def logits(self, written):
        likely = self.script[written] if written < len(self.script) else self.script[0]
        found = torch.zeros(1, 1, self.size)
        found[..., likely] = 50.0
        return found

    def encode(self, tokens, mask):
        self.read = tokens[0].tolist()

    def decode(self, tokens, mask, memory, memory_mask):
        return self.logits(tokens.shape[1] - 1)

    def forward(self, tokens, mask):
        given = int(mask[0, 0].sum())  # the first position sees the input
        self.read = tokens[0, 1:given].tolist()
        assert torch.equal(mask[0, given:], torch.ones_like(mask[0]).tril()[given:])
        return self.logits(tokens.shape[1] - given)


@pytest.mark.parametrize("role", ROLES)
def test_gaps_are_filled(role):
    objective = objective_of("span-corruption", BYTES, role, window=64)
    script = [FIRST, *BYTES.encode(" cat"), FIRST - 1, *BYTES.encode(" on"), END]
    model = Scripted(BYTES, script, role)
    text = "The <extra_id_0> sat <extra_id_7> it."
    found = objective.generate(model, text, Sampling(temperature=0), generator(0))
    assert found == "The [cat] sat [on] it."
    read = [*BYTES.encode("The"), FIRST, *BYTES.encode(" sat"), FIRST - 1, *BYTES.encode(" it.")]
    assert model.read == [*read, END]


@pytest.mark.parametrize("role", ROLES)
def test_no_sentinel_is_written_out_of_turn(role):
    """A model that wants to end at once, and one that never ends."""
    objective = objective_of("span-corruption", BYTES, role, window=64)
    text, sampling = "a <extra_id_0> b <extra_id_1> c", Sampling(length=6, temperature=0)
    for want, expected in [(END, 0), (A, 3)]:
        model = Scripted(BYTES, [want], role)
        found = objective.generate(model, text, sampling, generator(0))
        first, second = (part.split("]")[0] for part in found.split("[")[1:])
        if expected:
            assert first == second == "a" * expected
        else:
            assert END not in BYTES.encode(first) and len(first) <= 3 and second == ""


def test_a_decoder_has_room_for_a_token_in_each_gap():
    """14 positions: 1 + 6 + 1 are read, 3 sentinels are written, and 3 tokens."""
    objective = objective_of("span-corruption", BYTES, "decoder", window=14, rate=0.5, span=1)
    model = Scripted(BYTES, [A], "decoder")
    forward, longest = model.forward, []
    model.forward = lambda tokens, mask: longest.append(tokens.shape[1]) or forward(tokens, mask)
    gaps = "<extra_id_0>x<extra_id_0>y<extra_id_0>z"
    assert objective.generate(model, gaps, Sampling(), generator(0)).count("[") == 3
    assert max(longest) == 13  # behind the last one nothing is read
    with pytest.raises(InputError, match="the text takes 9 tokens, and the model reads 8"):
        objective.generate(model, gaps + "z", Sampling(), generator(0))


def test_gaps_are_drawn_where_the_text_has_none():
    objective = objective_of("span-corruption", BYTES, window=64)
    model = Scripted(BYTES, [FIRST, A, END], "encoder-decoder")
    found = objective.generate(model, "abcdefgh", Sampling(temperature=0), generator(0))
    assert found == "abcdefg[a]"
    passage = corpus_of("abcdefgh").passage(0, 8)
    assert objective.probe(model, passage, Sampling(temperature=0), drawn(0)) == "abcdefg[a]"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("x", "no span can be cut out"),
        ("y" * 500, "the text takes 500 tokens"),
        ("a <extra_id_0>" * 30, "the text has 30 gaps"),
    ],
)
def test_texts_that_cannot_be_filled(text, expected):
    objective = objective_of("span-corruption", BYTES)
    model = Scripted(BYTES, [END], "encoder-decoder")
    with pytest.raises(InputError, match=expected):
        objective.generate(model, text, Sampling(), generator(0))


# --- mistakes ------------------------------------------------------------------------------------

SUBJECTS = {each.name: each for each in suite.subjects(["span-corruption"])}


@pytest.mark.parametrize(
    "name, proof",
    [
        ("ascending-sentinels", "batch rules"),
        ("misaligned-sentinels", "batch rules"),
        ("never-rolled", "batch rules"),
        ("lost-to-the-window", "batch rules"),
        ("input-one-way", "batch rules"),
        ("written-both-ways", "equivalence"),
        ("written-both-ways", "causality by derivatives, head tokens"),
    ],
)
def test_a_mistake_is_caught_by_the_proof_that_is_meant_to(name, proof):
    fault = faults.known()[name]
    kind = suite.known()[proof.split(" by ")[0]]
    found = kind(fault.make(SUBJECTS[fault.subject]))
    found = found if isinstance(found, list) else [found]
    assert proof in [each.name for each in found if each.passed is False]
    sound = kind(SUBJECTS[fault.subject])
    assert all(each.passed for each in (sound if isinstance(sound, list) else [sound]))


def test_compositions_that_are_not_uniform_are_caught(monkeypatch):
    """Spans whose lengths are drawn one after the other: the first ones are too long."""
    (sound,) = [each for each in suite.subjects(["span-corruption"])][:1]
    settings = dataclasses.replace(sound.objective.settings, rate=0.5, span=2.0)
    objective = SpanCorruption(sound.tokenizer, settings)
    subject = dataclasses.replace(sound, objective=objective)
    rules = suite.known()["batch rules"]
    assert rules(subject).passed

    def greedy(total, parts, draw):
        lengths = []
        for left in range(parts - 1, 0, -1):
            most = total - sum(lengths) - left
            lengths.append(int(torch.randint(1, most + 1, (), generator=draw)))
        return [*lengths, total - sum(lengths)]

    monkeypatch.setattr("minicpt.objectives.span_corruption.composition", greedy)
    assert rules(subject).passed is False
    assert objective.batch([subject.passages(1)[0]], [Draw(0, generator(0))])


# --- from a text to a model, and back ------------------------------------------------------------

TEXT = "\n\n".join(f"On day {day} the cat saw {day + 3} boats. It sat." for day in range(40))
TINY = ["--width", "8", "--num-heads", "1", "--window", "32", "--batch-size", "2", "--blocks"]


@pytest.mark.parametrize(
    "name, model, gap",
    [
        ("span-corruption", "t5", "<extra_id_0>"),
        ("span-corruption", "gpt2", "<extra_id_0>"),
        ("denoising", "t5", "[MASK]"),
        ("mixture", "gpt2", "<extra_id_0>"),
    ],
)
def test_trained_resumed_evaluated_and_asked(name, model, gap, tmp_path, capsys, monkeypatch):
    """Also a base of another objective is continued, and a run that was stopped ends bitwise."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(f"a\n\n{TEXT}")
    base = "reconstruction" if model == "t5" else "causal-lm"
    new = ["--vocab-size", "256", "--layers", "1", "--model", model, "--steps", "1"]
    assert main(["train", base, "--corpus", "text.txt", *new, *TINY, "--out", "base"]) == 0
    given = ["--corpus", "text.txt", *TINY[4:], "--steps", "4", "--save-every", "2"]
    assert main(["train", name, *given, "--init", "base", "--out", "run"]) == 0
    assert "passages of the training text are too short" in capsys.readouterr().err
    whole = Path("run/step-00000004/pytorch_model.bin").read_bytes()
    shutil.rmtree("run/step-00000004")
    assert main(["resume", "run"]) == 0
    assert Path("run/step-00000004/pytorch_model.bin").read_bytes() == whole
    assert main(["evaluate", "run", "--corpus", "text.txt"]) == 0
    assert "nats/token" in capsys.readouterr().out
    assert main(["generate", "run", f"On day 3 the {gap} saw.", "--length", "3"]) == 0
    assert main(["generate", "run"]) == 2
    assert "needs a TEXT" in capsys.readouterr().err
