"""Sentences, words, the held-out split and the hash, against hand-worked answers."""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpt.data.text import Document, sentences, sha256, split, words
from minicpt.errors import InputError

always = settings(derandomize=True, deadline=None, max_examples=200)


def cut(text: str, spans=sentences) -> list[str]:
    return [text[start:stop] for start, stop in spans(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["It rains.", "We stay!", "Why?", "No…", "Yes."],
        ['He said "Go."', "Then he left."],
        ["(Really?)", "[Yes.]", "“Of course.”", "‘Good.’"],
        ["Dr. Smith met Mr. J. R. Jones, i.e. the owner.", "They spoke."],
        ["See Fig. 3 and no. 5.", "He said no.", "Then he left."],
        ["Use e.g. Python.", "3 is odd."],
        ["It costs 3.5 euros at example.com.", "Élan is a word."],
        ["We wait... and wait.", "Wait...", "Now!?", "Yes."],
        ["1. First item.", "2. Second item."],
        ["Version 2.", "Next."],
        ["It ends. or it does not, in lower case."],
        ["He spoke. , then not."],
        ["Привет.", "Мир!", "Да."],
        ["مرحبا.", "عالم"],  # a script without capitals
        ["End of this.", '"Quoted," he said.', "*Emphasis* it is.", "(Aside.)"],
        ["No end"],
        [],
    ],
)
def test_sentences_of_prose(expected):
    assert cut(" ".join(expected)) == expected
    assert cut("\n  " + "\n".join(expected) + "  \n") == expected


def test_sentences_without_white_space_between_them():
    expected = ["你好。", "再见！", "「走吧。」", "好？", "是。"]
    assert cut("你好。再见！「走吧。」好？ 是。") == expected


def test_a_blank_line_always_ends_a_sentence():
    assert cut("a title  \n\nlower case\nsecond line\n \t\nof mr.\n\nend") == [
        "a title",
        "lower case\nsecond line",
        "of mr.",
        "end",
    ]
    assert cut("e.g.\n\n\n\nx") == ["e.g.", "x"]


def test_source_code_is_cut_at_blank_lines():
    code = "import os\n\n\ndef f(x):\n    return x.y\n\n\nclass A:\n    pass\n"
    assert cut(code) == ["import os", "def f(x):\n    return x.y", "class A:\n    pass"]


text_like = st.text(st.sampled_from("aB .!?…\"')(\n\t1。」,中\u2028-"), max_size=60)


@always
@given(text_like | st.text(max_size=40))
def test_every_character_that_is_no_white_space_is_in_one_sentence_and_one_word(text):
    for spans in (sentences(text), words(text)):
        previous = 0
        for start, stop in spans:
            assert previous <= start < stop
            assert not text[previous:start].strip()
            assert text[start:stop] == text[start:stop].strip()
            previous = stop
        assert not text[previous:].strip()
    assert cut(text, words) == text.split()


@pytest.mark.parametrize(
    "piece",
    ". |.|A. |e.g. A|1. |. -|!)|.\"|)|-|a|。|。」| |\n|\n ".split("|"),
)
def test_sentences_take_linear_time(piece):
    """Half a million times the same: a quadratic rule would take minutes."""
    begin = time.perf_counter()
    sentences(piece * 500_000)
    assert time.perf_counter() - begin < 5


def test_words():
    assert words("") == words(" \n") == []
    assert cut(" a\tb\u00a0c\n\nd", words) == ["a", "b", "c", "d"]


def numbered(count: int) -> list[Document]:
    return [Document(f"d{index}", f"text {index} " * (index + 1)) for index in range(count)]


def size(documents) -> int:
    return sum(len(item.text) for item in documents)


@pytest.mark.parametrize("count", [10, 11, 40])
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.25, 0.5])
def test_many_documents_are_split_whole(count, fraction):
    documents = numbered(count)
    training, held_out = split(documents, fraction)
    assert sorted(training + held_out, key=documents.index) == documents
    assert training == [item for item in documents if item not in held_out]
    assert training and held_out
    if len(held_out) > 1:
        assert size(held_out) <= fraction * size(documents)
    # Greedy: whatever is left would not have fitted.
    smallest = min(len(item.text) for item in training)
    assert size(held_out) + smallest > fraction * size(documents)
    assert split(documents, fraction) == (training, held_out)


def test_held_out_documents_are_not_simply_the_first_or_last():
    held_out = split([Document(str(index), "same") for index in range(100)], 0.1)[1]
    places = [int(item.name) for item in held_out]
    assert len(places) == 10 and places == sorted(places)
    assert places[0] > 0 and places[-1] - places[0] > 20


def test_few_documents_are_cut_at_the_first_sentence_after_the_fraction():
    text = "Aaaa bbbb. Cccc dddd. Eeee ffff. Gggg hhhh."  # 43 characters, sentences at 0 11 22 33
    assert split([Document("a", text)], 0.3) == (  # 43 - 12 = 31: the next sentence is at 33
        [Document("a", text[:33])],
        [Document("a, from character 33", text[33:])],
    )
    assert split([Document("a", text)], 0.5)[1][0].text == text[22:]  # 43 - 21 = 22, exactly
    # 43 - 4 = 39 has no sentence after it, nor a word: from the character.
    assert split([Document("a", text)], 0.1)[1][0].text == "hhh."
    # 43 - 6 = 37: no sentence, but a word at 38.
    assert split([Document("a", text)], 0.15)[1][0].text == "hhhh."


def test_few_documents_are_cut_between_them_where_a_sentence_starts():
    documents = [Document("a", "one two three"), Document("b", "Four."), Document("c", "Five.")]
    # 23 - 11 = 12, in the last sentence of the first: the next one starts the second document.
    assert split(documents, 0.5) == (documents[:1], documents[1:])
    assert split(documents, 0.3) == (documents[:2], documents[2:])  # 23 - 6 = 17, in the second
    assert split(documents, 0.25) == (documents[:2], documents[2:])  # 23 - 5 = 18, between them


@always
@given(
    st.lists(st.text(st.sampled_from("ab. C\n"), min_size=1, max_size=30), max_size=14),
    st.floats(0, 0.5),
)
def test_a_split_keeps_every_character_once(texts, fraction):
    documents = [Document(str(index), text) for index, text in enumerate(texts)]
    try:
        training, held_out = split(documents, fraction)
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


def test_nothing_is_held_out_with_fraction_zero():
    assert split(numbered(3), 0) == (numbered(3), [])


@pytest.mark.parametrize("fraction", [-0.1, 0.51, 1, math.nan, math.inf])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(InputError, match="between 0 and 0.5"):
        split(numbered(3), fraction)


@pytest.mark.parametrize("texts", [["a"], ["ab "], ["", ""], [], [" "] * 12])
def test_a_corpus_too_short_to_split_is_refused(texts):
    with pytest.raises(InputError, match="too short"):
        split([Document(str(index), text) for index, text in enumerate(texts)], 0.1)


def test_the_hash_tells_texts_apart_and_does_not_see_names():
    given_once = {
        sha256([Document("a", "bc")]),
        sha256([Document("a", "b"), Document("a", "c")]),
        sha256([Document("a", "c"), Document("a", "b")]),
        sha256([Document("a", "bc"), Document("a", "")]),
        sha256([]),
    }
    assert len(given_once) == 5
    assert sha256([Document("a", "bc")]) == sha256([Document("b", "bc")])
    # Independent: sha256sum of the length (eight bytes) and the two bytes.
    assert sha256([Document("a", "é")]) == (
        "1d9b2f68e31ef2b6730c67d7729ca6a523e7f19d8987ca7c72eb93cb3bb9d979"
    )
