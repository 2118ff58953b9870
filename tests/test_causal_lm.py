"""Causal language modelling against answers worked by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import close, drawn, model_of

from minicpt.batch import IGNORE
from minicpt.common.errors import InputError
from minicpt.data.corpus import Corpus
from minicpt.data.packing import Row
from minicpt.data.text import Document
from minicpt.data.tokenizer import Tokenizer
from minicpt.loss import target_losses
from minicpt.objectives.causal_lm import CausalLM, Settings

BYTES = Tokenizer.train([], 256)
END = 1
A, B, C, D, E, F = range(69, 75)  # "a" to "f"


def rows(texts, window, seed=0, epoch=0):
    """(start, inputs, targets) of every window, in the order of the text."""
    objective = CausalLM(BYTES, Settings(window=window))
    corpus = Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], BYTES)
    plan = objective.plan(corpus, seed, epoch)
    result = []
    for (start, _), passage in zip(plan.rows.tolist(), plan, strict=True):
        batch = objective.batch([passage], [drawn("none")])
        inputs, targets = batch.inputs["tokens"][0].tolist(), batch.targets["tokens"][0].tolist()
        result.append((start, inputs, targets))
    return sorted(result)


def test_a_document_in_one_window():
    assert rows(["abc"], 8) == [(0, [END, A, B, C], [A, B, C, END])]


def test_a_window_is_filled_to_the_last_position():
    assert rows(["abc"], 4) == [(0, [END, A, B, C], [A, B, C, END])]


def test_the_last_position_predicts_the_first_token_of_the_next_window():
    assert rows(["abcdef"], 4) == [
        (0, [END, A, B, C], [A, B, C, D]),
        (3, [D, E, F], [E, F, END]),
    ]


def test_windows_do_not_cross_documents():
    assert rows(["ab", "c"], 8) == [(0, [END, A, B], [A, B, END]), (2, [END, C], [C, END])]


def test_the_smallest_window():
    assert rows(["abc"], 2) == [(0, [END, A], [A, B]), (1, [B, C], [C, END])]
    with pytest.raises(InputError, match="--window"):
        Settings(window=1)


def test_a_batch_with_padding():
    objective = CausalLM(BYTES, Settings(window=4))
    corpus = Corpus.build([Document("one", "abcdef")], BYTES)
    passages = [corpus.passage(0, 3), corpus.passage(5, 6)]
    batch = objective.batch(passages, [drawn(0), drawn(1)])
    assert batch.inputs.keys() == {"tokens", "mask"} and batch.targets.keys() == {"tokens"}
    assert batch.inputs["tokens"].tolist() == [[END, A, B, C], [F, END, END, END]]
    assert batch.inputs["mask"].tolist() == [[True] * 4, [True, False, False, False]]
    assert batch.targets["tokens"].tolist() == [[A, B, C, D], [END, IGNORE, IGNORE, IGNORE]]
    seen = objective.visibility(batch)["tokens"]["tokens"].int().tolist()
    assert seen[0] == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert seen[1][0] == [1, 0, 0, 0]


def test_special_tokens_in_the_text_are_text():
    (_, inputs, targets), = rows(["<|endoftext|>"], 32)
    assert inputs.count(END) == 1 == targets.count(END) and targets[-1] == END


def test_nothing_is_drawn():
    objective = CausalLM(BYTES, Settings(window=8))
    corpus = Corpus.build([Document("one", "abcdef")], BYTES)
    random = drawn("unused")
    before = random.generator.get_state()
    objective.batch(objective.plan(corpus, 0, 0)[:1], [random])
    assert torch.equal(random.generator.get_state(), before)


def test_later_epochs_cut_elsewhere():
    starts = {tuple(start for start, _, _ in rows(["abcdef" * 9], 8, 0, epoch)) for epoch in (0, 1)}
    assert len(starts) == 2


# --- packed ----------------------------------------------------------------------------------


def test_a_packed_batch_by_hand():
    objective = CausalLM(BYTES, Settings(window=6, pack=True))
    corpus = Corpus.build([Document("one", "abc"), Document("two", "d")], BYTES)
    rows = [Row((corpus.passage(0, 3), corpus.passage(3, 4))), Row((corpus.passage(1, 2),))]
    batch = objective.batch(rows, [drawn(0), drawn(1)])
    assert batch.inputs["tokens"].tolist() == [[END, A, B, C, END, D], [B, *[END] * 5]]
    assert batch.inputs["positions"].tolist() == [[0, 1, 2, 3, 0, 1], [0] * 6]
    assert batch.targets["tokens"].tolist() == [[A, B, C, END, D, END], [C, *[IGNORE] * 5]]
    first = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    second = [[1, 0, 0, 0, 0, 0], *[[0] * 6] * 5]
    assert batch.inputs["mask"].int().tolist() == [first, second]
    assert objective.visibility(batch)["tokens"]["tokens"].int().tolist() == [first, second]
    assert rows[0].place == "one, token 0 and 1 more" and rows[1].place == "one, token 1"


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    st.lists(st.text("ab .\né", min_size=1, max_size=40), min_size=1, max_size=8),
    st.integers(3, 30),
    st.integers(0, 2),
)
def test_packed_losses_are_those_of_each_window_alone(texts, window, epoch):
    """Float64: the same windows, each once, and for each target the same loss."""
    corpus = Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], BYTES)
    plain = CausalLM(BYTES, Settings(window=window))
    packed = CausalLM(BYTES, Settings(window=window, pack=True))
    model = model_of(plain, layers=2).double().eval()
    expected = {}
    for passage in plain.plan(corpus, 0, epoch):
        found = target_losses(model, plain.batch([passage], [drawn("none")]))["tokens"]
        expected[passage.place] = found.losses.tolist()
    rows = packed.plan(corpus, 0, epoch)[:]
    assert sorted(each.place for row in rows for each in row.passages) == sorted(expected)
    batch = packed.batch(rows, [drawn("none")] * len(rows))
    assert batch.inputs["tokens"].shape[1] <= window
    found = target_losses(model, batch)["tokens"]
    losses = [expected[each.place] for row in rows for each in row.passages]
    close(found.losses, torch.tensor(sum(losses, []), dtype=torch.float64), model, batch)


texts = st.lists(st.text("ab .\né", min_size=1, max_size=40), min_size=1, max_size=5)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(texts, st.integers(2, 20), st.integers(0, 3), st.integers(0, 3))
def test_every_token_is_a_target_exactly_once(texts, window, seed, epoch):
    """In the order of the text, windows give back each document: read behind the end-of-text
    token, predicted in front of it."""
    corpus = Corpus.build([Document(str(i), text) for i, text in enumerate(texts)], BYTES)
    found = rows(texts, window, seed, epoch)
    assert all(len(inputs) == len(targets) <= window for _, inputs, targets in found)
    for index, text in enumerate(texts):
        start, stop = corpus.document(index)
        own = [row for row in found if start <= row[0] < stop]
        expected = BYTES.encode(text)
        assert sum((inputs for _, inputs, _ in own), []) == [END, *expected]
        assert sum((targets for _, _, targets in own), []) == [*expected, END]
