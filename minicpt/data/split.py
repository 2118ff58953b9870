"""What of a text is held out from training, and a sample of it; without holding the text.

``copies`` says what a copy is.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator

import torch

from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.copies import unseen
from minicpt.data.documents import Document, Documents
from minicpt.data.text import Stretch, stretches, words

FEW = 10  # fewer documents than this are split inside the text instead of between documents
SAMPLE = 1 << 25  # characters that a tokenizer is trained on at the most
SAMPLED = 1 << 16  # characters of a part of them


def split(
    documents: Documents | Iterable[Document], fraction: float = 0.1, progress: bool = False
) -> tuple[Documents, Documents]:
    """The documents to train on, and those held out that do not stand in these too.

    The text is divided as in ``divide``. Then the held-out side loses what stands in the training
    side word for word or nearly so (``copies``). Neither side holds that text, so the two together
    may have fewer characters than ``documents``.

    Raises InputError as ``divide`` does, and where nothing is left of the held-out side.

    >>> texts = [f"This is line {number} of a text." for number in range(19)]
    >>> documents = [Document(str(number), text) for number, text in enumerate([*texts, texts[0]])]
    >>> [len(part) for part in (*divide(documents, 0.5), *split(documents, 0.5))]
    [10, 10, 10, 9]
    """
    training, held_out = divide(documents, fraction)
    left = unseen(held_out, training, progress)
    if held_out and not has_words(left):
        raise InputError(
            "all of the held-out text stands in the training text too, or nearly so: give text that"
            " repeats itself less, or hold out 0"
        )
    return training, left


def divide(
    documents: Documents | Iterable[Document], fraction: float = 0.1
) -> tuple[Documents, Documents]:
    """The documents in two parts, of which the second has about ``fraction`` of the characters.

    With ten documents or more, whole documents are held out: in an order that depends on their
    number alone (never on a training seed), each that still fits into the fraction; the shortest
    if none does. With fewer, the end of the text is held out, from the first start of a sentence
    at or after the fraction; where there is none, of a word; where there is none, from there.
    Both parts keep the order, and together they hold every character once.

    Raises InputError for a fraction outside [0, 0.5] or a corpus too short to divide.

    >>> parts = divide([Document("a", "One two. Three four. Five six.")], 0.4)
    >>> [document.text for part in parts for document in part]
    ['One two. Three four. ', 'Five six.']
    """
    if not 0 <= fraction <= 0.5:  # refuses NaN too
        raise InputError(f"the held-out fraction must be between 0 and 0.5, not {fraction}")
    if not isinstance(documents, Documents):
        documents = Documents.of(documents)
    if fraction == 0:
        return documents, Documents.of([])
    inside_or_between = _divide_inside if len(documents) < FEW else _divide_between
    training, held_out = inside_or_between(documents, fraction * documents.characters)
    if not (has_words(training) and has_words(held_out)):
        raise InputError(
            f"corpus too short to hold out {fraction:g} of it: give more text, or hold out 0"
        )
    return training, held_out


def without(documents: Documents, held_out: Documents) -> Documents:
    """The documents less those held out, and less the end of one if that was held out.

    >>> whole = Documents.of([Document("a", "One. Two."), Document("b", "Three.")])
    >>> tail = Documents.of([Document("another name", "Two."), Document("b", "Three.")])
    >>> list(without(whole, tail))
    [Document(source='a', content='One. ', start=0, inside='')]
    """
    gone, sizes = {_hashed(document) for document in held_out}, set(held_out.lengths)
    # Only of few documents is one cut in two, and its end is then the first: see ``divide``.
    tail = next(iter(held_out)) if 0 < len(held_out) < FEW else None
    size = held_out.lengths[0] if tail else 0

    def left(document: Document, length: int) -> int:
        """How many of the document's characters are not held out."""
        if length in sizes and _hashed(document) in gone:
            return 0
        if tail and length > size:
            same = _hashed(document.part(length - size)) == _hashed(tail)
            return length - size if same else length
        return length

    lengths = [left(*each) for each in zip(documents, documents.lengths, strict=True)]
    if sum(lengths) == documents.characters:
        return documents
    return documents.chosen((number, 0, length) for number, length in enumerate(lengths) if length)


def _hashed(document: Document) -> bytes:
    digest = hashlib.sha256()
    for piece in document.pieces():
        digest.update(piece.encode("utf-8", "surrogatepass"))
    return digest.digest()


def sample(documents: Documents, most: int = SAMPLE) -> Iterator[str]:
    """At most ``most`` characters of the documents, evenly from all of them; all if they fit.

    What is left out are whole ``stretches``, always the same.
    """
    seen = taken = 0
    for document in documents:
        for stretch in stretches(document, size=SAMPLED):
            size = len(stretch.text)
            seen += size
            if (taken + size) * documents.characters <= seen * most:
                taken += size
                yield stretch.text


def _divide_between(documents: Documents, budget: float) -> tuple[Documents, Documents]:
    lengths = documents.lengths
    order = torch.randperm(len(lengths), generator=generator("held-out", len(lengths))).tolist()
    held_out, used = bytearray(len(lengths)), 0
    for number in order:
        if used + lengths[number] <= budget:
            held_out[number] = 1
            used += lengths[number]
    if not any(held_out):
        held_out[min(order, key=lengths.__getitem__)] = 1

    def those(flag: int) -> Documents:
        return documents.chosen(
            (number, 0, lengths[number]) for number, held in enumerate(held_out) if held == flag
        )

    return those(0), those(1)


def _divide_inside(documents: Documents, budget: float) -> tuple[Documents, Documents]:
    lengths = list(documents.lengths)
    left = documents.characters - int(budget)  # characters to train on
    index = 0
    while index < len(lengths) and left >= lengths[index]:
        left -= lengths[index]
        index += 1
    if index == len(lengths):  # nothing to hold out
        return documents, Documents.of([])
    parted = next(itertools.islice(documents, index, None))
    cut = _first_at(parted, left, _sentence_starts)
    if cut is None and index + 1 < len(lengths):  # a document starts with a sentence
        cut = lengths[index]
    if cut is None:
        cut = _first_at(parted, left, _word_starts)
    if cut is None:
        cut = left

    before = [(number, 0, length) for number, length in enumerate(lengths[:index])]
    after = [(number, 0, lengths[number]) for number in range(index + 1, len(lengths))]
    head, tail = (index, 0, cut), (index, cut, lengths[index])
    return (
        documents.chosen([*before, head] if cut else before),
        documents.chosen([tail, *after] if cut < lengths[index] else after),
    )


def _first_at(
    document: Document, position: int, starts: Callable[[Stretch], list[int]]
) -> int | None:
    """The first start that is not before ``position``."""
    place = 0
    for stretch in stretches(document):
        if place + len(stretch.text) > position:
            for start in starts(stretch):
                if place + start >= position:
                    return place + start
        place += len(stretch.text)
    return None


def _sentence_starts(stretch: Stretch) -> list[int]:
    return [start for start, _ in stretch.sentences()][stretch.inside :]


def _word_starts(stretch: Stretch) -> list[int]:
    return [start for start, _ in words(stretch.text)]


def has_words(documents: Documents) -> bool:
    return any(any(map(str.strip, document.pieces())) for document in documents)
