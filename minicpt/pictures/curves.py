"""The curves of one or several runs on one page (matplotlib).

Panels: training loss with the held-out loss; gained and forgotten, a panel for each unit; learning
rate; tokens a second. A line is the mean of a few steps, and the shade around it goes from the
least to the most of them. Leaves out other objectives' losses (``--also``) and remedies' terms.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from minicpt.common.outputs import COLOURS, MARKERS, plotting, write_picture
from minicpt.runs.history import History, number

POINTS = 60  # of a line at most, each the mean of as many steps
MOST = len(COLOURS)  # runs that can be told apart
DASHES = ("--", ":", "-.")  # of heads
THIN = 1.4  # of a line
GREY = "0.35"


@dataclass(frozen=True)
class Style:
    colour: str
    marker: str


def draw(path: str, runs: Mapping[str, History]) -> None:
    """Draws runs, by the names that the legend gives them, into a file: .png, .svg or .pdf."""
    pyplot = plotting()
    units = dict.fromkeys(unit for run in runs.values() for _, unit in run.changes())
    titles = ["loss", *units, "learning rate", "tokens/s"]
    wide = len(titles) % 2  # the first panel takes the whole row
    rows = [titles[:1] * 2] * wide + [titles[at : at + 2] for at in range(wide, len(titles), 2)]
    figure, axes = pyplot.subplot_mosaic(
        rows, figsize=(11, 3.4 * len(rows)), layout="constrained", sharex=True
    )
    legend: dict = {}
    for place, (name, run) in enumerate(runs.items()):
        parts, look = groups(run), Style(COLOURS[place], MARKERS[place])
        loss(axes["loss"], run, parts, look)
        for (change, unit), points in run.changes().items():
            changed(axes[unit], change, points, look)
        # The first is the widest: several runs may have one schedule, and all shall be seen.
        width = THIN * (len(runs) - place)
        line(axes["learning rate"], run, [run.rate[part][-1] for part in parts], look, width)
        speeds = [sum(run.tokens[part]) / (sum(run.seconds[part]) or math.nan) for part in parts]
        line(axes["tokens/s"], run, speeds, look, THIN)
        legend[plain(name)] = key(pyplot, color=look.colour, marker=look.marker)
        if len(runs) == 1 and len(run.heads) > 1:
            legend |= of_heads(axes["loss"], run, parts)
    most = max(map(step_count, runs.values()))
    several = f": mean and range of {'up to ' * (len(runs) > 1)}{most} steps" if most > 1 else ""
    legend[f"training{several}"] = key(pyplot)
    if any(evaluated(run) for run in runs.values()):
        legend["held-out text"] = key(pyplot, marker="o", linestyle=":")
    if units:
        legend["gained (more is better)"] = key(pyplot, marker="o")
        legend["forgotten (less is better)"] = key(
            pyplot, marker="o", markerfacecolor="white", linestyle="--"
        )
    finish(axes, units)
    write_picture(path, figure, legend, columns=max(1, min(4, 130 // (max(map(len, legend)) + 6))))


def finish(axes: Mapping, units: Iterable[str]) -> None:
    """Titles and axes, once everything is drawn."""
    titles = {"loss": "loss, nats/target", "learning rate": "learning rate", "tokens/s": "tokens/s"}
    titles |= {unit: f"gained and forgotten, {plain(unit)}" for unit in units}
    for name, axis in axes.items():
        axis.set_title(titles[name])
        axis.set_xlabel("step")
        axis.tick_params(labelbottom=True)  # sharing an axis hides it
        axis.grid(color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    for unit in units:
        axes[unit].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    for name in ("learning rate", "tokens/s"):
        axes[name].set_ylim(bottom=0)
    axes["learning rate"].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axes["tokens/s"].yaxis.set_major_formatter("{x:,.0f}")


def loss(axis, run: History, parts: Sequence[slice], look: Style) -> None:
    """The training loss with its range, and the held-out loss."""
    across = [run.steps[part][-1] for part in parts]
    line(axis, run, [mean(run.loss[part]) for part in parts], look, THIN, marked=len(parts) == 1)
    finite = [[x for x in run.loss[part] if not math.isnan(x)] or [math.nan] for part in parts]
    low, high = ([take(each) for each in finite] for take in (min, max))
    axis.fill_between(across, low, high, color=look.colour, alpha=0.15, linewidth=0, zorder=1)
    if points := evaluated(run):
        options = {"marker": look.marker, "markersize": 5, "markeredgecolor": "white"}
        axis.plot(*zip(*points, strict=True), ":", color=look.colour, zorder=4, **options)


def of_heads(axis, run: History, parts: Sequence[slice]) -> dict:
    """Draws each head's loss; returns the lines by their labels."""
    found = {}
    looks = zip(run.heads.items(), cycle(COLOURS[1:]), cycle(DASHES))
    for (head, column), colour, dashes in looks:
        across, means = zip(*((run.steps[p][-1], mean(column[p])) for p in parts), strict=True)
        style = {"color": colour, "linestyle": dashes, "linewidth": THIN, "zorder": 2}
        (found[f"head {plain(head)}"],) = axis.plot(across, means, **style)
    return found


def changed(axis, change: str, points: Sequence[tuple[int, float]], look: Style) -> None:
    """What was gained, or forgotten, at each evaluation."""
    forgotten = change == "forgotten"
    axis.plot(
        *zip(*points, strict=True),
        color=look.colour,
        marker=look.marker,
        markersize=5,
        markerfacecolor="white" if forgotten else look.colour,
        linestyle="--" if forgotten else "-",
    )


def line(
    axis, run: History, values: Sequence[float], look: Style, width: float, marked: bool = True
) -> None:
    """A value for each point of the run's lines; ``marked``: with a few of the run's markers."""
    axis.plot(
        [run.steps[part][-1] for part in groups(run)],
        values,
        color=look.colour,
        linewidth=width,
        marker=look.marker if marked else "",
        markersize=width + 4,
        markevery=max(1, len(values) // 5),
        markeredgecolor="white",
        zorder=3,
    )


def step_count(run: History) -> int:
    """How many steps a point of the run's lines stands for."""
    return max(1, math.ceil(len(run.steps) / POINTS))


def groups(run: History) -> list[slice]:
    """The steps that each point stands for."""
    size = step_count(run)
    return [slice(at, at + size) for at in range(0, len(run.steps), size)]


def mean(values: Iterable[float]) -> float:
    """Of those that are numbers; NaN, which leaves a gap in a line, where none is."""
    finite = [each for each in values if not math.isnan(each)]
    return sum(finite) / len(finite) if finite else math.nan


def evaluated(run: History) -> list[tuple[int, float]]:
    """The step and the held-out loss of each evaluation, in the unit of the training loss."""
    return [
        (entry["step"], number(entry["held out"]["total"]))
        for entry in run.evaluations
        if "held out" in entry
    ]


def key(pyplot, **options):
    """A line for the legend alone."""
    return pyplot.Line2D([], [], **{"color": GREY} | options)


def plain(text: str) -> str:
    """A text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")
