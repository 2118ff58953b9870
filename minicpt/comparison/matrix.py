"""Keep the loss, or change it: bases of several objectives, continued with all, measured by all.

A matrix for each role. A row is a base and what continues it, a column what measures it: the
held-out loss by that objective, so that the numbers of a column compare. The first row of each base
is the base itself. What a column asks of the model must have been trained: a head that neither base
nor continuation trained knows nothing, and its cell is empty. Parts that learn beside a model are
those of the base, in every row; where the base has none, only the continuation that trained its own
has a number.

The differences from the base are paired (``statistics``). A base's own objective is held against
each of the others by its own measure, and these comparisons are corrected (Holm); all else is
exploratory.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch

from minicpt.common import html
from minicpt.comparison import measure
from minicpt.comparison.arms import NOTHING
from minicpt.comparison.parts import HALF, Part, bases_of
from minicpt.comparison.statistics import Figures, Interval, estimate, holm, interval, less
from minicpt.comparison.summary import CORRECTED, SIDES
from minicpt.comparison.work import AT_BASE, KNOWN

EMPTY = "-"
NOTE = (
    "Each cell is a held-out loss by the objective above it (the units stand below its name), so"
    " the numbers of a column compare. Behind it half of the 95 % interval of the change from the"
    " base, over seeds and text, paired; the base's own rows have none. A cell is empty (-) where"
    " what the column asks was trained by neither the base nor the continuation. Half: the base's"
    " own objective reads half of the passages, that one the other half."
)


@dataclass(frozen=True)
class Cell:
    """A loss, and how much it rose from the base on; ``level`` is the loss with its interval."""

    level: Interval
    change: Interval | None
    figures: list[Figures] = field(repr=False)

    def plain(self) -> dict:
        return {"level": asdict(self.level), "change": self.change and asdict(self.change)}


@dataclass(frozen=True)
class Line:
    """A row: what trained the base, and what continued it (None: nothing did).

    cells  by side and column; None where the column's head or parts were never trained
    """

    base: str
    continued: str | None
    seeds: int
    cells: dict[str, dict[str, Cell | None]]

    def plain(self) -> dict:
        cells = {
            side: {name: cell and cell.plain() for name, cell in each.items()}
            for side, each in self.cells.items()
        }
        return {**vars(self), "cells": cells}


@dataclass(frozen=True)
class Matrix:
    """All rows of a role; ``units`` are those of the columns."""

    role: str
    units: dict[str, str]
    lines: list[Line]

    def plain(self) -> dict:
        lines = [line.plain() for line in self.lines]
        return {"role": self.role, "units": self.units, "lines": lines}


def matrices(
    results: Mapping[Part, dict], changes: Mapping[str, Sequence[str]], given: str | None = None
) -> list[Matrix]:
    """One for each role.

    changes  by role: what continues its bases, which are also the columns
    given    the name of a base that was there; None: bases were trained
    """
    found = []
    for role, words in changes.items():
        lines: list[Line] = []
        usual = given or bases_of(role)[0]
        able = [p for p in results if p.role == role and p.arm in (None, NOTHING)]
        for trained in dict.fromkeys(part.trained for part in able):
            of_base = [part for part in able if part.trained == trained and part.arm]
            lines.append(
                _line(results, list(dict.fromkeys(p.from_base for p in of_base)), words, usual)
            )
            halves = dict.fromkeys(part.objective for part in of_base if part.second)
            for word in [*words, *halves]:
                members = [part for part in of_base if part.objective == word]
                lines.append(_line(results, members, words, usual))
        units = {word: _unit(results, able, word) for word in words}
        found.append(Matrix(role, units, lines))
    return found


def _unit(results: Mapping[Part, dict], parts: Sequence[Part], word: str) -> str:
    losses = (results[part]["losses"].get(word) for part in parts)
    return next((each["new"]["unit"] for each in losses if each), "")


def _line(
    results: Mapping[Part, dict], members: Sequence[Part], words: Sequence[str], usual: str
) -> Line:
    first = members[0]

    def cell(word: str, side: str) -> Cell | None:
        if not all(results[part][KNOWN].get(word) for part in members):
            return None
        after = [_measured(results[part], word)[side] for part in members]
        base = [results[part.from_base] for part in members]
        figures = levels(after)
        change = None
        if first.arm and all(each[KNOWN].get(word) for each in base):
            before = [_measured(each, word)[side] for each in base]
            change = interval(measure.differences(after, before))
        return Cell(interval(figures), change, figures)

    cells = {side: {word: cell(word, side) for word in words} for side in SIDES}
    return Line(first.trained or usual, first.objective, len(members), cells)


def _measured(result: Mapping, word: str) -> dict:
    """With the base's parts, where both it and the continuation have some."""
    return result["losses"].get(word + AT_BASE) or result["losses"][word]


def levels(measured: Sequence[dict]) -> list[Figures]:
    """The losses themselves, a measurement of each for every seed."""
    found = []
    for head in measured[0]["heads"]:
        both = torch.tensor([each["heads"][head] for each in measured], dtype=torch.float64)
        found.append(Figures(both[:, 0], both[:, 1]))
    return found


# --- what it says --------------------------------------------------------------------------------


def sayings(matrix: Matrix) -> list[str]:
    """For each base: is it better to keep its loss, or to change it?"""
    found = []
    for base in dict.fromkeys(line.base for line in matrix.lines):
        mine = [line for line in matrix.lines if line.base == base and line.continued]
        kept = next((line for line in mine if line.continued == base), None)
        if kept is None or len(mine) < 2:
            continue
        found.append(_by_its_own(matrix, base, kept, mine))
        found.append(_by_others(matrix, base, kept, mine))
    return [each for each in found if each]


def _by_its_own(matrix: Matrix, base: str, kept: Line, mine: Sequence[Line]) -> str:
    """The base's own measure on both texts: the best of the others against keeping."""
    text = []
    for side in SIDES:
        own = kept.cells[side].get(base)
        others = [each for each in mine if each is not kept and each.cells[side].get(base)]
        if not own or not others:
            return ""
        gaps = [estimate(less(each.cells[side][base].figures, own.figures)) for each in others]
        values = holm([each.p for each in gaps])
        place = min(range(len(gaps)), key=lambda number: gaps[number].value)
        best, gap, p = others[place], gaps[place].interval, values[place]
        said = "it ties with"
        if p < CORRECTED:
            said = "it is better than" if gap.value > 0 else "it is worse than"
        text.append(
            f"on the {side} text {said} {_called(best)}, the best of the others, by"
            f" {_figure(gap)} {matrix.units[base]} (p {p:.2g}, corrected for {len(gaps)})"
        )
    return f"Keep {base}, measured by itself: {'; '.join(text)}."


def _by_others(matrix: Matrix, base: str, kept: Line, mine: Sequence[Line]) -> str:
    """Where another loss gives a better number of its own measure on the new text."""
    better = []
    for line in mine:
        if HALF in line.continued:
            continue
        own, other = kept.cells["new"].get(line.continued), line.cells["new"].get(line.continued)
        if line is kept or not own or not other:
            continue
        if (gap := ahead(other, own)).sign > 0:
            better.append(f"{line.continued} by {_figure(gap)} {matrix.units[line.continued]}")
    if not better:
        return ""
    return (
        f"A base of {base} that changes to another objective is better by that one's measure on the"
        f" new text than one that keeps its own: {', '.join(better)}."
    )


def ahead(one: Cell, other: Cell) -> Interval:
    """By how much one loss is lower than another, paired."""
    return interval(less(other.figures, one.figures))


def _figure(value: Interval) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


# --- text ----------------------------------------------------------------------------------------


def shown(matrix: Matrix, width: int) -> str:
    """The matrix on both texts, then what it says, in lines of at most ``width`` characters."""
    width = max(24, min(width, 100))
    blocks = []
    for side in SIDES:
        heading = f"{matrix.role}s, {side} text: continued with (rows), measured by (columns)"
        blocks.append("\n".join([*textwrap.wrap(heading, width), *_grid(matrix, side, width)]))
    blocks.append(textwrap.fill(f"{NOTE} {_count(matrix)}", width))
    lines = [
        textwrap.fill(f"- {each}", width, subsequent_indent="  ", break_on_hyphens=False)
        for each in sayings(matrix)
    ]
    return "\n\n".join([*blocks, *(["\n".join(lines)] if lines else [])])


def _count(matrix: Matrix) -> str:
    seeds = max(line.seeds for line in matrix.lines)
    return "One seed: the intervals are over text alone." if seeds == 1 else f"{seeds} seeds."


def as_html(matrix: Matrix) -> list[tuple[str, str]]:
    """A table for each side, with its name."""
    found = []
    for side in SIDES:
        headings = ["base, continued with", *(f"{k}, {u}" for k, u in matrix.units.items())]
        rows = [[_name(line), *_cells(line, side)] for line in matrix.lines]
        name = f"{matrix.role}s, {side} text"
        numbers = range(1, len(headings))
        found.append((html.table(headings, rows, caption=name, numbers=numbers), name))
    return found


def _called(line: Line) -> str:
    return line.continued.replace(HALF, " and half ")


def _name(line: Line) -> str:
    if line.continued is None:
        return f"base {line.base}"
    own, half, other = line.continued.partition(HALF)
    return f"  half {other}" if half else f"  {own}"


def _cells(line: Line, side: str) -> list[str]:
    return [_cell(each) for each in line.cells[side].values()]


def _cell(cell: Cell | None) -> str:
    """
    >>> _cell(Cell(Interval(1.5, 1.0, 2.0), Interval(-0.5, -0.52, -0.48), []))
    '1.500 +-.020'
    """
    if cell is None:
        return EMPTY
    if cell.change is None:
        return f"{cell.level.value:.3f}"
    half = (cell.change.high - cell.change.low) / 2
    return f"{cell.level.value:.3f} +-{half:.3f}".replace("+-0.", "+-.")


def _grid(matrix: Matrix, side: str, width: int) -> list[str]:
    """Rows and columns; or, where they do not fit, each column's numbers below each other."""
    headings = [[*word.replace("-", "- ").split(), unit] for word, unit in matrix.units.items()]
    body = [[_name(line), *_cells(line, side)] for line in matrix.lines]
    tall = max(map(len, headings))
    headings = [[*[""] * (tall - len(each)), *each] for each in headings]
    columns = [["", *(row[0] for row in body)]]
    sizes = [max(map(len, columns[0]))]
    for number, heading in enumerate(headings, 1):
        sizes.append(max(map(len, [*heading, *(row[number] for row in body)])))
    if 2 + sum(sizes) + 2 * len(headings) <= width:
        top = [["", *(heading[row] for heading in headings)] for row in range(tall)]
        return [
            "  " + "  ".join([row[0].ljust(sizes[0]), *map(str.rjust, row[1:], sizes[1:])]).rstrip()
            for row in [*top, *body]
        ]
    lines = []
    for number, (word, unit) in enumerate(matrix.units.items(), 1):
        lines += textwrap.wrap(f"measured by {word}, in {unit}", width)
        for row in body:
            whole = f"  {row[0]}  {row[number]}"
            lines += [whole] if len(whole) <= width else [f"  {row[0]}", f"    {row[number]}"]
    return lines
