"""The comparison as a picture: forgotten against gained, and the Pareto front (matplotlib)."""

from collections import Counter
from collections.abc import Callable, Sequence

from minicpt.common.outputs import plotting, write_picture
from minicpt.comparison.arms import CONTROL
from minicpt.comparison.summary import Row, front


def plot(path: str, rows: Sequence[Row], label: Callable[[str], str]) -> None:
    """A panel for each objective: right is more gained, down is less forgotten.

    An objective with a single arm has nothing to be held against, and is drawn only where none has.
    """
    pyplot = plotting()
    counts = Counter(row.objective for row in rows)
    names = [name for name in counts if counts[name] > 1] or list(counts)
    figure, axes = pyplot.subplots(
        1, len(names), figsize=(max(6, 4.2 * len(names)), 5), squeeze=False, layout="constrained"
    )
    arms = dict.fromkeys(row.arm for row in rows)
    colours = {arm: f"C{number}" for number, arm in enumerate(arms)} | {CONTROL: "0.4"}
    lines = {}  # one legend for all, outside, where it hides nothing
    for axis, name in zip(axes[0], names, strict=True):
        mine = [row for row in rows if row.objective == name]
        _panel(axis, mine, label, colours)
        axis.set_title(name)
        axis.set_xlabel(f"gained on the new text, {mine[0].unit}")
        axis.set_ylabel(f"forgotten of the old text, {mine[0].unit}")
        handles, labels = axis.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    write_picture(path, figure, lines)


def _panel(
    axis, rows: Sequence[Row], label: Callable[[str], str], colours: dict[str, str]
) -> None:
    best = front(rows)
    if len(best) > 1:
        across, up = [row.gained.value for row in best], [row.forgotten.value for row in best]
        axis.plot(across, up, "--", color="0.5", linewidth=1, label="Pareto front", zorder=1)
    for row in rows:
        ends = [
            [[each.value - each.low], [each.high - each.value]]
            for each in (row.gained, row.forgotten)
        ]
        axis.errorbar(
            [row.gained.value],
            [row.forgotten.value],
            xerr=ends[0],
            yerr=ends[1],
            fmt="x" if row.arm == CONTROL else "o",
            color=colours[row.arm],
            elinewidth=0.8,
            label=label(row.arm),
            zorder=2,
        )
    axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
