"""The mixture of denoisers: shares by counting, rows by hand, and what is not there is left out."""

import dataclasses
import math
from collections import Counter

import pytest
import torch
from making import drawn, draws, losses_of, model_of
from test_span_corruption import Scripted

from minicpt import objectives
from minicpt.batch import IGNORE, Batch, pad, padding, shift
from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.common.settings import Checked, setting
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.input_output import SENTINELS
from minicpt.data.patterns import prefix_mask
from minicpt.data.stacking import joined
from minicpt.data.tokenizer import Tokenizer
from minicpt.generation import Sampling
from minicpt.loss import per_token_losses
from minicpt.objectives.base import Objective
from minicpt.objectives.mixture import Mixture, Settings, with_front
from minicpt.proofs import faults, suite
from minicpt.proofs.bounds import additions, gap, nats, tolerance

R, X, S = "[NLU]", "[NLG]", "[S2S]"
BYTES = Tokenizer.train([], 256, (*SENTINELS, S, X, R))
PAD, END, A = 0, 1, 69
FIRST = BYTES.special_id("<extra_id_0>")
ROLES = ("encoder-decoder", "decoder")


class Prefix(Objective):
    """Prefix LM with a cut after the first token: stands in where the objective is not there."""

    roles = ("decoder", "encoder-decoder")

    @dataclasses.dataclass(frozen=True)
    class Settings(Checked):
        window: int = setting(128, "", least=2)

    def batch(self, passages, draws):
        (passage,), end = passages, torch.tensor([END])
        after = END if passage.last else passage.following
        if self.role == "decoder":
            row = torch.cat([end[: passage.first], passage.tokens])
            target = shift(row, after)
            target[: int(passage.first)] = IGNORE
            mask = prefix_mask(padding([row]), torch.tensor([1 + passage.first]))
            return Batch({"tokens": row[None], "mask": mask}, {"tokens": target[None]})
        row = torch.cat([torch.tensor([PAD]), passage.tokens[1:]])[None]
        inputs = {"tokens": passage.tokens[None, :1], "decoder_tokens": row}
        inputs |= {"mask": torch.ones(1, 1).bool(), "decoder_mask": torch.ones_like(row).bool()}
        return Batch(inputs, {"tokens": shift(row[0], after)[None]})


@pytest.fixture(autouse=True)
def prefix(monkeypatch):
    """The objectives that are there, and a stand-in for prefix LM."""
    known = objectives.known() | {"prefix-lm": Prefix}
    monkeypatch.setattr(objectives, "known", lambda: dict(known))
    return known


def corpus_of(*texts):
    return Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], BYTES)


def mode_of(batch, row=0):
    return BYTES.token(int(batch.inputs["tokens"][row, 0]))


def within(count, draws, share, sigmas=5):
    return abs(count - draws * share) <= sigmas * math.sqrt(draws * share * (1 - share)) + 1e-9


# --- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "recipe, shares",
    [("ul2", {R: 2 / 7, X: 4 / 7, S: 1 / 7}), ("ul2r", {R: 1 / 4, X: 1 / 4, S: 1 / 2})],
)
def test_the_shares_of_the_modes(recipe, shares, role):
    objective = Mixture(BYTES, Settings(recipe=recipe), role)
    passage, count = corpus_of("abcdefgh" * 3).passage(0, 24), 700
    batch = objective.batch([passage] * count, draws(count))
    found = Counter(mode_of(batch, row) for row in range(count))
    assert found.keys() == shares.keys()
    assert all(within(found[mode], count, share) for mode, share in shares.items())


@pytest.mark.parametrize(
    "recipe, expected",
    [
        # Of 112 tokens 0.15 are 17, in round(17 / 3) = 6 or round(17 / 8) = 2 spans, or in one;
        # a half are 56, in 19, 7 or 1.
        ("ul2", {(R, 17, 6), (R, 17, 2), (X, 56, 19), (X, 56, 7), (X, 17, 1), (X, 56, 1)}),
        ("ul2r", {(R, 17, 6), (X, 17, 1), (X, 56, 19)}),
    ],
)
def test_the_denoisers_of_each_mode(recipe, expected):
    objective = Mixture(BYTES, Settings(recipe=recipe))
    passage, count = corpus_of("abcdefgh" * 14).passage(0, 112), 420
    found, noisy_firsts = Counter(), 0
    for number in range(count):
        batch = objective.batch([passage], [drawn(number)])
        written = batch.targets["tokens"][0].tolist()
        if mode_of(batch) != S:
            spans = sum(each in BYTES.special for each in written[:-1])
            begins = int(batch.inputs["tokens"][0, 1]) == FIRST
            noisy_firsts += begins
            closes = int(batch.inputs["tokens"][0, -2]) == FIRST - spans + 1
            # A turned pattern may part one span in two.
            found[mode_of(batch), len(written) - 1 - spans, spans - (begins and closes)] += 1
    assert found.keys() == expected
    assert bool(noisy_firsts) == (recipe == "ul2r")
    if recipe == "ul2":
        assert all(within(times, count, 1 / 7) for times in found.values())
    else:
        assert within(found[R, 17, 6], count, 1 / 4) and within(found[X, 17, 1], count, 1 / 8)


# --- rows -----------------------------------------------------------------------------------------


def only(objective, mode):
    objective.recipe = [each for each in objective.recipe if each[0] == mode][:1]
    objective.shares = torch.ones(1)
    return objective


def test_rows_of_an_encoder_decoder():
    passage = corpus_of("abcdef").passage(0, 6)
    a, b, c, d, e, f = range(A, A + 6)
    batch = only(Mixture(BYTES), R).batch([passage], [drawn(0)])
    assert batch.inputs["tokens"].tolist() == [[BYTES.special_id(R), a, b, c, d, e, FIRST, END]]
    assert batch.targets["tokens"].tolist() == [[FIRST, f, END]]
    assert batch.inputs["decoder_tokens"].tolist() == [[PAD, FIRST, f]]
    batch = only(Mixture(BYTES), S).batch([passage], [drawn(0)])
    assert batch.inputs["tokens"][0, 0] == BYTES.special_id(S)
    assert batch.inputs["mask"].all()


def test_rows_of_a_decoder():
    passage = corpus_of("abcdef").passage(0, 6)
    a, b, c, d, e, f = range(A, A + 6)
    batch = only(Mixture(BYTES, role="decoder"), R).batch([passage], [drawn(0)])
    assert batch.inputs["tokens"].tolist() == [
        [BYTES.special_id(R), END, a, b, c, d, e, FIRST, END, FIRST, f]
    ]
    assert batch.targets["tokens"].tolist() == [[IGNORE] * 8 + [FIRST, f, END]]
    sees = torch.ones(11, 11).tril().bool()
    sees[:, :9] = True
    assert torch.equal(batch.inputs["mask"][0], sees)


def test_a_token_in_front():
    """It sees and is seen like the one behind it; streams of the decoder stay as they are."""
    row = Batch(
        {"tokens": torch.tensor([[5, 6, 7]]),
         "mask": torch.tensor([[[1, 1, 0], [1, 1, 0], [1, 1, 1]]]).bool()},
        {"tokens": torch.tensor([[IGNORE, 7, 8]])},
    )  # fmt: skip
    found = with_front(row, 9)
    assert found.inputs["tokens"].tolist() == [[9, 5, 6, 7]]
    assert found.inputs["mask"].int().tolist() == [
        [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    ]
    assert found.targets["tokens"].tolist() == [[IGNORE, IGNORE, 7, 8]]
    assert row.inputs["tokens"].tolist() == [[5, 6, 7]]


def test_rows_are_joined():
    assert joined([torch.tensor([[1]]), torch.tensor([[2, 3]])], 0).tolist() == [[1, 0], [2, 3]]
    square = joined([torch.ones(1, 1, 1).bool(), torch.ones(1, 2, 2).bool()], 0)
    assert square.int().tolist() == [[[1, 0], [0, 0]], [[1, 1], [1, 1]]]
    assert pad([torch.tensor([1])], 0).shape == (1, 1)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("recipe", ["ul2", "ul2r"])
@pytest.mark.parametrize("window", [10, 24, 128])
def test_all_denoisers_fit_into_the_window(role, recipe, window):
    objective = Mixture(BYTES, Settings(window=window, recipe=recipe), role)
    plan = objective.plan(corpus_of("abcdefghij" * 30, "xyz", "q"), 0, 1)
    assert plan.skipped >= 1
    for number in range(12):
        batch = objective.batch(plan[:], draws(len(plan), number))
        assert max(each.shape[1] for each in batch.inputs.values()) <= window


@pytest.mark.parametrize("role", ROLES)
def test_each_target_alone_has_the_same_loss(role):
    """What a target may see is declared rightly, whichever denoiser made its row."""
    objective = Mixture(BYTES, Settings(window=24), role)
    plan = objective.plan(corpus_of("abcdefghij klmnop qrst uvw. " * 9), 0, 0)
    batch = objective.batch(plan[:8], draws(8))
    assert len({mode_of(batch, row) for row in range(8)}) == 3
    model = model_of(objective, model="t5" if role == "encoder-decoder" else "gpt2").double().eval()
    losses = losses_of(model, objective)
    alone = per_token_losses(losses, batch, objective.visibility(batch))["tokens"]
    together = losses(batch)["tokens"].losses
    assert gap(together, alone, nats(alone)) <= tolerance(additions(model, batch))


# --- what is not there ----------------------------------------------------------------------------


def test_what_is_not_there_is_left_out(prefix):
    passage = corpus_of("abcdefgh" * 3).passage(0, 24)
    del prefix["prefix-lm"]
    batch = Mixture(BYTES).batch([passage] * 300, draws(300))
    found = Counter(mode_of(batch, row) for row in range(300))
    assert found.keys() == {R, X} and within(found[R], 300, 1 / 3)
    prefix["prefix-lm"] = Prefix
    del prefix["span-corruption"]
    objective = Mixture(BYTES)
    batch = objective.batch([passage] * 20, draws(20))
    assert {mode_of(batch, row) for row in range(20)} == {S}
    del prefix["prefix-lm"]
    with pytest.raises(InputError, match="needs span-corruption or prefix-lm"):
        Mixture(BYTES)


def test_too_few_special_tokens():
    with pytest.raises(InputError, match="lacks 3 of the 3 special tokens.*--add-tokens"):
        Mixture(Tokenizer.train([], 256, SENTINELS))
    with pytest.raises(InputError, match="lacks .* special tokens.*--add-tokens"):
        Mixture(Tokenizer.train([], 256, (S, X, R)))


def test_a_text_in_which_all_passages_are_too_short():
    with pytest.raises(InputError, match="needs passages of 2 tokens, and all 2 are shorter"):
        Mixture(BYTES).plan(corpus_of("a", "b"), 0, 0)


# --- what a trained model does with a text -------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_gaps_are_filled_in_mode_r_and_texts_continued_in_mode_s(role):
    objective = Mixture(BYTES, Settings(window=64), role)
    model = Scripted(BYTES, [FIRST, *BYTES.encode(" b"), END], role)
    sampling, front = Sampling(temperature=0), [BYTES.special_id(R)]
    assert objective.generate(model, "a <extra_id_0> c", sampling, generator(0)) == "a [b] c"
    read = [*BYTES.encode("a"), FIRST, *BYTES.encode(" c"), END]
    given = [END] * (role == "decoder")
    assert model.read[-len(read) :] == read
    assert role == "decoder" or model.read[:1] == front
    model = Scripted(BYTES, [*BYTES.encode("bc"), END], role)
    assert objective.generate(model, "a", sampling, generator(0)) == "abc"
    # A decoder's first token, which the script leaves out, is the mode.
    assert model.read == (given or [BYTES.special_id(S)]) + BYTES.encode("a")
    passage = corpus_of("abcdefgh").passage(0, 8)
    assert "[" in only(objective, R).probe(model, passage, sampling, drawn(0))
    objective = only(Mixture(BYTES, Settings(window=64), role), S)
    assert objective.probe(model, passage, sampling, drawn(0)) == "ab | bc"


@pytest.mark.parametrize("window", [10, 11, 12, 24])
@pytest.mark.parametrize("recipe", ["ul2", "ul2r"])
def test_the_longest_passages_can_be_probed(window, recipe):
    """The model has as many positions as the window."""
    objective = Mixture(BYTES, Settings(window=window, recipe=recipe), "decoder")
    model = model_of(objective, model="gpt2", positions=window)
    passage = corpus_of("abcdefghij" * 5).passage(0, objective.longest)
    for number in range(12):
        assert objective.probe(model, passage, Sampling(), drawn(number))


# --- mistakes ------------------------------------------------------------------------------------


def test_swapped_modes_are_caught_by_the_batch_rules():
    sound = suite.subjects(["mixture"])[0]
    rules = suite.known()["batch rules"]
    found = rules(faults.known()["swapped-modes"].make(sound))
    assert found.passed is False and "[S2S]" in found.message and rules(sound).passed


def test_wrong_shares_are_caught_by_the_batch_rules():
    """Equal shares of the three modes."""
    sound = suite.subjects(["mixture"])[0]
    objective = Mixture(sound.tokenizer, sound.objective.settings)
    modes = Counter(mode for mode, _ in objective.recipe)
    objective.shares = torch.tensor([1 / modes[mode] for mode, _ in objective.recipe])
    found = suite.known()["batch rules"](dataclasses.replace(sound, objective=objective))
    assert found.passed is False and "rows have the mode" in found.message
