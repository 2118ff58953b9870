"""Documents and their sentences and words, in plain Python; what is held out; what it hashes to.

Documents come from ``sources``: ``Document``, ``read`` and ``origin`` are named here as well, so
that this is the one module to import for text. Left out: any language model of what a sentence
is; the rule is a short one, written down in ``sentences``.
"""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Sequence

import torch

from minicpt.data.sources import BLANK_LINE, Document, origin, read
from minicpt.errors import InputError
from minicpt.randomness import generator

__all__ = ["Document", "origin", "read", "sentences", "sha256", "split", "words"]

FEW = 10  # fewer documents than this are split inside the text instead of between documents

CLOSING = "\"'”’»›)\\]}*_`"
OPENING = "\"'“‘„«‹([{<*_`¿¡#@$§•—–-"
# Where a sentence may end. Every part is bounded or ends where the next match begins, so that no
# stretch is scanned twice: dots without end, or white space without end, cost no more than words.
BOUNDARY = re.compile(
    rf"(?P<stop>[.!?…][{CLOSING}]{{0,8}})\s+"  # Latin: white space must follow
    r"|(?P<wide>[。！？｡][。！？｡」』）】〉》”’\"')]{0,8})\s*"  # Chinese, Japanese: it need not
    rf"|{BLANK_LINE.pattern}\s*"
)
# Never the end of a sentence; and not the end where a number follows.
ABBREVIATIONS = frozenset(
    "mr. mrs. ms. dr. prof. st. rev. hon. gen. col. capt. lt. sgt. sen. rep. gov. messrs. "
    "e.g. i.e. eg. ie. cf. vs. viz. approx. resp. al. ca. incl. esp.".split()
)
BEFORE_NUMBER = frozenset(
    "no. nos. fig. figs. sec. secs. eq. eqs. ch. vol. art. p. pp. par. tab. ver. v.".split()
)


def words(text: str) -> list[tuple[int, int]]:
    """The (start, stop) characters of the words: what white space delimits.

    >>> words(" to be, or")
    [(1, 3), (4, 7), (8, 10)]
    """
    return [match.span() for match in re.finditer(r"\S+", text)]


def sentences(text: str) -> list[tuple[int, int]]:
    r"""The (start, stop) characters of the sentences, white space at their ends outside.

    Every character that is not white space is in exactly one of them, and they stand in order. A
    sentence ends

    - at a blank line, always. (So a block of source code is a sentence.)
    - after one of ``. ! ? …`` and closing quotes or brackets, if white space follows and what
      comes next can begin a sentence: after opening quotes or brackets a capital, a digit, or a
      letter of a script without capitals. Not after an abbreviation (``e.g.``, ``Dr.``), an initial
      (``J.``), ``Fig.`` or ``No.`` before a number, or a mark of a few characters without a letter
      (the ``2.`` of a list).
    - after one of ``。！？`` and closing quotes, with or without white space.

    In linear time.

    >>> text = 'Dr. J. Watson saw no. 7. "Why?" he asked. See e.g. Fig. 2.\n\nthe end'
    >>> for start, stop in sentences(text):
    ...     print(text[start:stop])
    Dr. J. Watson saw no. 7.
    "Why?" he asked.
    See e.g. Fig. 2.
    the end
    """
    spans = []
    start = len(text) - len(text.lstrip())
    for match in BOUNDARY.finditer(text, start):
        if match["stop"] and not _ends(text, start, match):
            continue
        end = match.end("stop" if match["stop"] else "wide")
        if end < 0:  # a blank line: the last line before it may end in spaces
            end = start + len(text[start : match.start()].rstrip())
        if end > start:
            spans.append((start, end))
        start = match.end()
    end = start + len(text[start:].rstrip())
    if end > start:
        spans.append((start, end))
    return spans


def _ends(text: str, start: int, match: re.Match) -> bool:
    """Whether a Latin full stop with white space after it ends the sentence begun at ``start``."""
    end, following = match.end("stop"), match.end()
    if BLANK_LINE.search(text, end, following) or following == len(text):
        return True
    if end - start < 6 and not any(map(str.isalpha, text[start:end])):
        return False
    opened = text[following : following + 9].lstrip(OPENING)
    begins = opened[:1]
    if begins.islower() or (begins and not begins.isalnum()):
        return False
    if text[match.start()] != ".":
        return True
    # The word that the full stop belongs to; abbreviations are short, so a few characters do.
    before = text[max(start, match.start() - 16) : match.start() + 1]
    word = before.split()[-1].lstrip(OPENING)
    if len(word) == 2 and word[0].isupper():  # an initial
        return False
    if word.lower() in BEFORE_NUMBER and begins.isdigit():
        return False
    return word.lower() not in ABBREVIATIONS


def split(
    documents: Sequence[Document], fraction: float = 0.1
) -> tuple[list[Document], list[Document]]:
    """The documents to train on and those held out, about ``fraction`` of the characters.

    With ten documents or more, whole documents are held out: in an order that depends on their
    number alone (never on a training seed), each that still fits into the fraction; the shortest
    if none does. With fewer, the end of the text is held out, from the first start of a sentence
    at or after the fraction; where there is none, of a word; where there is none, from there.
    Both lists keep the order, and together they hold every character once.

    Raises InputError for a fraction outside [0, 0.5] or a corpus too short to divide.

    >>> train, held_out = split([Document("a", "One two. Three four. Five six.")], 0.4)
    >>> train[0].text, held_out[0].text
    ('One two. Three four. ', 'Five six.')
    """
    if not 0 <= fraction <= 0.5:  # refuses NaN too
        raise InputError(f"the held-out fraction must be between 0 and 0.5, not {fraction}")
    documents = list(documents)
    if fraction == 0:
        return documents, []
    divide = _split_inside if len(documents) < FEW else _split_between
    training, held_out = divide(documents, fraction * sum(len(item.text) for item in documents))
    if not all(any(item.text.strip() for item in part) for part in (training, held_out)):
        raise InputError(
            f"corpus too short to hold out {fraction:g} of it: give more text, or hold out 0"
        )
    return training, held_out


def _split_between(documents: list[Document], budget: float) -> tuple[list, list]:
    order = torch.randperm(
        len(documents), generator=generator("held-out", len(documents))
    ).tolist()
    chosen, used = set(), 0
    for index in order:
        if used + len(documents[index].text) <= budget:
            chosen.add(index)
            used += len(documents[index].text)
    if not chosen:
        chosen.add(min(order, key=lambda index: len(documents[index].text)))
    training = [item for index, item in enumerate(documents) if index not in chosen]
    return training, [documents[index] for index in sorted(chosen)]


def _split_inside(documents: list[Document], budget: float) -> tuple[list, list]:
    left = sum(len(item.text) for item in documents) - int(budget)  # characters to train on
    index = 0
    while index < len(documents) and left >= len(documents[index].text):
        left -= len(documents[index].text)
        index += 1
    if index == len(documents):  # nothing to hold out
        return documents, []
    item = documents[index]
    cut = _first_at(sentences(item.text), left)
    if cut is None and index + 1 < len(documents):  # a document starts with a sentence
        return documents[: index + 1], documents[index + 1 :]
    if cut is None:
        cut = _first_at(words(item.text), left)
    if cut is None:
        cut = left
    head = [Document(item.name, item.text[:cut])] if cut else []
    tail = Document(f"{item.name}, from character {cut}" if cut else item.name, item.text[cut:])
    return documents[:index] + head, [tail] + documents[index + 1 :]


def _first_at(spans: list[tuple[int, int]], position: int) -> int | None:
    """The first start that is not before ``position``."""
    place = bisect_left(spans, (position,))
    return spans[place][0] if place < len(spans) else None


def sha256(documents: Sequence[Document]) -> str:
    """A hash over the texts, each with its length in front, so that nothing can run together.

    Names do not count: a text stays the same text when its file moves.

    >>> sha256([Document("a", "bc"), Document("b", "d")]) == sha256([Document("a", "bcd")])
    False
    """
    digest = hashlib.sha256()
    for item in documents:
        data = item.text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()
