"""Masked language modelling against answers worked by hand, and its shares on many draws."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import drawn, draws

from minicpt.batch import IGNORE
from minicpt.common.errors import InputError
from minicpt.data.corpus import Corpus
from minicpt.data.text import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.objectives.masked_lm import MaskedLM, Settings

BYTES = Tokenizer.train([], 256)
CLS, SEP, MASK = 2, 3, 4
A, B, C = 69, 70, 71  # "a", "b", "c"
ALL_MASKED = {"mask": 1.0, "random": 0.0}


def passage(text):
    corpus = Corpus.build([Document("one", text)], BYTES)
    return corpus.passage(0, len(corpus.tokens))


def one(text, draw=0, **changes):
    """(inputs, targets) of one text, as rows."""
    objective = MaskedLM(BYTES, Settings(window=1 << 14, **changes))
    batch = objective.batch([passage(text)], [drawn("test", draw)])
    return batch.inputs["tokens"][0], batch.targets["tokens"][0]


def chosen(text, draw=0, **changes):
    """Which tokens of the text are targets."""
    return (one(text, draw, **changes)[1] != IGNORE)[1:-1]


def within(count, draws, probability, sigmas=5):
    """Whether a count of ``draws`` draws is what the probability lets expect."""
    deviation = math.sqrt(draws * probability * (1 - probability))
    return abs(count - draws * probability) <= sigmas * deviation


# --- worked by hand --------------------------------------------------------------------------


def test_every_token_masked():
    inputs, targets = one("abc", rate=1.0, **ALL_MASKED)
    assert inputs.tolist() == [CLS, MASK, MASK, MASK, SEP]
    assert targets.tolist() == [IGNORE, A, B, C, IGNORE]


def test_every_token_kept_is_a_target_all_the_same():
    inputs, targets = one("abc", rate=1.0, mask=0.0, random=0.0)
    assert inputs.tolist() == [CLS, A, B, C, SEP]
    assert targets.tolist() == [IGNORE, A, B, C, IGNORE]


def test_every_token_random():
    inputs, targets = one("abc" * 300, rate=1.0, mask=0.0, random=1.0)
    assert targets.tolist() == [IGNORE, *[A, B, C] * 300, IGNORE]
    assert inputs[0] == CLS and inputs[-1] == SEP
    assert not set(inputs[1:-1].tolist()) & set(BYTES.special)
    assert within(int((inputs == targets).sum()), 900, 1 / 256)


def test_one_of_four_masked():
    """The three ways it can turn out, and no other."""
    possible = [
        ([CLS, MASK, B, C, SEP], [IGNORE, A, IGNORE, IGNORE, IGNORE]),
        ([CLS, A, MASK, C, SEP], [IGNORE, IGNORE, B, IGNORE, IGNORE]),
        ([CLS, A, B, MASK, SEP], [IGNORE, IGNORE, IGNORE, C, IGNORE]),
    ]
    found = []
    for draw in range(40):
        inputs, targets = one("abc", draw, **ALL_MASKED)
        found.append(possible.index((inputs.tolist(), targets.tolist())))
    assert set(found) == {0, 1, 2}


def test_a_batch_with_padding():
    objective = MaskedLM(BYTES, Settings(window=8, rate=1.0, **ALL_MASKED))
    batch = objective.batch([passage("abc"), passage("a")], [drawn(0), drawn(1)])
    assert batch.inputs["tokens"].tolist() == [[CLS, MASK, MASK, MASK, SEP], [CLS, MASK, SEP, 0, 0]]
    assert batch.inputs["mask"].tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert batch.targets["tokens"][1].tolist() == [IGNORE, A, IGNORE, IGNORE, IGNORE]
    seen = objective.visibility(batch)["tokens"]["tokens"]
    assert seen[0].all() and seen[1].tolist() == [[True] * 3 + [False] * 2] * 5


def test_windows_leave_room_for_the_special_tokens():
    objective = MaskedLM(BYTES, Settings(window=6))
    corpus = Corpus.build([Document("one", "abcdefghij")], BYTES)
    plan = objective.plan(corpus, 0, 0)
    assert sorted(plan.rows.tolist()) == [[0, 4], [4, 8], [8, 10]]
    assert objective.batch(plan[:], [drawn(0)] * 3).inputs["tokens"].shape == (3, 6)


# --- how many are chosen ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "length, rate, exact, bert",
    [
        (1, 0.15, 1, 1),  # at least one
        (3, 0.15, 1, 1),
        (9, 0.15, 1, 2),  # 1.35; with [CLS] and [SEP] 1.65
        (12, 0.15, 2, 2),  # 1.8; 2.1
        (30, 0.15, 4, 5),  # 4.5 goes to the even number, as in BERT's own code; 4.8
        (100, 0.15, 15, 15),
        (126, 0.15, 19, 19),
        (128, 0.15, 19, 20),  # 19.2; 19.5
        (20, 0.3, 6, 7),
        (20, 0.4, 8, 9),
        (20, 1.0, 20, 20),  # 22 do not exist
        (1, 0.001, 1, 1),
    ],
)
def test_counts(length, rate, exact, bert):
    for draw in range(3):
        assert chosen("x" * length, draw, rate=rate).sum() == exact
        assert chosen("x" * length, draw, rate=rate, choice="bert").sum() == bert


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.4, 1.0])
def test_independent_choice(rate):
    counts = [int(chosen("x" * 500, draw, rate=rate, choice="independent").sum()) for draw in
              range(40)]
    assert within(sum(counts), 500 * 40, rate)
    if rate < 1:  # an exact count would have no variance; a binomial has 500 p (1 - p)
        variance = torch.tensor(counts, dtype=torch.float64).var().item()
        assert 0.4 < variance / (500 * rate * (1 - rate)) < 2.2


def test_independent_choice_may_choose_nothing():
    assert not all(chosen("ab", draw, choice="independent").any() for draw in range(20))


def test_every_position_is_as_likely():
    counts = sum(chosen("x" * 20, draw).int() for draw in range(2000))
    assert all(within(count, 2000, 3 / 20) for count in counts.tolist())


# --- 80 / 10 / 10 ----------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.85, 0.0, 0.15), (0.5, 0.5, 0.0)])
def test_what_becomes_of_the_chosen(shares):
    mask, random, keep = shares
    inputs, targets = one("x" * 16000, rate=1.0, mask=mask, random=random)
    inputs, targets = inputs[1:-1], targets[1:-1]
    lucky = random / 256  # a random token may be the one that stood there
    assert within(int((inputs == MASK).sum()), 16000, mask)
    assert within(int((inputs == targets).sum()), 16000, keep + lucky)
    replaced = inputs[(inputs != MASK) & (inputs != targets)]
    assert within(len(replaced), 16000, random - lucky)
    if random:
        assert torch.isin(replaced, BYTES.ordinary).all()
        assert len(replaced.unique()) > 240, "random tokens come from all of the vocabulary"


def test_shares_must_not_exceed_one():
    with pytest.raises(InputError, match="--mask and --random must not exceed 1 together.*1.05"):
        Settings(mask=0.95)
    Settings(mask=0.7, random=0.3)
    with pytest.raises(InputError, match="--rate must be more than 0"):
        Settings(rate=0.0)


# --- whole words -----------------------------------------------------------------------------

WORDS = "one three be elephants a to cat seventeen"


def word_numbers(text):
    """The word to which each byte belongs; the space before a word is part of it."""
    return [text[: place + 1].count(" ") for place in range(len(text))]


def test_the_words_of_a_text():
    assert word_numbers("ab c") == [0, 0, 1, 1]


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.4, 1.0])
@pytest.mark.parametrize("choice", ["exact", "bert", "independent"])
def test_whole_words(rate, choice):
    numbers = torch.tensor(word_numbers(WORDS))
    sizes = numbers.bincount()
    length = len(WORDS) + 2 * (choice == "bert")
    seen = set()
    for draw in range(30):
        picked = chosen(WORDS, draw, rate=rate, choice=choice, whole_word=True)
        words = numbers[picked].unique()
        seen |= set(words.tolist())
        assert torch.equal(picked, torch.isin(numbers, words)), "a word was chosen in part"
        if choice == "independent":
            continue
        left = min(len(WORDS), round(rate * length)) - int(picked.sum())
        assert left >= 0, "more than the budget"
        others = [size for word, size in enumerate(sizes.tolist()) if word not in words.tolist()]
        assert all(size > left for size in others), "a word that fits was left out"
    budget = len(WORDS) if choice == "independent" else round(rate * length)
    fitting = {word for word, size in enumerate(sizes.tolist()) if size <= budget}
    assert seen == fitting, "some word is never chosen"


def test_whole_words_independently_have_the_rate():
    picked = [chosen(WORDS, draw, rate=0.3, choice="independent", whole_word=True) for draw in
              range(800)]
    numbers = torch.tensor(word_numbers(WORDS))
    starts = [numbers.tolist().index(word) for word in range(8)]
    assert within(sum(int(each[starts].sum()) for each in picked), 800 * 8, 0.3)


def test_a_window_that_begins_within_a_word():
    """What is left of the word is a unit of its own: neither [CLS] nor the next word joins it."""
    corpus = Corpus.build([Document("one", "elephants be")], BYTES)
    objective = MaskedLM(BYTES, Settings(rate=0.5, whole_word=True, **ALL_MASKED))
    found = set()
    for draw in range(20):
        batch = objective.batch([corpus.passage(6, 12)], [drawn(draw)])  # "nts" and " be"
        found.add(tuple(batch.inputs["tokens"][0].tolist()))
    n, t, s, space, b, e = BYTES.encode("nts be")
    assert found == {
        (CLS, MASK, MASK, MASK, space, b, e, SEP),
        (CLS, n, t, s, MASK, MASK, MASK, SEP),
    }


def test_a_word_larger_than_the_budget_is_not_chosen():
    assert not chosen("elephants", whole_word=True).any()


# --- what is never touched -------------------------------------------------------------------


def test_special_tokens_within_a_passage_are_never_chosen():
    """As an [UNK] that a WordPiece tokenizer puts into a text."""
    tokens = torch.tensor([A, MASK, B, 1, C, 0])
    special = torch.isin(tokens, torch.tensor(BYTES.special))
    item = dataclasses.replace(passage("abcabc"), tokens=tokens)
    for choice, count in (("exact", 3), ("bert", 3), ("independent", 3)):
        objective = MaskedLM(BYTES, Settings(rate=1.0, choice=choice, mask=0, random=1))
        batch = objective.batch([item], [drawn(0)])
        targets = batch.targets["tokens"][0][1:-1]
        assert (targets[special] == IGNORE).all() and (targets != IGNORE).sum() == count
        assert torch.equal(batch.inputs["tokens"][0][1:-1][special], tokens[special])


texts = st.lists(st.text("ab c.é", min_size=1, max_size=30), min_size=1, max_size=4)
corruptions = st.builds(
    Settings,
    rate=st.sampled_from([0.15, 0.3, 0.4, 1.0]),
    choice=st.sampled_from(["exact", "bert", "independent"]),
    whole_word=st.booleans(),
    window=st.integers(3, 40),
)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(texts, corruptions, st.integers(0, 5))
def test_targets_put_back_give_the_text(texts, changes, seed):
    objective = MaskedLM(BYTES, changes)
    corpus = Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], BYTES)
    plan = objective.plan(corpus, seed, 0)
    batch = objective.batch(plan[:], draws(len(plan), seed))
    for (start, stop), inputs, mask, targets in zip(
        plan.rows.tolist(), batch.inputs["tokens"], batch.inputs["mask"], batch.targets["tokens"],
        strict=True,
    ):
        length = stop - start
        assert mask.sum() == length + 2 <= changes.window
        restored = torch.where(targets == IGNORE, inputs, targets)[: length + 2]
        assert restored.tolist() == [CLS, *corpus.tokens[start:stop].tolist(), SEP]
        touched = targets != IGNORE
        assert not touched[0] and not touched[length + 1 :].any(), "a special token or a pad"
        assert torch.isin(inputs[1 : length + 1][~touched[1 : length + 1]], BYTES.ordinary).all()
        replaced = inputs[touched & (inputs != MASK)]
        assert torch.isin(replaced, BYTES.ordinary).all()
        if changes.choice != "independent" and not changes.whole_word:
            counted = length + 2 * (changes.choice == "bert")
            assert touched.sum() == min(length, max(1, round(changes.rate * counted)))
