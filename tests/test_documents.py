"""Documents that are too long to be held: read in pieces, they are the text itself."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicpt.common.errors import InputError, WorkError
from minicpt.data import documents as module
from minicpt.data import sources
from minicpt.data.corpus import Corpus
from minicpt.data.documents import Document, Documents, FileText, count_invalid, decoded
from minicpt.data.sources import read
from minicpt.data.split import divide, without
from minicpt.data.text import stretches

always = settings(derandomize=True, deadline=None)


@pytest.fixture(params=[1, 2, 3, 7])
def small_pieces(request, monkeypatch):
    """Files are read in pieces of so many bytes, and longer ones are not held."""
    monkeypatch.setattr(module, "PIECE", request.param)
    return request.param


CONTENT = "\ufeffZwölf Boxkämpfer.\r\nThey ran…\r\rAnd \U0001f600 \ufffd.\r\n\r\n好。 End\r"
TEXT = "Zwölf Boxkämpfer.\nThey ran…\n\nAnd \U0001f600 \ufffd.\n\n好。 End\n"


def test_a_long_file_is_its_text(small_pieces, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(CONTENT.encode())
    documents = read([str(path)])
    (document,) = documents
    assert isinstance(document.content, FileText) and document.text == TEXT
    assert list(documents.lengths) == [len(TEXT)] and documents.bytes == len(TEXT.encode())
    assert documents.sha256 == Documents.of([Document("other", TEXT)]).sha256
    for start in range(0, len(TEXT), 3):
        for stop in [*range(start, len(TEXT), 5), None]:
            part = document.part(start, stop)
            assert part.text == TEXT[start:stop]
            assert (part.source, part.start) == (str(path), start)
            assert part.part(1, 4).text == TEXT[start:stop][1:4]


def test_a_long_file_is_divided_as_a_short_one(small_pieces, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(CONTENT.encode())
    for fraction in (0.1, 0.3, 0.5):
        long = [(each.name, each.text) for part in divide(read([str(path)]), fraction)
                for each in part]  # fmt: skip
        held = divide([Document(str(path), TEXT)], fraction)
        assert long == [(each.name, each.text) for part in held for each in part]


def test_blocks_of_a_long_file_are_those_of_a_short_one(small_pieces, tmp_path):
    path = tmp_path / "a.txt"
    text = "\n\none\n  more\n \t\ntwo\n\n\n\n  three\n  "
    path.write_text(text)
    found = [each.text for each in read([str(path)], blocks=True)]
    assert found == ["one\n  more", "two", "  three\n  "]


def test_the_byte_of_invalid_utf8_is_named_wherever_it_stands(small_pieces, tmp_path):
    path = tmp_path / "a.txt"
    for place in range(12):
        data = ("é" * 10).encode()[: 2 * (place // 2)] + b"\xff" + "ö".encode() * 3
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"not UTF-8 at byte {2 * (place // 2)}:"):
            read([str(path)])
    path.write_bytes("fine é".encode()[:-1])
    with pytest.raises(InputError, match="not UTF-8 at byte 5:"):
        read([str(path)])


@always
@given(st.lists(st.sampled_from([b"a", b"\xff", b"\xc3", b"\xa9", b"\xe2\x82", "�é€😀".encode()])))
def test_what_is_replaced_is_what_python_replaces_and_counted(parts):
    data = b"".join(parts)
    path = test_what_is_replaced_is_what_python_replaces_and_counted.path
    path.write_bytes(data)
    expected = data.decode("utf-8", "replace")
    before = module.PIECE
    try:
        for module.PIECE in (1, 3, before):
            assert "".join(decoded(str(path), "replace")) == expected
            assert count_invalid(str(path)) == expected.count("�") - data.count("�".encode())
    finally:
        module.PIECE = before


@pytest.fixture(autouse=True)
def _a_path(tmp_path):
    test_what_is_replaced_is_what_python_replaces_and_counted.path = tmp_path / "parts"


def test_invalid_utf8_is_replaced_when_asked(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \xff\xfe au lait")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "gr\xfcn"}\n')
    documents = read([str(tmp_path)], errors="replace")
    assert [each.text for each in documents] == ["caf� �� au lait", "gr�n"]
    assert documents.replaced == 4
    with pytest.raises(InputError, match="b.jsonl' is not UTF-8 at byte 12: .*--errors replace"):
        read([str(tmp_path / "b.jsonl")])


def test_the_hash_tells_texts_apart_and_does_not_see_names():
    def sha256(*texts: str, name: str = "a") -> str:
        return Documents.of(Document(name, text) for text in texts).sha256

    given_once = {sha256("bc"), sha256("b", "c"), sha256("c", "b"), sha256("bc", ""), sha256()}
    assert len(given_once) == 5
    assert sha256("bc") == sha256("bc", name="b")
    keys = {Documents.of([Document(name, "bc")]).key for name in "ab"}
    assert len(keys) == 2
    assert sha256("é") == hashlib.sha256(b"\xc3\xa9" + bytes([0] * 7 + [2])).hexdigest()


def test_a_text_that_changes_while_it_is_read_stops_the_work(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join('{"text": "Some words."}\n' for _ in range(20)))
    training, _ = divide(read([str(path)]), 0.5)
    path.write_text('{"text": "Some words."}\n')
    with pytest.raises(WorkError, match="changed"):
        list(training)


def test_a_line_of_jsonl_that_is_too_long_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "Some words."}\n{"text": "' + "x" * 100)
    monkeypatch.setattr(sources, "LONGEST", 50)
    with pytest.raises(InputError, match="a.jsonl' has a line of .* or more at byte 24:"):
        read([str(path)])
    (tmp_path / "b.txt").write_text("Not a blank line.\n" * 9)
    with pytest.raises(InputError, match="has no blank line in .*--blocks"):
        read([str(tmp_path / "b.txt")], blocks=True)


def test_a_long_line_is_read_and_one_without_a_space_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("some words " * 300_000)  # 3.3 MB in one line
    parts = list(stretches(next(iter(read([str(path)])))))
    assert len(parts) > 2 and sum(len(part.text) for part in parts) == 3_300_000
    monkeypatch.setattr("minicpt.data.text.LONGEST", 2_000_000)
    path.write_text("x" * 3_300_000)
    with pytest.raises(InputError, match="a.txt' has .* on end without a space"):
        divide(read([str(path)]))


def test_several_are_joined():
    one, other = Documents.of([Document("a", "b")]), Documents.of([Document("c", "d")])
    both = Documents.joined([one, other])
    assert [*both] == [Document("a", "b"), Document("c", "d")] and list(both.lengths) == [1, 1]
    assert both.key != Documents.joined([other, one]).key
    assert not len(Documents.joined([]))


def test_bytes_are_counted_or_not_known():
    one, other = Documents.of([Document("a", "Zwölf.")]), Documents.of([Document("c", "d")])
    both = Documents.joined([one, other])
    assert both.bytes == 8 and Documents.joined([]).bytes == 0
    part = both.chosen([(0, 0, 6)])
    assert list(part) == [*one] and part.bytes is None
    assert Documents.joined([one, part]).bytes is None


# --- parts -----------------------------------------------------------------------------------


def test_a_part_says_its_document_and_where_it_begins():
    part = Document("a", "One. Two. Three.").part(5, 9)
    assert part == Document("a", "Two.", 5) and part.name == "a, from character 5"
    assert part.part(2) == Document("a", "o.", 7) and part.part(2).name == "a, from character 7"
    assert Document("a", "One.").part(0, 2).name == "a"


def test_spans_choose_parts_and_a_choice_can_be_chosen_from():
    documents = Documents.of(Document(name, f"{name} is a text") for name in "abcd")
    chosen = documents.chosen([(0, 0, 11), (1, 2, 4), (1, 5, 11), (3, 0, 1)])
    assert [(each.name, each.text) for each in chosen] == [
        ("a", "a is a text"),
        ("b, from character 2", "is"),
        ("b, from character 5", "a text"),
        ("d", "d"),
    ]
    assert list(chosen.lengths) == [11, 2, 6, 1] and list(chosen) == list(chosen)
    again = chosen.chosen([(2, 2, 6)])
    assert list(again) == [Document("b", "text", 7)]
    assert len({each.key for each in (documents, chosen, again)}) == 3
    assert not list(documents.chosen([])) and not len(documents.chosen([]))


NAMES = ["a, token b.txt", "x, from character 5", "x", "x, from character 5, token 3", "a:3"]


@pytest.mark.parametrize("count", [1, 10])
def test_a_name_that_looks_like_a_place_is_a_name(count, tmp_path, byte_tokenizer):
    """A document is told by its field: no name is taken apart."""
    for number in range(count):
        (tmp_path / str(number)).mkdir()
        for name in NAMES:
            text = f"A first sentence of {name} in {number}. A second one. A third one of {name}."
            (tmp_path / str(number) / name).write_text(text)
    documents = read([str(tmp_path)])
    assert len({each.source for each in documents}) == len(NAMES) * count
    training, held_out = divide(documents, 0.3)
    for side in (training, held_out):
        corpus = Corpus.build(side, byte_tokenizer)
        assert list(corpus.names) == [each.source for each in side]
        assert corpus.starts.tolist() == [each.start for each in side]
        for document, start in zip(side, corpus.documents.tolist(), strict=True):
            passage = corpus.passage(start, start + 4)
            assert (passage.document, passage.character) == (document.source, document.start)
            assert passage.place == f"{document.name}, token 0"
            assert (tmp_path / passage.document).exists()
    assert all((tmp_path / each.file).exists() for each in documents)
    assert "".join(each.text for each in without(documents, held_out)) == "".join(
        each.text for each in training
    )


def test_a_line_and_a_block_say_their_file(tmp_path):
    path = tmp_path / "a, block 1.jsonl"
    path.write_text('{"text": "One.\\n\\nTwo."}\n')
    (line,) = read([str(path)])
    assert (line.source, line.file) == (f"{path}:1", str(path))
    blocks = list(read([str(path)], blocks=True))
    assert [each.source for each in blocks] == [f"{path}:1, block 1", f"{path}:1, block 2"]
    assert {each.file for each in blocks} == {str(path)}
