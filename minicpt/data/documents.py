"""Documents: a text with a name, held or read from its file again, and any number of them.

A text can be larger than memory. So a long file is read in pieces, anew each time, and the lines of
a .jsonl file become documents one after the other. A file can change between two readings. So every
piece gets a mark at the first reading, and each later reading is compared with it: what is split,
tokenised and trained on is the text that was hashed. ``sources`` says where documents come from.
"""

import codecs
import functools
import hashlib
import io
import itertools
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tqdm import tqdm

from minicpt.common.errors import InputError, WorkError

MARK = 8  # bytes of a mark
PIECE = 1 << 20  # bytes that are read at once; a longer file is not held
REPLACEMENT = "\ufffd"


def mark(text: str) -> bytes:
    """MARK bytes that tell a text from others, the same in every process."""
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=MARK).digest()


def changed(name: str) -> WorkError:
    return WorkError(f"{name!r} has changed since it was read first: start again")


# --- UTF-8 -----------------------------------------------------------------------------------


def decoded(path: str, errors: str = "strict") -> Iterator[str]:
    r"""The text of a UTF-8 file in pieces: no byte order mark, ``\r\n`` and ``\r`` as ``\n``.

    Raises InputError with the byte for what is not UTF-8, unless ``errors`` is "replace".
    """
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    first = True
    for text in _decoded_pieces(path, errors):
        if not text:  # a piece of a character
            continue
        text = newlines.decode(text.removeprefix("\ufeff") if first else text)
        first = False
        if text:
            yield text
    if text := newlines.decode("", final=True):
        yield text


def _decoded_pieces(path: str, errors: str) -> Iterator[str]:
    place, rest = 0, b""
    for data in raw(path):
        rest += data
        text, used = decode(rest, errors, path, place, final=False)
        yield text
        place, rest = place + used, rest[used:]
    if rest:
        yield decode(rest, errors, path, place)[0]


def decode(data: bytes, errors: str, path: str, place: int, final: bool = True) -> tuple[str, int]:
    """The text of bytes that stand at ``place`` of a file, and how many of them it took."""
    try:
        return codecs.utf_8_decode(data, errors, final)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path!r} is not UTF-8 at byte {place + error.start}: convert it to UTF-8, leave it"
            " out, or replace what is invalid with --errors replace"
        ) from None


def raw(path: str) -> Iterator[bytes]:
    """The bytes of a file in pieces."""
    try:
        with open(path, "rb") as file:
            while data := file.read(PIECE):
                yield data
    except OSError as error:
        raise InputError(f"cannot read {path!r}: {error.strerror}") from error


def count_invalid(path: str) -> int:
    """How often ``errors="replace"`` replaces something in a file."""
    count, rest = 0, b""
    for data in raw(path):
        rest += data
        text, used = codecs.utf_8_decode(rest, "replace", False)
        # Those that the file itself holds are valid, and are as many as their bytes.
        count += text.count(REPLACEMENT) - rest[:used].count(REPLACEMENT.encode())
        rest = rest[used:]
    return count + rest.decode("utf-8", "replace").count(REPLACEMENT)


# --- one document ----------------------------------------------------------------------------


@dataclass(frozen=True)
class FileText:
    """The characters from ``start`` to before ``stop`` of a file, read in pieces each time.

    stop   None: to the end
    marks  of the pieces of the whole file, a MARK for each: a piece that has another one by now is
           a WorkError; None: whatever is in the file
    """

    path: str
    errors: str = "strict"
    start: int = 0
    stop: int | None = None
    marks: bytes | None = None

    def __iter__(self) -> Iterator[str]:
        place = known = 0
        for piece in decoded(self.path, self.errors):
            if self.stop is not None and place >= self.stop:
                return
            if self.marks is not None and mark(piece) != self.marks[known : known + MARK]:
                raise changed(self.path)
            known += MARK
            end = None if self.stop is None else self.stop - place
            if wanted := piece[max(0, self.start - place) : end]:
                yield wanted
            place += len(piece)
        if self.marks is not None and known != len(self.marks):
            raise changed(self.path)

    def part(self, start: int, stop: int | None) -> "FileText":
        ends = [] if self.stop is None else [self.stop]
        ends += [] if stop is None else [self.start + stop]
        return replace(self, start=self.start + start, stop=min(ends, default=None))


@dataclass(frozen=True)
class Document:
    """A text, or a part of one, with what messages call it by.

    source   the name of the whole document: a file, a line of a .jsonl file, a block
    content  the text, or where it is read from
    start    how many characters of the whole document come before this part
    inside   the file that holds it, where that holds several documents

    >>> Document("a.txt", "to be or not").part(6).name
    'a.txt, from character 6'
    """

    source: str
    content: str | FileText
    start: int = 0
    inside: str = ""

    @staticmethod
    def of_file(name: str, path: str, errors: str) -> "Document":
        """All of a file; a long one is not held. Raises InputError where it cannot be read."""
        try:
            long = os.path.getsize(path) > PIECE
        except OSError as error:
            raise InputError(f"cannot read {path!r}: {error.strerror}") from error
        return Document(name, FileText(path, errors) if long else "".join(decoded(path, errors)))

    @property
    def name(self) -> str:
        """For messages."""
        return part_name(self.source, self.start)

    @property
    def file(self) -> str:
        """The name of the file that it is, or is inside of."""
        return self.inside or self.source

    def pieces(self) -> Iterator[str]:
        """The text in parts that can be held."""
        return iter([self.content] if isinstance(self.content, str) else self.content)

    @property
    def text(self) -> str:
        return "".join(self.pieces())

    def part(self, start: int, stop: int | None = None) -> "Document":
        """Its characters from ``start`` to before ``stop`` (None: to the end)."""
        held = isinstance(self.content, str)
        content = self.content[start:stop] if held else self.content.part(start, stop)
        return replace(self, content=content, start=self.start + start)

    def held_against(self, marks: bytes) -> "Document":
        """The same, whose pieces must have these marks. Raises WorkError, for a long one later."""
        if not isinstance(self.content, str):
            return replace(self, content=replace(self.content, marks=marks))
        if mark(self.content) != marks:
            raise changed(self.name)
        return self


def part_name(source: str, start: int) -> str:
    """What messages call the part of a document that begins at its character ``start``."""
    return f"{source}, from character {start}" if start else source


# --- any number of them ----------------------------------------------------------------------


class Documents:
    """Documents that can be gone through again and again without all of them being held.

    again       makes them anew, in the same order
    lengths     the characters of each
    sha256      of the texts alone: a text stays the same text when its file moves
    key         of texts and names, so of everything that a corpus of them holds
    bytes       of the texts in UTF-8; None where nobody has counted them (``chosen``)
    replaced    how many invalid bytes or stretches of them became U+FFFD

    >>> documents = Documents.of([Document("a", "to be"), Document("b", "or not")])
    >>> len(documents), documents.characters, [document.name for document in documents]
    (2, 11, ['a', 'b'])
    >>> [document.name for document in documents.chosen([(0, 0, 5), (1, 3, 6)])]
    ['a', 'b, from character 3']
    """

    def __init__(
        self,
        again: Callable[[], Iterator[Document]],
        lengths: array,
        sha256: str,
        key: str,
        size: int | None = None,
        replaced: int = 0,
    ):
        self._again, self.lengths, self.sha256, self.key = again, lengths, sha256, key
        self.bytes, self.replaced = size, replaced

    @staticmethod
    def of(documents: Iterable[Document]) -> "Documents":
        """Those of a list, or of another iterable that is held from now on."""
        return Documents.measured(functools.partial(iter, list(documents)))

    @staticmethod
    def measured(
        again: Callable[[], Iterator[Document]], replaced: int = 0, progress: bool = False
    ) -> "Documents":
        """Goes through all of them once, to measure and to hash; so this finds what is invalid.

        What differs in a later pass is a WorkError. Each text is followed by its length in the
        hash, so that nothing can run together.
        """
        lengths, size = array("q"), 0
        marks, counts = bytearray(), array("q")
        texts, names = hashlib.sha256(), hashlib.sha256()
        bar = tqdm(desc="read", unit="B", unit_scale=True, disable=None if progress else True)
        with bar:
            for document in again():
                length = count = pieces = 0
                for piece in document.pieces():
                    data = piece.encode("utf-8", "surrogatepass")
                    texts.update(data)
                    marks += mark(piece)
                    length, count, pieces = length + len(piece), count + len(data), pieces + 1
                    bar.update(len(data))
                texts.update(count.to_bytes(8, "big"))
                name = f"{document.source}\0{document.start}\0"
                names.update(name.encode("utf-8", "surrogatepass"))
                lengths.append(length)
                counts.append(pieces)
                size += count
        key = f"{texts.hexdigest()} {names.hexdigest()}"
        same = functools.partial(_unchanged, again, bytes(marks), counts)
        return Documents(same, lengths, texts.hexdigest(), key, size, replaced)

    @staticmethod
    def joined(several: Iterable["Documents"]) -> "Documents":
        """All of several, one after the other."""
        several = list(several)
        lengths = array("q", (length for each in several for length in each.lengths))
        key = " + ".join(each.key for each in several)
        digest = hashlib.sha256(key.encode()).hexdigest()
        sizes = [each.bytes for each in several]
        again = functools.partial(itertools.chain.from_iterable, several)
        return Documents(again, lengths, digest, key, None if None in sizes else sum(sizes))

    def __iter__(self) -> Iterator[Document]:
        return self._again()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def characters(self) -> int:
        return sum(self.lengths)

    def chosen(self, spans: Iterable[tuple[int, int, int]]) -> "Documents":
        """Some of them, or parts of some: (number of the document, start, stop) in characters.

        The spans ascend. Each becomes a document.
        """
        flat = array("q", itertools.chain.from_iterable(spans))
        bounds = zip(flat[1::3], flat[2::3], strict=True)
        lengths = array("q", (stop - start for start, stop in bounds))
        choice = hashlib.sha256(flat.tobytes()).hexdigest()
        digest = hashlib.sha256(f"{self.sha256} {choice}".encode()).hexdigest()
        again = functools.partial(_chosen, self, flat)
        return Documents(again, lengths, digest, f"{self.key} {choice}")


def _unchanged(
    again: Callable[[], Iterator[Document]], marks: bytes, counts: array
) -> Iterator[Document]:
    """Those of ``again``, held against the marks of their pieces and how many each has."""
    number = place = 0
    for document in again():
        if number == len(counts):
            raise changed(document.name)
        size = MARK * counts[number]
        yield document.held_against(marks[place : place + size])
        number, place = number + 1, place + size
    if number != len(counts):
        raise WorkError("the text has changed since it was read first: start again")


def _chosen(documents: Documents, spans: array) -> Iterator[Document]:
    place = 0
    for number, (document, length) in enumerate(zip(documents, documents.lengths, strict=True)):
        while place < len(spans) and spans[place] == number:
            start, stop = spans[place + 1], spans[place + 2]
            whole = start == 0 and stop == length
            # To the end of the document is to the end of its file, where what has grown is found.
            yield document if whole else document.part(start, stop if stop < length else None)
            place += 3
