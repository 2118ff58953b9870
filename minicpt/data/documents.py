"""Documents: a text with a name, held or read from its file again, and any number of them.

Text can be larger than memory. So a long file gives its text in pieces, anew each time that it is
asked, and a million lines of a .jsonl file are documents only while somebody looks at them. Left
out: where documents come from (``sources``) and what is in them (``text``).
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from tqdm import tqdm

from minicpt.data.utf8 import decoded
from minicpt.errors import WorkError


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


@dataclass(frozen=True)
class LongDocument:
    """The characters from ``start`` to before ``stop`` of a file that is too long to be held.

    A ``Document`` in all but where the text is: ``text`` reads all of it.
    """

    name: str
    path: str
    errors: str = "strict"
    start: int = 0
    stop: int | None = None

    def pieces(self) -> Iterator[str]:
        place = 0
        for piece in decoded(self.path, self.errors):
            if self.stop is not None and place >= self.stop:
                return
            end = None if self.stop is None else self.stop - place
            if wanted := piece[max(0, self.start - place) : end]:
                yield wanted
            place += len(piece)

    def part(self, start: int, stop: int | None, name: str) -> "LongDocument":
        ends = [] if self.stop is None else [self.stop]
        ends += [] if stop is None else [self.start + stop]
        return replace(self, name=name, start=self.start + start, stop=min(ends, default=None))

    @property
    def text(self) -> str:
        return "".join(self.pieces())


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
    """

    def __init__(
        self,
        again: Callable[[], Iterator],
        lengths: array,
        sha256: str,
        key: str,
        size: int | None = None,
        replaced: int = 0,
    ):
        self._again, self.lengths, self.sha256, self.key = again, lengths, sha256, key
        self.bytes, self.replaced = size, replaced

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
        texts, names = hashlib.sha256(), hashlib.sha256()
        bar = tqdm(desc="read", unit="B", unit_scale=True, disable=None if progress else True)
        with bar:
            for document in again():
                length = count = 0
                for piece in document.pieces():
                    data = piece.encode("utf-8", "surrogatepass")
                    texts.update(data)
                    length, count = length + len(piece), count + len(data)
                    bar.update(len(data))
                texts.update(count.to_bytes(8, "big"))
                names.update(document.name.encode("utf-8", "surrogatepass") + b"\0")
                lengths.append(length)
                size += count
        key = f"{texts.hexdigest()} {names.hexdigest()}"
        return Documents(again, lengths, texts.hexdigest(), key, size, replaced)

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
        return self._again()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def characters(self) -> int:
        return sum(self.lengths)

    def chosen(
        self, name: str, lengths: Iterable[int], part: Callable[[int, Document], Document | None]
    ) -> "Documents":
        """Some of them, or parts of some.

        ``part`` is given the number of a document and the document, and gives what is wanted of
        it. ``name`` tells this choice from others, and ``lengths`` are what it gives.
        """

        def again() -> Iterator:
            count = 0
            for number, document in enumerate(self):
                if (wanted := part(number, document)) is not None:
                    yield wanted
                count += 1
            if count != len(self):
                raise WorkError("the text has changed while it was read: start again")

        key = f"{self.key} {name}"
        digest = hashlib.sha256(f"{self.sha256} {name}".encode()).hexdigest()
        return Documents(again, array("q", lengths), digest, key)
