"""Tokens for a table, where a character may be cut into several: each part shows the character.

A byte-level tokenizer cuts what is rare in its text into bytes, which nobody can read: é becomes
``\\xc3`` and ``\\xa9``. Only the tokens beside a token tell which character it is a part of.
"""

import re
from collections.abc import Iterator, Sequence

from minicpt.data.text import readable
from minicpt.data.tokenizer import Tokenizer

LONGEST = 4  # bytes of a character in UTF-8
PART = re.compile(r" (?=\d(-\d)?/\d)")  # the space before "1/2"; those of the text are shown as ␣


def tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """A row of ids, each as ``tokenizer.token`` shows it; a part of a character with the character.

    Behind the character stands which of its bytes the token holds. What is no UTF-8, such as a
    character that is cut off at the end of the row, stays escaped.

    >>> tokenizer = Tokenizer.train([], 256)
    >>> tokens(tokenizer, tokenizer.encode("aé!"))
    ['a', 'é 1/2', 'é 2/2', '!']
    """
    shown = [tokenizer.token(each) for each in ids]
    data = [tokenizer.data(each) for each in ids]
    start = 0
    while start < len(ids):
        stop = start
        while stop < len(ids) and data[stop] is not None:
            stop += 1
        for place, label in _cut_characters(data[start:stop]):
            shown[start + place] = label
        start = stop + 1
    return shown


def _cut_characters(data: Sequence[bytes]) -> Iterator[tuple[int, str]]:
    """(place, label) of those tokens, given by their bytes, that hold a part of a character."""
    whole = b"".join(data)
    spans = list(characters(whole))
    begin, first = 0, 0
    for place, each in enumerate(data):
        end = begin + len(each)
        while first < len(spans) and spans[first][1] <= begin:
            first += 1
        groups, cut = [""], False  # each a part of a character, or whole ones on end
        for number in range(first, len(spans)):
            start, stop, character = spans[number]
            if start >= end:
                break
            low, high = max(start, begin), min(stop, end)
            if (low, high) == (start, stop):
                groups[-1] += character
                continue
            cut = True
            part = f"{low - start + 1}" + (f"-{high - start}" if high - low > 1 else "")
            groups += [f"{character} {part}/{stop - start}", ""]
        if cut:
            yield place, " ".join(filter(None, groups))
        begin = end


def characters(data: bytes) -> Iterator[tuple[int, int, str]]:
    """(start, stop, how it is shown) of each character; bytes that are none stand alone.

    >>> list(characters(b"a\\xc3\\xa9\\xff"))
    [(0, 1, 'a'), (1, 3, 'é'), (3, 4, '\\\\xff')]
    """
    start = 0
    while start < len(data):
        stop, found = start + 1, ""
        for size in range(1, LONGEST + 1):
            try:
                found = data[start : start + size].decode("utf-8")
            except UnicodeDecodeError:
                continue
            stop = start + size
            break
        yield start, stop, readable(found) if found else f"\\x{data[start]:02x}"
        start = stop
