"""The corpus on disk: it is the one in memory, found again, and made anew when it is not whole."""

import errno
import json
import os
import shutil
import time

import pytest
import torch
from tokenizers import Tokenizer as Engine
from tokenizers import models, pre_tokenizers

from minicpt.common import disk
from minicpt.common.errors import InputError, WorkError
from minicpt.data import cache
from minicpt.data import documents as module
from minicpt.data.copies import unseen
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document, Documents
from minicpt.data.sources import read
from minicpt.data.split import divide
from minicpt.data.tokenizer import Tokenizer

TENSORS = ("tokens", "words", "sentences", "documents", "starts", "bytes", "unknown")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A cache of its own, into which the smallest text goes."""
    monkeypatch.setenv("MINICPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALL", 0)
    return tmp_path / "cache" / "corpora"


@pytest.fixture
def documents():
    texts = ["The cat sat. It slept on. ", "", "Ein Wort\nmehr.", "x"]
    return Documents.of(Document(f"n{place}é", text) for place, text in enumerate(texts))


def same(one: Corpus, other: Corpus) -> bool:
    tensors = all(torch.equal(getattr(one, name), getattr(other, name)) for name in TENSORS)
    return tensors and list(one.names) == list(other.names)


def forbidden(*arguments, **options):
    raise AssertionError("tokenised again")


def quiet(message: str) -> None:
    raise AssertionError(message)


def test_what_comes_back_is_the_corpus_in_memory(documents, tokenizer, monkeypatch):
    expected = Corpus.build(documents, tokenizer)
    assert same(cache.corpus(documents, tokenizer, say=quiet), expected)
    monkeypatch.setattr(cache.building, "chunks", forbidden)
    again = cache.corpus(documents, tokenizer, say=quiet)
    assert same(again, expected)
    assert again.names[-1] == "n3é" and again.names[0] == "n0é" and len(again.names) == 3
    with pytest.raises(IndexError):
        again.names[3]
    for name in TENSORS:
        assert getattr(again, name).dtype == getattr(expected, name).dtype


def test_another_text_name_or_tokenizer_is_another_corpus(documents, tokenizer, byte_tokenizer):
    cache.corpus(documents, tokenizer)
    renamed = Documents.of(Document("other", each.text) for each in documents)
    assert cache.corpus(renamed, tokenizer).names[0] == "other"
    assert same(cache.corpus(documents, byte_tokenizer), Corpus.build(documents, byte_tokenizer))
    assert len(list(cache.folder().iterdir())) == 3


@pytest.fixture
def word_tokenizer():
    """It knows two words: most of the text is unknown to it, so that none of the files is empty."""
    engine = Engine(models.WordLevel({"[UNK]": 0, "The": 1, "cat": 2}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(engine.to_str(), {"unk_token": "[UNK]"})


@pytest.mark.parametrize("name", [*cache.KINDS, cache.HEADER])
@pytest.mark.parametrize("how", ["gone", "cut", "longer", "empty", "flipped"])
def test_what_is_not_whole_is_made_anew_and_it_is_said(
    documents, word_tokenizer, place, name, how
):
    tokenizer = word_tokenizer
    cache.corpus(documents, tokenizer)
    (entry,) = place.iterdir()
    data = (entry / name).read_bytes()
    if how == "gone":
        (entry / name).unlink()
    else:
        flipped = bytes([data[0] ^ 1]) + data[1:]
        new = {"cut": data[:-2], "longer": data + b"x", "empty": b"", "flipped": flipped}[how]
        (entry / name).write_bytes(new)
    said = []
    made = cache.corpus(documents, tokenizer, say=said.append)
    assert same(made, Corpus.build(documents, tokenizer))
    assert len(said) == 1 and str(entry) in said[0] and "damaged" in said[0]
    assert (entry / name).read_bytes() == data and len(list(place.iterdir())) == 1


def test_where_nothing_can_be_written_it_is_said_and_goes_on(
    documents, tokenizer, place, monkeypatch, tmp_path
):
    place.parent.mkdir()
    place.write_text("a file where the folder should be")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(cache.tempfile, "tempdir", str(temporary))
    said = []
    corpus = cache.corpus(documents, tokenizer, say=said.append)
    assert same(corpus, Corpus.build(documents, tokenizer))
    assert len(said) == 1 and "MINICPT_CACHE" in said[0] and str(place) in said[0]
    assert not list(temporary.iterdir())
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(WorkError, match="cannot write to .*nowhere"):
        cache.corpus(documents, tokenizer, say=said.append)


@pytest.mark.parametrize("when", ["while it is written", "before it gets its name"])
def test_what_another_process_made_meanwhile_is_taken(
    documents, tokenizer, place, monkeypatch, when
):
    room, name = (cache, "_write") if when == "while it is written" else (disk, "sync")
    real, inodes = getattr(room, name), []

    def slower(*arguments):
        if not inodes:  # the other one does not wait for yet another one
            inodes.append(None)
            cache.corpus(documents, tokenizer, say=quiet)
            (entry,) = [each for each in place.iterdir() if each.suffix != ".tmp"]
            inodes.append(entry.stat().st_ino)
        return real(*arguments)

    monkeypatch.setattr(room, name, slower)
    expected = Corpus.build(documents, tokenizer)
    assert same(cache.corpus(documents, tokenizer, say=quiet), expected)
    (entry,) = place.iterdir()
    assert inodes[1:] == [entry.stat().st_ino]


def test_a_full_disk_leaves_no_litter(documents, tokenizer, place, monkeypatch):
    real, calls = os.fsync, []

    def full(number):
        calls.append(number)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    monkeypatch.setattr(cache.os, "fsync", full)
    said = []
    corpus = cache.corpus(documents, tokenizer, say=said.append)
    assert same(corpus, Corpus.build(documents, tokenizer))
    assert "No space left" in said[0] and not list(place.iterdir())


def test_a_corpus_without_a_token_is_refused_and_not_kept(tokenizer, place):
    with pytest.raises(InputError, match="no token"):
        cache._passing("key", Documents.of([Document("a", "")]), tokenizer, False)
    with pytest.raises(InputError, match="no token"):
        cache.corpus(Documents.of([Document("a", "")]), tokenizer)


def test_what_was_not_used_for_longest_goes_first(tokenizer, place, monkeypatch):
    texts = [Documents.of([Document("a", f"Text number {number}.")]) for number in range(4)]
    entries = []
    for number, each in enumerate(texts):
        cache.corpus(each, tokenizer)
        (new,) = set(place.iterdir()).difference(entries)
        entries.append(new)
        os.utime(new, (number, number))
    cache.corpus(texts[0], tokenizer)  # used again
    size = sum(file.stat().st_size for file in entries[0].iterdir())
    (place / "old.tmp").mkdir()
    os.utime(place / "old.tmp", (0, 0))
    (place / "new.tmp").mkdir()
    monkeypatch.setattr(cache, "MOST", 2 * size + size // 2)
    cache.tidy(entries[3])
    assert set(place.iterdir()) == {entries[0], entries[3], place / "new.tmp"}
    assert time.time() - entries[0].stat().st_mtime < 100


def test_parts_come_back_with_their_documents_and_starts(tokenizer):
    documents = Documents.of([Document("a", "One two. Three four. Five six.")])
    held_out = divide(documents, 0.4)[1]
    for _ in range(2):  # tokenised, then from the cache
        passage = cache.corpus(held_out, tokenizer, say=quiet).passage(0, 2)
        assert (passage.document, passage.character) == ("a", 21)
        assert passage.place == "a, from character 21, token 0"


def test_small_texts_leave_nothing(documents, tokenizer, place, monkeypatch):
    monkeypatch.setattr(cache, "SMALL", 1000)
    cache.corpus(documents, tokenizer)
    assert not place.exists()


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    assert cache.folder() == tmp_path / "cache" / "corpora"
    monkeypatch.delenv("MINICPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "minicpt" / "corpora"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "home" / ".cache" / "minicpt" / "corpora"
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)


def written(path, word: str) -> None:
    path.write_text("".join(f"Line {number} of {word}.\n" for number in range(400)))


@pytest.mark.parametrize("kind", ["short.txt", "long.txt", "lines.jsonl"])
@pytest.mark.parametrize("size", [0, 1 << 22])  # characters that are not kept: none, and all
def test_a_text_that_changed_after_it_was_hashed_is_not_taken_for_it(
    kind, size, tokenizer, place, tmp_path, monkeypatch
):
    """The file is edited before it is tokenised, and restored after it."""
    monkeypatch.setattr(cache, "SMALL", size)
    if kind == "long.txt":
        monkeypatch.setattr(module, "PIECE", 1000)
    path = tmp_path / kind

    def write(word):
        written(path, word)
        if kind == "lines.jsonl":
            lines = path.read_text().splitlines()
            path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))

    write("A")
    documents = read([str(path)])
    parts = divide(documents, 0.3)
    write("B")  # as long as before
    for each in (documents, *parts):
        with pytest.raises(WorkError, match="has changed since it was read first: start again"):
            cache.corpus(each, tokenizer, say=quiet)
    assert not place.exists() or not list(place.iterdir())
    write("A")
    for each in (documents, *parts):
        found = cache.corpus(each, tokenizer, say=quiet)
        assert same(found, Corpus.build(list(each), tokenizer))


def test_a_text_that_grew_or_shrank_after_it_was_hashed_is_refused(tokenizer, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "One."}\n' * 3)
    documents = read([str(path)])
    for count in (2, 4):
        path.write_text('{"text": "One."}\n' * count)
        with pytest.raises(WorkError, match="has changed"):
            cache.corpus(documents, tokenizer, say=quiet)


@pytest.mark.parametrize("what", ["gone", "less", "more"])
def test_a_long_file_that_grew_or_shrank_after_it_was_hashed_is_refused(
    what, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "PIECE", 1000)
    path = tmp_path / "long.txt"
    path.write_text("word " * 1000)  # five pieces exactly
    documents = read([str(path)])
    path.write_text("word " * {"gone": 200, "less": 800, "more": 1200}[what])
    with pytest.raises(WorkError, match="long.txt' has changed"):
        cache.corpus(documents, tokenizer, say=quiet)


def test_each_choice_of_documents_has_a_key_of_its_own():
    """Parts of one text that hold other documents are other corpora, whatever chose them."""
    documents = Documents.of(Document(str(n), f"A text with number {n:02}.") for n in range(40))
    chosen = [part for share in (0.1, 0.2, 0.3) for part in divide(documents, share)]
    for number in (0, 7, 8):
        other = Documents.of([Document("other", f"A text with number {number:02}.")])
        chosen.append(unseen(documents, other))
    texts = [tuple(each.text for each in documents) for documents in chosen]
    assert len({each.key for each in chosen}) == len(set(texts)) == len(chosen)
    assert len({each.sha256 for each in chosen}) == len(chosen)
