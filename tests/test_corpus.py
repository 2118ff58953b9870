"""The corpus: where words and sentences start, and passages."""

import signal
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import fake
from tokenizers import Tokenizer as Engine
from tokenizers import models, normalizers, pre_tokenizers

from minicpt.common.errors import InputError
from minicpt.data import building
from minicpt.data.corpus import Corpus
from minicpt.data.text import Document, sentences, stretches, words
from minicpt.data.tokenizer import PORTION, Tokenizer

always = settings(derandomize=True, deadline=None)
BYTES = Tokenizer.train([], 256)
MERGED = Tokenizer.train(["the cat sat on the mat. The end. " * 9], 256 + 30)


def load(engine: Engine, folder) -> Tokenizer:
    engine.save(str(folder / "tokenizer.json"))
    return Tokenizer.load(folder)


def pieces(corpus: Corpus, tokenizer: Tokenizer, starts: torch.Tensor) -> list[str]:
    """The tokens between starts, each group as text."""
    edges = [*starts.tolist(), len(corpus.tokens)]
    shown = [tokenizer.token(i) for i in corpus.tokens.tolist()]
    return ["".join(shown[a:b]) for a, b in zip(edges, edges[1:], strict=False)]


def test_white_space_belongs_to_the_word_after_it():
    text = "  a b.\n\nC d\n"
    corpus = Corpus.build([Document("x", text)], BYTES)
    assert pieces(corpus, BYTES, corpus.words) == ["␣␣a", "␣b.", "\\n\\nC", "␣d\\n"]
    assert pieces(corpus, BYTES, corpus.sentences) == ["␣␣a␣b.", "\\n\\nC␣d\\n"]
    assert corpus.tokens.dtype == torch.int32
    assert {corpus.words.dtype, corpus.sentences.dtype, corpus.documents.dtype} == {torch.int64}


def test_documents_begin_words_and_sentences_of_their_own():
    documents = [Document("x", "a b "), Document("y", "c"), Document("z", "  d. E")]
    corpus = Corpus.build(documents, BYTES)
    assert pieces(corpus, BYTES, corpus.words) == ["a", "␣b␣", "c", "␣␣d.", "␣E"]
    assert pieces(corpus, BYTES, corpus.sentences) == ["a␣b␣", "c", "␣␣d.", "␣E"]
    assert corpus.documents.tolist() == [0, 4, 5] and corpus.names == ("x", "y", "z")
    assert [corpus.document(index) for index in range(3)] == [(0, 4), (4, 5), (5, 11)]
    for index in (-1, 3):
        with pytest.raises(IndexError):
            corpus.document(index)


@pytest.mark.parametrize("case", ["wordpiece", "metaspace", "word then metaspace"])
def test_words_of_other_tokenizers(tmp_path, case):
    if case == "wordpiece":
        vocabulary = "[UNK] a ##b . c ( )".split()
        engine = Engine(
            models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]")
        )
        engine.normalizer = normalizers.BertNormalizer()
        engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        expected = ["a##b.", "(c)", "a##b"]
    else:
        listed = [("<unk>", 0.0), ("▁", -3.0), ("▁a", -1.0), ("b", -2.0), ("c", -2.0)]
        listed += [(".", -2.0), ("(", -2.0), (")", -2.0), ("A", -2.0), ("C", -2.0)]
        engine = Engine(models.Unigram(listed, unk_id=0))
        engine.pre_tokenizer = pre_tokenizers.Metaspace()
        expected = ["␣ab.", "␣␣(C)", "␣Ab"]
        if case == "word then metaspace":
            engine.pre_tokenizer = pre_tokenizers.Sequence(
                [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
            )
            expected = ["␣ab.", "␣(C)", "␣Ab"]
    tokenizer = load(engine, tmp_path)
    corpus = Corpus.build([Document("x", "ab.  (C) Ab")], tokenizer)
    assert pieces(corpus, tokenizer, corpus.words) == expected
    assert pieces(corpus, tokenizer, corpus.sentences) == [expected[0], "".join(expected[1:])]


texts = st.lists(st.text(st.sampled_from("the cat. T\n é中"), max_size=40), min_size=1, max_size=6)


@always
@given(texts, st.integers(1, 30))
def test_starts_follow_the_rule_token_by_token(given_texts, together):
    """Against the rule applied by counting, for each token of each document alone."""
    documents = [Document(str(index), text) for index, text in enumerate(given_texts)]
    expected: dict[str, list[int]] = {"tokens": [], "words": [], "sentences": [], "documents": []}
    for text in given_texts:
        ((ids, offsets),) = MERGED.encode_with_offsets([text])
        base = len(expected["tokens"])
        for name, spans in (("words", words(text)), ("sentences", sentences(text))):
            previous = None
            for place, (start, _) in enumerate(offsets):
                number = min(sum(stop <= start for _, stop in spans), max(len(spans) - 1, 0))
                if number != previous:
                    expected[name].append(base + place)
                previous = number
        expected["documents"] += [base] if ids else []
        expected["tokens"] += ids
    before, building.TOGETHER = building.TOGETHER, together
    try:
        corpus = Corpus.build(documents, MERGED)
    except InputError:
        assert not expected["tokens"]
        return
    finally:
        building.TOGETHER = before
    assert {name: getattr(corpus, name).tolist() for name in expected} == expected
    assert corpus.names == tuple(item.name for item in documents if item.text)


def test_a_long_document_is_built_in_portions_and_none_the_wiser():
    text = "The cat sat on the mat. It was é.\n\n" * 5000  # 175 000 characters: three portions
    assert len(list(stretches(Document("x", text), MERGED.breaks, PORTION))) > 2
    corpus = Corpus.build([Document("before", "x"), Document("x", text)], MERGED)
    assert corpus.tokens.tolist()[1:] == MERGED.encode(text)
    assert len(corpus.words) == 1 + 5000 * 9 and len(corpus.sentences) == 1 + 5000 * 2


@pytest.mark.parametrize("documents", [[], [Document("a", "")], [Document("a", "")] * 3])
def test_a_corpus_without_a_token_is_refused(documents):
    with pytest.raises(InputError, match="no token"):
        Corpus.build(documents, BYTES)


def test_a_document_without_a_token_is_left_out():
    documents = [Document("a", ""), Document("b", "b"), Document("c", ""), Document("d", "d")]
    corpus = Corpus.build(documents, BYTES)
    assert corpus.names == ("b", "d") and corpus.documents.tolist() == [0, 1]
    assert corpus.words.tolist() == corpus.sentences.tolist() == [0, 1]


@pytest.mark.parametrize("terminal, progress, shown", [(1, 1, 1), (1, 0, 0), (0, 1, 0)])
def test_progress_shows_on_a_terminal_only_and_when_asked(
    monkeypatch, capsys, terminal, progress, shown
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: bool(terminal), raising=False)
    Corpus.build([Document("a", "text")], BYTES, progress=bool(progress))
    output = capsys.readouterr()
    assert ("tokenise" in output.err) == bool(shown) and not output.out


def test_a_passage_knows_its_place():
    corpus = Corpus.build([Document("one.txt", "ab cd. E"), Document("two.txt", "fg")], BYTES)
    passage = corpus.passage(2, 6)  # " cd."
    assert BYTES.decode(passage.tokens.tolist()) == " cd."
    assert passage.tokens.dtype == torch.int64
    assert passage.words.tolist() == [True, False, False, False]
    assert passage.sentences.tolist() == [False] * 4
    assert (passage.first, passage.last, passage.place) == (False, False, "one.txt, token 2")
    assert passage.following == int(corpus.tokens[6])
    whole = corpus.passage(0, 8)
    assert (whole.first, whole.last, whole.following) == (True, True, None)
    assert whole.sentences.tolist() == [True] + [False] * 5 + [True, False]
    tail = corpus.passage(9, 10)
    assert (tail.first, tail.last, tail.place) == (False, True, "two.txt, token 1")
    assert tail.words.tolist() == [False]


@pytest.mark.parametrize("start, stop", [(0, 4), (0, 2), (1, 4), (1, 3)])
def test_a_part_of_a_passage_is_the_passage_of_that_part(start, stop):
    corpus = fake([2, 4, 1])
    part, expected = corpus.passage(2, 6).part(start, stop), corpus.passage(2 + start, 2 + stop)
    for name in ("tokens", "words", "sentences"):
        assert torch.equal(getattr(part, name), getattr(expected, name))
    for name in ("first", "last", "following"):
        assert getattr(part, name) == getattr(expected, name)


def test_a_passage_is_a_copy():
    corpus = fake([4])
    corpus.passage(0, 4).tokens.zero_()
    assert corpus.tokens.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("start, stop", [(0, 5), (3, 3), (3, 2), (-1, 2), (4, 8), (7, 8)])
def test_a_passage_across_documents_or_without_tokens_is_refused(start, stop):
    with pytest.raises(InputError, match="no passage"):
        fake([4, 3]).passage(start, stop)


# The library is given a word of millions of characters: a signal must not wait for it.
ENDLESS = """
import sys, time
from minicpt import __main__
from minicpt.cli import main as command_line
from minicpt.data import building
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document
from minicpt.data.tokenizer import Tokenizer

def encodings(*given):
    print("ready", flush=True)
    time.sleep(600)

def work(arguments):
    Corpus.build([Document("x", "a b"), Document("y", "c")], Tokenizer.train([], 256))

building.encodings = encodings
command_line.verbs()["demo"].run = work
sys.argv = ["minicpt", "demo"]
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_tokenising(number):
    child = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.5)  # the first thread comes to wait
        child.send_signal(number)
        _, error = child.communicate(timeout=20)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 128 + number
    assert error == f"minicpt: {number.name}: stopped; nothing to save\n"
