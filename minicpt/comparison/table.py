"""The comparison as text: a block for each objective, a line for each arm, then what it says.

Everything is ASCII, so that any terminal, pipe and file can carry it. Where a line does not fit,
its figures stand below each other.
"""

import textwrap
from collections.abc import Callable, Sequence
from functools import partial

from minicpt.comparison.statistics import Interval
from minicpt.comparison.summary import Base, Row

NOTE = (
    "Gained: the held-out loss of the new text fell by so much; forgotten: that of the old text "
    "rose by so much. {brackets} Probe: how often a "
    "linear classifier on frozen features names the part of the text that a passage comes from; "
    "behind it what the bases and guessing score."
)
SEVERAL = "Brackets: 95 % intervals over seeds and held-out text."
ONE = (
    "Brackets: 95 % intervals over held-out text alone; one seed does not show how far another "
    "training would be off."
)


def table(
    rows: Sequence[Row], bases: Sequence[Base], label: Callable[[str], str], width: int
) -> str:
    """All rows, in blocks by objective."""
    blocks = []
    for name in dict.fromkeys(row.objective for row in rows):
        mine = [row for row in rows if row.objective == name]
        blocks.append("\n".join(_block(mine, label, width)))
    blocks.append("\n".join(_probes(rows, bases, label, width)))
    return "\n\n".join(blocks)


def _block(mine: Sequence[Row], label: Callable[[str], str], width: int) -> list[str]:
    first = mine[0]
    before = ", ".join(f"{side} text {first.before[side]:.3f}" for side in ("old", "new"))
    heading = f"{first.objective}, in {first.unit} (bases: {before}; {count(first.seeds)})"
    cells = [(label(row.arm), figure(row.gained), figure(row.forgotten)) for row in mine]
    lines = textwrap.wrap(heading, width)
    return lines + _lines(("", "gained", "forgotten"), cells, width)


def _probes(
    rows: Sequence[Row], bases: Sequence[Base], label: Callable[[str], str], width: int
) -> list[str]:
    """The probe of every model, on the new and on the old text."""
    if not any(value for base in bases for value in base.probe.values()):
        return ["No probe: neither text has two parts of several documents."]
    cells = [
        ("guessing", *(share(bases[0].majority[side]) for side in ("new", "old"))),
        *((f"{each.role} base", *_scores(each.probe)) for each in bases),
        *((f"{row.objective}, {label(row.arm)}", *_scores(row.probe)) for row in rows),
    ]
    return _lines(("probe", "new text", "old text"), cells, width)


def _scores(probe: dict[str, Interval | None]) -> list[str]:
    found = []
    for side in ("new", "old"):
        each = probe[side]
        bounds = each and f" [{100 * each.low:.0f}, {100 * each.high:.0f}]"
        found.append(f"{share(each.value)}{bounds}" if each else "-")
    return found


def _lines(headings: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> list[str]:
    """A table; or, where it is too wide, each row's cells below its name."""
    sizes = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    if 2 + sum(sizes) + 2 * len(sizes) <= width:
        return [
            "  " + "  ".join([row[0].ljust(sizes[0]), *map(str.rjust, row[1:], sizes[1:])]).rstrip()
            for row in [headings, *cells]
        ]
    lines = []
    for row in cells:
        lines.append(f"  {row[0]}")
        pairs = zip(headings[1:], row[1:], strict=True)
        lines += [f"    {heading} {cell}" for heading, cell in pairs]
    return lines


def figure(value: Interval) -> str:
    """An estimate with its interval.

    >>> figure(Interval(0.5, 0.25, 0.75))
    '+0.500 [+0.250, +0.750]'
    """
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def text(
    rows: Sequence[Row],
    bases: Sequence[Base],
    sentences: Sequence[str],
    label: Callable[[str], str],
    width: int,
) -> str:
    """The table, what it means, and what it says."""
    width = max(24, min(width, 100))
    note = NOTE.format(brackets=ONE if max(row.seeds for row in rows) == 1 else SEVERAL)
    blocks = [table(rows, bases, label, width), textwrap.fill(note, width)]
    wrap = partial(textwrap.fill, width=width, subsequent_indent="  ", break_on_hyphens=False)
    blocks.append("\n".join(wrap(f"- {each}") for each in sentences))
    return "\n\n".join(blocks)
