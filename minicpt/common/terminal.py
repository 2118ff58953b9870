"""Text in the columns of a terminal: what takes how much room, tables, bars.

A terminal gives a Chinese character two columns and a combining mark none, so ``len`` cannot line
up a table. Leaves out text that is written from right to left, which terminals reorder as they
like.
"""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

EIGHTHS = " ▏▎▍▌▋▊▉█"
SYMBOLS = EIGHTHS + "·▒␣…◌"  # all that is drawn where the encoding can carry it


def needs_ascii(encoding: str | None) -> bool:
    """Whether an output of this encoding cannot carry the block characters.

    >>> needs_ascii("utf-8"), needs_ascii("ascii"), needs_ascii("cp1252")
    (False, True, True)
    """
    try:
        SYMBOLS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def columns(text: str) -> int:
    """How many columns of a terminal a text takes.

    >>> columns("cat"), columns("猫"), columns("e\\u0301")
    (3, 2, 1)
    """
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    # The later parts of a Korean syllable are drawn into its first.
    if unicodedata.category(character) in ("Mn", "Me") or "\u1160" <= character <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def printable(text: str, ascii: bool = False) -> str:
    """A text in which no character breaks the line, or moves what follows.

    ascii  escape all that is not ASCII

    >>> printable("a\\nb\\u200bc"), printable("\\u0301"), printable("né", ascii=True)
    ('a\\\\nb\\\\u200bc', '◌\\u0301', 'n\\\\xe9')
    """
    text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    if ascii:
        return text.encode("ascii", "backslashreplace").decode()
    if text and not _columns(text[0]):
        text = "◌" + text  # else the mark would sit on what stands before it
    return text


def fit(text: str, width: int, ascii: bool = False) -> str:
    """A text of exactly ``width`` columns: cut, with a sign that it was, or filled up with spaces.

    >>> fit("a cat", 3), fit("猫猫", 3), fit("a", 3)
    ('a …', '猫…', 'a  ')
    """
    if columns(text) > width:
        sign = ".." if ascii else "…"
        while columns(text + sign) > width and text:
            text = text[:-1]
        text = (text + sign)[:width]
    return text + " " * (width - columns(text))


def wrap(text: str, width: int, ascii: bool = False) -> list[str]:
    """The words of a text in lines of at most ``width`` columns; longer words are cut.

    >>> wrap("to be or not", 6)
    ['to be', 'or not']
    """
    lines: list[str] = []
    for word in text.split():
        if lines and columns(lines[-1]) + 1 + columns(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(fit(word, width, ascii).rstrip() if columns(word) > width else word)
    return lines


def amount(size: int) -> str:
    """Bytes for people.

    >>> amount(17), amount(123_456), amount(5 << 30)
    ('17 B', '121 KiB', '5.0 GiB')
    """
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.{int(units[0] != 'B' and value < 100)}f} {units[0]}"


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(0.0123), duration(7), duration(200), duration(90_000)
    ('0.012 s', '7 s', '3.3 min', '25 h')
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.{int(seconds < 10 * size)}f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def bar(value: float, full: float, width: int, ascii: bool = False) -> str:
    """A bar of ``width`` columns for ``full``, in steps of an eighth of a column.

    >>> bar(1, 2, 5), bar(1, 2, 5, ascii=True)
    ('██▌', '==')
    """
    if not (math.isfinite(value) and full > 0):
        return ""
    eighths = round(8 * width * min(max(value / full, 0), 1))
    if ascii:
        return "=" * (eighths // 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


@dataclass(frozen=True)
class Column:
    """A column of a table.

    draw    width -> the cells; what is wider is cut
    wanted  the width from which on more room is of no use
    least   the width below which it can hardly be read
    style   parameters of the terminal's colour sequence, such as "36"; used only with colour
    """

    heading: str
    draw: Callable[[int], Sequence[str]]
    wanted: int
    least: int
    style: str = ""


def words(
    heading: str,
    cells: Sequence[str],
    most: int,
    least: int,
    ascii: bool,
    right: bool = False,
    style: str = "",
) -> Column:
    """A column of texts, cut where they do not fit; ``right``: numbers, which line up there."""
    if right:
        size = max(map(len, cells), default=0)
        cells = [cell.rjust(max(size, len(heading))) for cell in cells]
    wanted = min(max(map(columns, [heading, *cells])), most)
    return Column(
        heading,
        lambda width: [fit(cell, width, ascii) for cell in cells],
        wanted,
        min(wanted, least),
        style,
    )


def widths(table: Sequence[Column], width: int) -> list[int]:
    """How wide each column becomes: what it needs, then from the left what it wants."""
    sizes = [column.least for column in table]
    spare = width - sum(sizes) - (len(table) - 1)
    for place, column in enumerate(table):
        more = min(max(spare, 0), column.wanted - column.least)
        sizes[place] += more
        spare -= more
    for _ in range(-spare):  # too many columns for the terminal: no line wraps even then
        sizes[sizes.index(max(sizes))] -= 1
    return sizes


def draw(table: Sequence[Column], width: int, color: bool = False) -> list[str]:
    """The lines of a table: the headings, then a line for each row."""
    sizes = widths(table, width)
    headings = [fit(each.heading, size) for each, size in zip(table, sizes, strict=True)]
    drawn = [each.draw(size) for each, size in zip(table, sizes, strict=True)]
    lines = [paint(" ".join(headings).rstrip(), "1", color)]
    for row in zip(*drawn, strict=True):
        cells = (
            paint(fit(cell, size), column.style, color)
            for cell, column, size in zip(row, table, sizes, strict=True)
        )
        lines.append(" ".join(cells).rstrip())
    return lines


def paint(text: str, style: str, color: bool) -> str:
    """A text in a style of the terminal, where colour is wanted."""
    return f"\x1b[{style}m{text}\x1b[0m" if color and style and text.strip() else text
