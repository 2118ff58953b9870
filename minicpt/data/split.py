"""What of a text is held out from training, and a sample of it; without holding the text.

Left out: shuffling, which is the corpus's business; what a copy is (``copies``).
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator

import torch

from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data.copies import unseen
from minicpt.data.documents import Document, Documents, later
from minicpt.data.text import Stretch, stretches, words

FEW = 10  # fewer documents than this are split inside the text instead of between documents
SAMPLE = 1 << 25  # characters that a tokenizer is trained on at the most
SAMPLED = 1 << 16  # characters of a part of them


def split(
    documents: Documents | Iterable[Document], fraction: float = 0.1, progress: bool = False
) -> tuple[Documents, Documents]:
    """The documents to train on, and those held out that do not stand in these too.

    The text is divided as in ``divide``. Then the held-out side loses what stands in the training
    side word for word or nearly so (``copies``). That is left out of both sides: how much it is, is
    what the two lack of the characters of ``documents``.

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

    choice = hashlib.sha256(held_out).hexdigest()

    def those(flag: int) -> Documents:
        return documents.chosen(
            f"{flag} of {choice}",
            (size for size, held in zip(lengths, held_out, strict=True) if held == flag),
            lambda number, document: [document] if held_out[number] == flag else [],
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

    def head(number: int, document: Document) -> list[Document]:
        if number == index and cut < lengths[index]:
            return [document.part(0, cut, document.name)] if cut else []
        return [document] if number <= index else []

    def tail(number: int, document: Document) -> list[Document]:
        if number == index and cut:
            rest = document.part(cut, None, later(document.name, cut))
            return [rest] if cut < lengths[index] else []
        return [document] if number >= index else []

    here = lengths[index]
    before, after = lengths[:index], lengths[index + 1 :]
    return (
        documents.chosen(f"to {cut} of {index}", before + [cut] * (cut > 0), head),
        documents.chosen(f"from {cut} of {index}", [here - cut] * (cut < here) + after, tail),
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
