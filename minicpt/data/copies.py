"""Finds what of a text stands in another one too, word for word or nearly so, to leave it out.

A loss on text that a model was trained on does not say what it has learnt. So lines are compared: a
document is judged in parts of about 1,000 characters, and a part is a copy if a third or more of
its lines, counted in characters, stand in the other text as lines, anywhere and in any order.

White space at the ends of a line does not count. Lines of less than 20 characters are common ones:
they count only in a part of which they are more than half. A line of more than 1,000 characters is
several of so many. A part ends at the first blank line after 1,000 characters, else with the first
line after 2,000; less than 1,000 at the end of a document belong to the part before.

Each part is judged by itself. So a line that many documents share, such as one of a licence, makes
no copy of any of them by itself, and joins no documents.

Not found is text that is the same but for its line ends, or was changed in most of its lines.
"""

from array import array
from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from minicpt.data.documents import MARK, Document, Documents, mark

PART = 1000  # characters of a part, at least
SHARE = 3  # a part is a copy if one SHARE-th of its lines stands in the other text
LINE = 20  # characters from which on a line counts
LONGEST = 1000  # characters of a line: a longer one is several
SOUGHT = 1 << 22  # lines that are looked for at once; for more, the other text is read again
TOGETHER = 1 << 16  # lines that are looked up together, and characters that are cut together


def unseen(documents: Documents, text: Documents, progress: bool = False) -> Documents:
    """The documents without what stands in ``text``: whole documents, or parts of some.

    What is left of a document on both sides of a copy becomes two documents: text that never stood
    together is not put together. Gives ``documents`` itself where nothing stands in ``text``.

    Both are streamed: what is held are some 50 bytes for each of SOUGHT lines at the most, and 24
    for each document and each part of one that is left. Lines are told apart by marks of 64 bits:
    of a million million that do not stand in 1 GB of text, about one counts as if it did.

    >>> seen = Documents.of([Document("a", "A line which is trained on.\\nAnother line.")])
    >>> held_out = [Document("b", "A line which is trained on."), Document("c", "A new line.")]
    >>> [document.name for document in unseen(Documents.of(held_out), seen)]
    ['c']
    """
    runs = array("q")  # without a copy: the number of the document, start and stop of each
    copies, current = False, -1
    for number, length, copied in judged(documents, text, progress):
        if number != current:  # the first part of the next document
            current, place, going_on = number, 0, False
        if not copied and going_on:
            runs[-1] = place + length
        elif not copied:
            runs.extend((number, place, place + length))
        copies = copies or copied
        going_on, place = not copied, place + length
    if not copies:
        return documents
    return documents.chosen(zip(runs[::3], runs[1::3], runs[2::3], strict=True))


def judged(
    documents: Documents, text: Documents, progress: bool = False
) -> Iterator[tuple[int, int, bool]]:
    """Of each part: the number of its document, its characters, whether it is a copy."""
    numbers, lengths, counts = array("q"), array("q"), array("q")
    marks, sizes = bytearray(), array("q")

    def judge() -> Iterator[tuple[int, int, bool]]:
        seen = stands(marks, sizes, text, progress)
        of = torch.tensor(sizes, dtype=torch.int64)
        part = torch.repeat_interleave(torch.tensor(counts, dtype=torch.int64))
        sums = torch.zeros(2, len(counts), dtype=torch.int64)
        sums.index_add_(1, part, torch.stack([of * seen, of]))
        copied = (SHARE * sums[0] >= sums[1]) & (sums[0] > 0)
        return zip(numbers, lengths, copied.tolist(), strict=True)

    for number, document in enumerate(documents):
        for part in parts(document):
            counted = evidence(part)
            marks += b"".join(map(mark, counted))
            sizes.extend(map(len, counted))
            numbers.append(number)
            lengths.append(sum(map(len, part)))
            counts.append(len(counted))
            if len(sizes) >= SOUGHT:
                yield from judge()
                for each in (numbers, lengths, counts, marks, sizes):
                    del each[:]
    if numbers:
        yield from judge()


def stands(marks: bytearray, sizes: array, text: Documents, progress: bool) -> Tensor:
    """(L,) bool: which of the L lines with these marks and lengths stand in the text."""
    if not sizes:
        return torch.zeros(0, dtype=torch.bool)
    wanted, place = _tensor(marks).unique(return_inverse=True)  # ascending
    found = torch.zeros(len(wanted), dtype=torch.bool)
    least = min(sizes)
    some = bytearray()

    def look_up() -> None:
        values = _tensor(some)
        nearest = torch.searchsorted(wanted, values).clamp_(max=len(wanted) - 1)
        found[nearest[wanted[nearest] == values]] = True

    with tqdm(
        total=text.characters, desc="seek copies", unit="B", unit_scale=True,
        disable=None if progress else True,
    ) as bar:  # fmt: skip
        for document, length in zip(text, text.lengths, strict=True):
            for several in lines(document):
                stripped = map(str.strip, several)
                some += b"".join([mark(line) for line in stripped if len(line) >= least])
                if len(some) >= MARK * TOGETHER:
                    look_up()
                    some = bytearray()
            bar.update(length)
    if some:
        look_up()
    return found[place]


def evidence(part: list[str]) -> list[str]:
    """The lines of a part that count, without the white space at their ends."""
    every = [line for line in map(str.strip, part) if line]
    long = [line for line in every if len(line) >= LINE]
    return long if 2 * sum(map(len, long)) >= sum(map(len, every)) else every


def parts(document: Document) -> Iterator[list[str]]:
    """The lines of a document, part by part.

    >>> [sum(map(len, part)) for part in parts(Document("a", ("word " * 100 + "\\n") * 7))]
    [2004, 1503]
    """
    before, part, size = [], [], 0
    for several in lines(document):
        for line in several:
            part.append(line)
            size += len(line)
            if size >= 2 * PART or (size >= PART and not line.strip()):
                if before:
                    yield before
                before, part, size = part, [], 0
    if before and size >= PART:
        yield before
        before = []
    if before or part:
        yield before + part


def lines(document: Document) -> Iterator[list[str]]:
    """Its lines with their ends, some at a time: joined, they have the characters of its text.

    >>> list(lines(Document("a", "One.\\nTwo.\\n  Three.")))
    [['One.\\n', 'Two.\\n'], ['  Three.']]
    """
    rest = ""
    for piece in document.pieces():
        for start in range(0, len(piece), TOGETHER):
            text = rest + piece[start : start + TOGETHER]
            *several, rest = _bounded(text.splitlines(keepends=True))
            yield several  # the next characters may go on with the rest
    if rest:
        yield [rest]


def _bounded(several: list[str]) -> list[str]:
    if max(map(len, several)) <= LONGEST:
        return several
    return [
        line[start : start + LONGEST]
        for line in several
        for start in range(0, len(line), LONGEST)
    ]


def _tensor(marks: bytearray) -> Tensor:
    """(L,) int64 of L marks."""
    return torch.frombuffer(marks, dtype=torch.int64)
