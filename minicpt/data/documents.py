"""Documents: a text with a name, held or read from its file again, and any number of them.

Text can be larger than memory. So a long file gives its text in pieces, anew each time that it is
asked, and a million lines of a .jsonl file are documents only while somebody looks at them. A file
can change between two readings. So every piece has a mark from the first reading, and each later
reading is held against it: what is split, tokenised and trained on is the text that was hashed.
Left out: where documents come from (``sources``) and what is in them (``text``).
"""

import hashlib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tqdm import tqdm

from minicpt.common.errors import WorkError
from minicpt.data.utf8 import decoded

MARK = 8  # bytes of a mark
LATER = re.compile(r"(.*), from character (\d+)", re.DOTALL)  # the name of a part of a document


def mark(text: str) -> bytes:
    """MARK bytes that tell a text from others, the same in every process."""
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=MARK).digest()


def later(name: str, start: int) -> str:
    """The name of what begins ``start`` characters after the beginning of what is called ``name``.

    >>> later("a", 0), later("a", 5), later("a, from character 5", 3)
    ('a', 'a, from character 5', 'a, from character 8')
    """
    if found := LATER.fullmatch(name):
        name, start = found[1], start + int(found[2])
    return f"{name}, from character {start}" if start else name


def whole(name: str) -> str:
    """The name of the document that a part belongs to: the reverse of ``later``."""
    found = LATER.fullmatch(name)
    return found[1] if found else name


@dataclass(frozen=True)
class Document:
    """One text with the name that messages call it by."""

    name: str
    text: str

    def pieces(self) -> Iterator[str]:
        """The text in parts that can be held."""
        yield self.text

    def part(self, start: int, stop: int | None, name: str) -> "Document":
        """Its characters from ``start`` to before ``stop`` (None: to the end), under a name."""
        return Document(name, self.text[start:stop])

    def held_against(self, marks: bytes) -> "Document":
        """Itself, if its text has these marks, a MARK for each piece. Raises WorkError if not."""
        if mark(self.text) != marks:
            raise changed(self.name)
        return self


@dataclass(frozen=True)
class LongDocument:
    """The characters from ``start`` to before ``stop`` of a file that is too long to be held.

    A ``Document`` in all but where the text is: ``text`` reads all of it.

    marks  of the pieces of the whole file, a MARK for each: a piece that has another one by now is
           a WorkError; None: whatever is in the file
    """

    name: str
    path: str
    errors: str = "strict"
    start: int = 0
    stop: int | None = None
    marks: bytes | None = None

    def pieces(self) -> Iterator[str]:
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

    def part(self, start: int, stop: int | None, name: str) -> "LongDocument":
        ends = [] if self.stop is None else [self.stop]
        ends += [] if stop is None else [self.start + stop]
        return replace(self, name=name, start=self.start + start, stop=min(ends, default=None))

    def held_against(self, marks: bytes) -> "LongDocument":
        """The same, of which every piece is held against its mark when it is read."""
        return replace(self, marks=marks)

    @property
    def text(self) -> str:
        return "".join(self.pieces())


def changed(name: str) -> WorkError:
    return WorkError(f"{name!r} has changed since it was read first: start again")


class Documents:
    """Documents that can be gone through again and again without all of them being held.

    again       makes them anew, in the same order
    lengths     the characters of each
    sha256      of the texts alone: a text stays the same text when its file moves
    key         of texts and names, so of everything that a corpus of them holds
    bytes       of the texts in UTF-8; None where nobody has counted them (``chosen``)
    replaced    how many invalid bytes or stretches of them became U+FFFD
    marks       of their pieces, and how many pieces each has, where ``again`` reads files: what has
                changed since is a WorkError

    >>> documents = Documents.of([Document("a", "to be"), Document("b", "or not")])
    >>> len(documents), documents.characters, [document.name for document in documents]
    (2, 11, ['a', 'b'])
    """

    def __init__(
        self,
        again: Callable[[], Iterator],
        lengths: array,
        sha256: str,
        key: str,
        size: int | None = None,
        replaced: int = 0,
        marks: tuple[bytes, array] | None = None,
    ):
        self._again, self.lengths, self.sha256, self.key = again, lengths, sha256, key
        self.bytes, self.replaced, self._marks = size, replaced, marks

    @staticmethod
    def of(documents: Iterable) -> "Documents":
        """Those of a list, or of another iterable that is held from now on."""
        held = list(documents)
        return Documents.measured(lambda: iter(held))

    @staticmethod
    def measured(
        again: Callable[[], Iterator], replaced: int = 0, progress: bool = False
    ) -> "Documents":
        """Goes through all of them once, to measure and to hash; so this finds what is invalid.

        Each text is followed by its length in the hash, so that nothing can run together.
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
                names.update(document.name.encode("utf-8", "surrogatepass") + b"\0")
                lengths.append(length)
                counts.append(pieces)
                size += count
        key = f"{texts.hexdigest()} {names.hexdigest()}"
        known = bytes(marks), counts
        return Documents(again, lengths, texts.hexdigest(), key, size, replaced, known)

    @staticmethod
    def joined(several: Iterable["Documents"]) -> "Documents":
        """All of several, one after the other."""
        several = list(several)
        lengths = array("q", (length for each in several for length in each.lengths))
        key = " + ".join(each.key for each in several)
        digest = hashlib.sha256(key.encode()).hexdigest()
        sizes = [each.bytes for each in several]
        return Documents(
            lambda: (document for each in several for document in each),
            lengths,
            digest,
            key,
            None if None in sizes else sum(sizes),
        )

    def __iter__(self) -> Iterator:
        return self._again() if self._marks is None else self._held_against()

    def _held_against(self) -> Iterator:
        marks, counts = self._marks
        number = place = 0
        for document in self._again():
            if number == len(counts):
                raise changed(document.name)
            size = MARK * counts[number]
            yield document.held_against(marks[place : place + size])
            number, place = number + 1, place + size
        if number != len(counts):
            raise WorkError("the text has changed since it was read first: start again")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def characters(self) -> int:
        return sum(self.lengths)

    def chosen(
        self,
        name: str,
        lengths: Iterable[int],
        parts: Callable[[int, Document], Iterable[Document]],
    ) -> "Documents":
        """Some of them, or parts of some.

        ``parts`` is given the number of a document and the document, and gives what is wanted of
        it. ``lengths`` are those of what it gives. ``name`` tells this choice from every other one:
        it is made of all that decides what is chosen.
        """

        def again() -> Iterator:
            for number, document in enumerate(self):
                yield from parts(number, document)

        key = f"{self.key} {name}"
        digest = hashlib.sha256(f"{self.sha256} {name}".encode()).hexdigest()
        return Documents(again, array("q", lengths), digest, key)
