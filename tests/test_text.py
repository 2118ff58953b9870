"""Sentences and words against hand-worked answers; and a text cut into stretches."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpt.common.errors import InputError
from minicpt.data.documents import Document
from minicpt.data.text import SPACES, sentences, stretches, words

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
    begin = time.process_time()  # of this process alone, however busy the machine is
    sentences(piece * 500_000)
    assert time.process_time() - begin < 10


mixed = st.lists(
    st.sampled_from(
        "Dr.|the|cat|e.g.|2.|Fig.|3|well-known|No…|«Oui»|12.5|.|J.|(so)|。|好。|」|x.\n\n|\n|ok|End|"
        "beginning".split("|")
    ),
    max_size=30,
).map(" ".join)


@always
@given(text_like | mixed, st.sampled_from([SPACES, " "]), st.integers(1, 24))
def test_the_sentences_of_stretches_are_those_of_the_whole(text, breaks, size):
    parts = list(stretches(Document("x", text), breaks, size))
    assert "".join(part.text for part in parts) == text
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    starts, stops, base = [], [], 0
    for part in parts:
        spans = [(base + start, base + stop) for start, stop in part.sentences()]
        starts += [start for start, _ in spans][part.inside :]
        stops += [stop for _, stop in spans][: len(spans) - part.broken]
        base += len(part.text)
        assert part.last or not part.text[-1].isspace()
    assert list(zip(starts, stops, strict=True)) == sentences(text)


def test_stretches_are_not_much_longer_than_asked():
    prose = "Ich weiß nicht, was soll es bedeuten. Dass ich so traurig bin.\n" * 100
    chinese = "第一句话在这里。\n第二句话在这里。\n\n" * 200
    numbers = "0.12\t-3.4\t5.67\n" * 500
    for text in (prose, chinese, numbers):
        parts = [each.text for each in stretches(Document("x", text), size=100)]
        assert max(map(len, parts)) < 180 and len(parts) > len(text) / 180


@pytest.mark.parametrize("breaks, text", [("", "a b " * 9), (SPACES, "x" * 99), (" ", "a\nb" * 9)])
def test_a_text_without_a_place_to_cut_stays_whole_or_is_refused(monkeypatch, breaks, text):
    assert [each.text for each in stretches(Document("x", text), breaks, 4)] == [text]
    monkeypatch.setattr("minicpt.data.text.LONGEST", 20)
    with pytest.raises(InputError, match="'x' has .* without a space where it could be cut"):
        list(stretches(Document("x", text), breaks, 4))


def test_a_place_to_cut_is_sought_no_further_than_it_counts(monkeypatch):
    """Beyond that the text is refused already: looking through 100 MB of it would take long."""
    monkeypatch.setattr("minicpt.data.text.LONGEST", 20)
    with pytest.raises(InputError, match="without a space"):
        list(stretches(Document("x", "x" * 99 + " goes on and on here"), size=4))


def test_words():
    assert words("") == words(" \n") == []
    assert cut(" a\tb\u00a0c\n\nd", words) == ["a", "b", "c", "d"]
