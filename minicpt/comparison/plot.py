"""The comparison as a picture: forgotten against gained, and the Pareto front (matplotlib).

A remedy that was swept is a line through its strengths, from the continuation without a remedy on;
its weakest and its strongest point are named.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence

from minicpt.common.outputs import plotting, write_picture
from minicpt.comparison.arms import CONTROL, NOTHING, parted
from minicpt.comparison.curves import Curve
from minicpt.comparison.summary import Row, front

CHANGES = ("gained", "forgotten")
COLOURS = (
    "tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink",
    "tab:olive", "tab:cyan", "navy", "darkgoldenrod", "teal",
)  # fmt: skip


def plot(
    path: str, rows: Sequence[Row], label: Callable[[str], str], curves: Sequence[Curve] = ()
) -> None:
    """A panel for each objective: right is more gained, down is less forgotten.

    An objective with a single arm has nothing to be held against, and is drawn only where none has.
    """
    pyplot = plotting()
    counts = Counter(row.objective for row in rows)
    names = [name for name in counts if counts[name] > 1] or list(counts)
    figure, axes = pyplot.subplots(
        1, len(names), figsize=(max(7.5, 4.2 * len(names)), 6 if curves else 5), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    kinds = dict.fromkeys(parted(row.arm)[0] for row in rows)
    colours = {NOTHING: "black", CONTROL: "0.4"}
    others = [kind for kind in kinds if kind not in colours]
    colours |= dict(zip(others, itertools.cycle(COLOURS), strict=False))
    lines = {}  # one legend for all, outside, where it hides nothing
    for axis, name in zip(axes[0], names, strict=True):
        mine = [row for row in rows if row.objective == name]
        drawn = [curve for curve in curves if curve.objective == name]
        alone = {row.arm for row in mine} - {row.arm for curve in drawn for row in curve.points}
        _panel(axis, [row for row in mine if row.arm in alone], mine, label, colours)
        for curve in drawn:
            _curve(axis, curve, label, colours[curve.name])
        if drawn:
            _near(axis, mine)
        axis.set_title(name)
        axis.set_xlabel(f"gained on the new text, {mine[0].unit}")
        axis.set_ylabel(f"forgotten of the old text, {mine[0].unit}")
        handles, labels = axis.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    write_picture(path, figure, lines)


def _curve(axis, curve: Curve, label: Callable[[str], str], colour: str) -> None:
    """A line through the strengths of a remedy, with their intervals."""
    across, up = ([getattr(row, side).value for row in curve.line] for side in CHANGES)
    axis.plot(across, up, color=colour, linewidth=1.2, zorder=2)
    for row in curve.points:
        _point(axis, row, "o", colour, curve.name, small=True)
    for row in (curve.points[0], curve.points[-1]):
        name = curve.name.replace("-", " ")
        short = label(row.arm).removeprefix(f"{curve.name} ").removeprefix(f"{name} ")
        place = row.gained.value, row.forgotten.value
        axis.annotate(
            short, place, xytext=(3, 3), textcoords="offset points", fontsize=7, color=colour
        )


def _near(axis, rows: Sequence[Row]) -> None:
    """Shows the points and what is around them; long intervals go on outside."""
    for side, limit in zip(CHANGES, (axis.set_xlim, axis.set_ylim), strict=True):
        values = [getattr(row, side).value for row in rows]
        room = 0.25 * (max(values) - min(values)) or 1.0
        limit(min(values) - room, max(values) + room)


def _point(axis, row: Row, mark: str, colour: str, name: str, small: bool = False) -> None:
    ends = [
        [[each.value - each.low], [each.high - each.value]] for each in (row.gained, row.forgotten)
    ]
    axis.errorbar(
        [row.gained.value],
        [row.forgotten.value],
        xerr=ends[0],
        yerr=ends[1],
        fmt=mark,
        markersize=3.5 if small else 6,
        color=colour,
        elinewidth=0.5 if small else 0.8,
        alpha=0.8 if small else 1,
        label=name,
        zorder=2,
    )


def _panel(
    axis,
    rows: Sequence[Row],
    every: Sequence[Row],
    label: Callable[[str], str],
    colours: dict[str, str],
) -> None:
    """The points that are on no line, and the front of all."""
    best = front(every)
    if len(best) > 1:
        across, up = [row.gained.value for row in best], [row.forgotten.value for row in best]
        axis.plot(across, up, "--", color="0.5", linewidth=1, label="Pareto front", zorder=1)
    for row in rows:
        mark = "x" if row.arm == CONTROL else "o"
        _point(axis, row, mark, colours[parted(row.arm)[0]], label(row.arm))
    axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
