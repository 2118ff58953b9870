"""Sentences, words and white space of a text, and the cutting of a long text.

What a sentence is, is a short rule, written down in ``sentences``.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpt.common.errors import InputError
from minicpt.data.documents import Document

BLANK_LINE = re.compile(r"\n[^\S\n]*\n")  # with its two newlines: linear time

CLOSING = "\"'”’»›)\\]}*_`"
WIDE = "。！？｡"
OPENING = "\"'“‘„«‹([{<*_`¿¡#@$§•—–-"
# Where a sentence may end. Every part is bounded, or ends where the next match begins. So no
# character is scanned twice: a million dots or spaces take no longer than words.
BOUNDARY = re.compile(
    rf"(?P<stop>[.!?…][{CLOSING}]{{0,8}})\s+"  # Latin: white space must follow
    rf"|(?P<wide>[{WIDE}][{WIDE}」』）】〉》”’\"')]{{0,8}})\s*"  # Chinese, Japanese: it need not
    rf"|{BLANK_LINE.pattern}\s*"
)
SPACES = " \t\n"
MARK = "▁"  # SentencePiece's mark of a space
IDEOGRAPHIC_SPACE = 0x3000  # the last of all white space
STRETCH = 1 << 20  # characters of a document that are looked at together
LONGEST = 1 << 22  # without a place to cut: it has to be tokenised at once, which takes memory
SHORT = 6  # a mark of fewer characters without a letter, such as "2.", is no sentence
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


def sentences(text: str, inside: bool = False) -> list[tuple[int, int]]:
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

    In linear time. With ``inside`` the text goes on in the middle of a sentence, of which SHORT
    characters or more came before; the first span is its rest.

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
    before = SHORT if inside else 0  # characters of the sentence that came before this text
    for match in BOUNDARY.finditer(text, start):
        if match["stop"] and not _ends(text, start, match, before):
            continue
        end = match.end("stop" if match["stop"] else "wide")
        if end < 0:  # a blank line: the last line before it may end in spaces
            end = start + len(text[start : match.start()].rstrip())
        if end > start:
            spans.append((start, end))
        start, before = match.end(), 0
    end = start + len(text[start:].rstrip())
    if end > start:
        spans.append((start, end))
    return spans


def _ends(text: str, start: int, match: re.Match, before: int) -> bool:
    """Whether a Latin full stop with white space after it ends the sentence begun at ``start``."""
    end, following = match.end("stop"), match.end()
    if BLANK_LINE.search(text, end, following) or following == len(text):
        return True
    if end - start + before < SHORT and not any(map(str.isalpha, text[start:end])):
        return False
    opened = text[following : following + 9].lstrip(OPENING)
    begins = opened[:1]
    if begins.islower() or (begins and not begins.isalnum()):
        return False
    if text[match.start()] != ".":
        return True
    # The word that the full stop belongs to; abbreviations are short, so a few characters do.
    word = text[max(start, match.start() - 16) : match.start() + 1].split()[-1].lstrip(OPENING)
    if len(word) == 2 and word[0].isupper():  # an initial
        return False
    if word.lower() in BEFORE_NUMBER and begins.isdigit():
        return False
    return word.lower() not in ABBREVIATIONS


@dataclass(frozen=True)
class Stretch:
    """A part of a document that is cut where its words, sentences and tokens stay what they are.

    inside  it begins within a sentence
    broken  it ends within a sentence
    last    it ends the document
    """

    text: str
    inside: bool
    broken: bool
    last: bool

    def sentences(self) -> list[tuple[int, int]]:
        """As ``sentences``; the first may be the end of one and the last the beginning of one."""
        return sentences(self.text, self.inside)


def stretches(
    document: Document, breaks: str = SPACES, size: int = STRETCH
) -> Iterator[Stretch]:
    """A document in stretches of ``size`` characters and a few more; the last one may be short.

    Cut before white space in ``breaks``: where a sentence of SHORT characters or more surely goes
    on, or behind a full-width full stop, which surely ends one. Nothing but the place itself has to
    be known for that, so that the sentences of each stretch can be found alone. Where ``breaks`` is
    a space alone, it is one between two words, where every usual tokenizer cuts as well.

    Raises InputError for LONGEST characters without such a place.

    >>> text = "It never ends. It goes on and on."
    >>> [each.text for each in stretches(Document("a", text), size=4)]
    ['It never ends. It goes', ' on and on.']
    """
    held, start, inside = "", 0, False
    place, most = _place(breaks), max(LONGEST, size)
    for piece in document.pieces():
        rest = held[start:]
        held, start = rest + piece, 0
        sought = max(size, len(rest) - 2 * SHORT)  # before that nothing was found
        while match := place and place.search(held, sought, start + most + 2 * SHORT):
            broken = match["broken"] is not None
            yield Stretch(held[start : match.end()], inside, broken, last=False)
            start, inside, sought = match.end(), broken, match.end() + size
        if len(held) - start > most:
            raise InputError(
                f"{document.name!r} has {LONGEST >> 20} Mi characters on end without a space where "
                "it could be cut: break it into words, or into documents"
            )
    yield Stretch(held[start:], inside, broken=False, last=True)


@functools.cache
def _place(breaks: str) -> re.Pattern | None:
    """What stands before a cut of ``stretches``: the match ends there.

    ``broken``: a character that can be in the middle of a sentence alone, and then enough to make
    SHORT in which no sentence can end or begin.
    """
    if not breaks:
        return None
    within = rf"(?:[^.!?…{WIDE}\n]|[.!?…](?=[^\W_]))"
    after = rf"(?=[{breaks}])" if breaks == SPACES else r"(?= \S)"
    return re.compile(
        rf"(?P<broken>[^\W_]{within}{{{SHORT - 2}}}[^.!?…{WIDE}\s](?=[{breaks}]\S))|[{WIDE}]{after}"
    )


# --- characters as numbers: C of them ----------------------------------------------------------


def is_space(codes: Tensor) -> Tensor:
    """(C,) bool: which characters are white space."""
    return _spaces()[codes.clamp(max=IDEOGRAPHIC_SPACE + 1)]


def code_points(text: str) -> Tensor:
    """(C,) int32."""
    data = bytearray(text.encode("utf-32-le", "surrogatepass"))
    return torch.frombuffer(data, dtype=torch.int32) if data else torch.empty(0, dtype=torch.int32)


@functools.cache
def _spaces() -> Tensor:
    return torch.tensor([chr(code).isspace() for code in range(IDEOGRAPHIC_SPACE + 2)])


def readable(text: str) -> str:
    """A text that can be read in a table: a space is ␣, a newline \\n, and so on."""
    text = text.replace(" ", "␣").replace(MARK, "␣")
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
