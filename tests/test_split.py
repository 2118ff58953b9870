"""What is held out, against hand-worked answers, and the sample that a tokenizer is trained on."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpt.common.errors import InputError
from minicpt.data.documents import Document, Documents
from minicpt.data.split import divide, sample

always = settings(derandomize=True, deadline=None, max_examples=200)


def parts(documents, fraction):
    training, held_out = divide(documents, fraction)
    for each in (training, held_out):
        assert list(each.lengths) == [len(item.text) for item in each] and len(each) == len([*each])
    return list(training), list(held_out)


def numbered(count: int) -> list[Document]:
    return [Document(f"d{index}", f"text {index} " * (index + 1)) for index in range(count)]


def size(documents) -> int:
    return sum(len(item.text) for item in documents)


@pytest.mark.parametrize("count", [10, 11, 40])
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.25, 0.5])
def test_many_documents_are_split_whole(count, fraction):
    documents = numbered(count)
    training, held_out = parts(documents, fraction)
    assert sorted(training + held_out, key=documents.index) == documents
    assert training == [item for item in documents if item not in held_out]
    assert training and held_out
    if len(held_out) > 1:
        assert size(held_out) <= fraction * size(documents)
    # Greedy: whatever is left would not have fitted.
    smallest = min(len(item.text) for item in training)
    assert size(held_out) + smallest > fraction * size(documents)
    assert parts(documents, fraction) == (training, held_out)


def test_held_out_documents_are_not_simply_the_first_or_last():
    held_out = parts([Document(str(index), f"text {index:02}") for index in range(100)], 0.1)[1]
    places = [int(item.name) for item in held_out]
    assert len(places) == 10 and places == sorted(places)
    assert places[0] > 0 and places[-1] - places[0] > 20


def test_few_documents_are_cut_at_the_first_sentence_after_the_fraction():
    text = "Aaaa bbbb. Cccc dddd. Eeee ffff. Gggg hhhh."  # 43 characters, sentences at 0 11 22 33
    assert parts([Document("a", text)], 0.3) == (  # 43 - 12 = 31: the next sentence is at 33
        [Document("a", text[:33])],
        [Document("a", text[33:], 33)],
    )
    assert parts([Document("a", text)], 0.5)[1][0].text == text[22:]  # 43 - 21 = 22, exactly
    # 43 - 4 = 39 has no sentence after it, nor a word: from the character.
    assert parts([Document("a", text)], 0.1)[1][0].text == "hhh."
    # 43 - 6 = 37: no sentence, but a word at 38.
    assert parts([Document("a", text)], 0.15)[1][0].text == "hhhh."


def test_few_documents_are_cut_between_them_where_a_sentence_starts():
    documents = [Document("a", "one two three"), Document("b", "Four."), Document("c", "Five.")]
    # 23 - 11 = 12, in the last sentence of the first: the next one starts the second document.
    assert parts(documents, 0.5) == (documents[:1], documents[1:])
    assert parts(documents, 0.3) == (documents[:2], documents[2:])  # 23 - 6 = 17, in the second
    assert parts(documents, 0.25) == (documents[:2], documents[2:])  # 23 - 5 = 18, between them


@always
@given(
    st.lists(st.text(st.sampled_from("ab. C\n"), min_size=1, max_size=30), max_size=14),
    st.floats(0, 0.5),
)
def test_a_division_keeps_every_character_once(texts, fraction):
    documents = [Document(str(index), text) for index, text in enumerate(texts)]
    try:
        training, held_out = parts(documents, fraction)
    except InputError:
        return
    whole = sorted(item.text for item in training + held_out)
    if len(documents) < 10:
        assert "".join(item.text for item in training + held_out) == "".join(texts)
    else:
        assert whole == sorted(texts)
    if fraction:
        assert any(item.text.strip() for item in training)
        assert any(item.text.strip() for item in held_out)


def test_a_text_in_many_stretches_is_cut_where_it_would_be_whole(monkeypatch):
    text = "It goes on and on, always further. Then it ends for once. " * 40
    whole = [parts([Document("a", text)], share / 50) for share in range(1, 25)]
    monkeypatch.setattr("minicpt.data.text.stretches.__defaults__", (" \t\n", 50))
    assert [parts([Document("a", text)], share / 50) for share in range(1, 25)] == whole


def test_a_sample_is_everything_or_comes_from_everywhere(monkeypatch):
    monkeypatch.setattr("minicpt.data.split.SAMPLED", 20)
    texts = [" ".join(f"word{number:04}" for number in range(100)) for _ in range(20)]
    documents = Documents.of(Document(str(place), text) for place, text in enumerate(texts))
    assert "".join(sample(documents)) == "".join(texts)
    few = list(sample(documents, 2000))
    assert 1800 < sum(map(len, few)) <= 2000 and few == list(sample(documents, 2000))
    # The same words stand in every document: the parts kept are from all over each.
    assert len({part.split()[0] for part in few}) > 20


def test_nothing_is_held_out_with_fraction_zero():
    assert parts(numbered(3), 0) == (numbered(3), [])


@pytest.mark.parametrize("fraction", [-0.1, 0.51, 1, math.nan, math.inf])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(InputError, match="between 0 and 0.5"):
        divide(numbered(3), fraction)


@pytest.mark.parametrize("texts", [["a"], ["ab "], ["", ""], [], [" "] * 12])
def test_a_corpus_too_short_to_split_is_refused(texts):
    with pytest.raises(InputError, match="too short"):
        divide([Document(str(index), text) for index, text in enumerate(texts)], 0.1)
