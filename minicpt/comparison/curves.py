"""Dose and response: what each remedy, from weak to strong, gives and takes.

A curve is one remedy (or one setting of the training, such as the learning rate) through its
strengths, for one objective. Beside ours stands what Ibrahim et al. 2024 (arXiv 2403.08763, models
of 405 million parameters) found for replay and for re-warming, in a form that does not depend on
the size of a model: shares of the whole effect. Where ours has another shape, it says so.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from minicpt.comparison import measure
from minicpt.comparison.arms import CONTROL, KNOBS, NOTHING, parted
from minicpt.comparison.parts import Part
from minicpt.comparison.statistics import Interval, interval, less
from minicpt.comparison.summary import Row
from minicpt.comparison.table import figure
from minicpt.comparison.work import PATH

# Losses by dose of replay, in nats: of the old text, and of the new one.
THEIRS = {
    "a weak shift": {
        0.0: (2.44, 2.50), 0.005: (2.27, 2.50), 0.01: (2.26, 2.50), 0.05: (2.23, 2.51),
        0.1: (2.21, 2.51), 0.5: (2.16, 2.54),
    },
    "a strong shift": {
        0.0: (3.56, 1.11), 0.01: (2.83, 1.12), 0.05: (2.57, 1.12), 0.1: (2.46, 1.13),
        0.25: (2.33, 1.16), 0.5: (2.24, 1.22),
    },
}  # fmt: skip
PEAK = (0.1, 0.2)  # nats: the passing peak of re-warming on the same text
FEW = 0.05  # a dose of which they say that it helps much


@dataclass(frozen=True)
class Curve:
    """One remedy or setting of the training; ``points`` are rows from weak to strong."""

    objective: str
    name: str
    points: list[Row]
    plain: Row

    def named(self) -> dict:
        """For JSON: which rows it consists of, from weak to strong."""
        arms = [row.arm for row in self.points]
        return {"objective": self.objective, "name": self.name, "arms": arms}

    @property
    def line(self) -> list[Row]:
        """The points with the continuation without a remedy, at the end that it is nearer to."""
        ends = [self.points[0], self.points[-1]]
        near = [abs(e.gained.value - self.plain.gained.value)
                + abs(e.forgotten.value - self.plain.forgotten.value) for e in ends]  # fmt: skip
        return [self.plain, *self.points] if near[0] <= near[1] else [*self.points, self.plain]


def curves(rows: Sequence[Row], strength: Callable[[str], float]) -> list[Curve]:
    """All remedies of which at least two strengths were measured.

    strength  of an arm
    """
    found = []
    for objective in dict.fromkeys(row.objective for row in rows):
        mine = {row.arm: row for row in rows if row.objective == objective}
        names = dict.fromkeys(parted(arm)[0] for arm in mine if arm not in (NOTHING, CONTROL))
        for name in names:
            points = [row for arm, row in mine.items() if parted(arm)[0] == name]
            points.sort(key=lambda row: strength(row.arm))
            if len(points) > 1 and NOTHING in mine:
                found.append(Curve(objective, name, points, mine[NOTHING]))
    return found


# --- beside theirs ---------------------------------------------------------------------------


def shares(losses: Mapping[float, tuple[float, float]]) -> dict[float, float]:
    """Of what the highest dose does for the old text: the share that each dose does.

    >>> shares({0.0: (3.0, 1.0), 0.1: (2.25, 1.0), 0.5: (2.0, 1.5)})
    {0.1: 0.75, 0.5: 1.0}
    """
    old = {dose: each[0] for dose, each in losses.items()}
    most = old[0.0] - old[max(old)]
    return {dose: (old[0.0] - each) / most for dose, each in old.items() if dose}


def replay_sayings(curve: Curve, strength: Callable[[str], float]) -> list[str]:
    """Our doses of replay beside theirs, and where the shape differs."""
    top = curve.points[-1]
    if top.spared.sign <= 0:
        return [
            f"{curve.objective}: replay has no effect on the old text here, so its shape cannot be"
            f" held against that of Ibrahim et al.; spared {figure(top.spared, top.unit)}."
        ]
    whole, lines, ours = top.spared.value, [], {}
    for row in curve.points:
        dose = strength(row.arm)
        ours[dose] = row.spared
        theirs = [
            f"{shares(losses)[dose]:.0%} with {shift}"
            for shift, losses in THEIRS.items() if dose in losses and dose < max(losses)
        ]  # fmt: skip
        bounds = f"{row.spared.low / whole:.0%} to {row.spared.high / whole:.0%}"
        if row is not top:
            beside = f"theirs {', '.join(theirs)}" if theirs else "none of theirs"
            lines.append(f"{dose:.1%} {row.spared.value / whole:.0%} ({bounds}; {beside})")
    said = [
        f"{curve.objective}, replay: of the forgetting that {strength(top.arm):.0%} of old text"
        f" spares ({figure(top.spared, top.unit)}), smaller doses spare: {'; '.join(lines)}."
    ]
    cost = top.lost
    theirs = ", ".join(
        f"+{losses[0.5][1] - losses[0.0][1]:.2f} nats with {shift}"
        for shift, losses in THEIRS.items()
    )
    said.append(
        f"{curve.objective}, replay: the highest dose costs {figure(cost, top.unit)} of the gain"
        f" (theirs {theirs})."
    )
    return said + differing(curve, ours, whole)


def differing(curve: Curve, ours: Mapping[float, Interval], whole: float) -> list[str]:
    """One sentence: whether the shape is theirs."""
    wrong = []
    pairs = zip(curve.points, curve.points[1:], strict=False)
    for weak, strong in pairs:
        step = interval(less(strong.figures["old"], weak.figures["old"]))
        if step.sign < 0:
            wrong.append(f"more replay forgets more between {weak.arm} and {strong.arm}")
    for dose in (dose for dose in ours if dose < max(ours)):
        theirs = [shares(losses)[dose] for losses in THEIRS.values() if dose in losses]
        low, high = ours[dose].low / whole, ours[dose].high / whole
        if theirs and (high < min(theirs) or low > max(theirs)):
            size = "smaller" if high < min(theirs) else "larger"
            wrong.append(f"{dose:.1%} of old text spares a {size} share than theirs")
    begin = f"{curve.objective}, replay:"
    if wrong:
        return [f"{begin} the shape differs from theirs: {'; '.join(wrong)}."]
    return [f"{begin} no dose shows another shape than theirs."]


def peak_sayings(results: Mapping[Part, dict], unit_of: Mapping[str, str]) -> list[str]:
    """The passing peak of the old text's loss when the rate rises again on that same text."""
    found: dict[str, list[Part]] = {}
    for part, result in results.items():
        if part.arm == CONTROL and result.get(PATH):
            found.setdefault(part.objective, []).append(part)
    said = []
    for objective, members in found.items():
        steps = list(results[members[0]][PATH])
        before = [results[part.from_base]["losses"][objective]["old"] for part in members]
        rises = {
            step: interval(
                measure.differences([results[part][PATH][step] for part in members], before)
            )
            for step in steps
        }
        top = max(rises, key=lambda step: rises[step].value)
        last, unit = rises[steps[-1]], unit_of[objective]
        level = sum(map(measure.loss, before)) / len(before)
        text = (
            f"{objective}, the rate rises again on the same old text: its loss of {level:.3f} rises"
            f" at most {figure(rises[top], unit)}, at step {top}, and ends"
            f" {figure(last, unit)} from where it began (theirs rises {PEAK[0]} to {PEAK[1]} nats"
            " and comes back)."
        )
        if rises[top].sign <= 0:
            text += " Ours has another shape: no peak shows."
        elif stays_up(rises, top, steps):
            text += " Ours has another shape: it does not pass within these steps."
        said.append(text)
    return said


def stays_up(rises: Mapping[str, Interval], top: str, steps: Sequence[str]) -> bool:
    """Whether the loss ends as high as its peak."""
    return top == steps[-1] or rises[steps[-1]].high >= rises[top].value


# --- text --------------------------------------------------------------------------------------


def sayings(found: Sequence[Curve], strength: Callable[[str], float]) -> list[str]:
    """What the curves say, replay's beside that of the paper."""
    said = []
    for curve in found:
        if curve.name == "replay":
            said += replay_sayings(curve, strength)
    return said


def shown(
    found: Sequence[Curve], said: Sequence[str], label: Callable[[str], str], width: int
) -> str:
    """A table for each curve, then the sentences."""
    width = max(24, min(width, 100))
    blocks = []
    for curve in found:
        kind = "the training's" if curve.name in KNOBS else "the remedy"
        heading = f"{curve.objective}, {kind} {curve.name}, in {curve.plain.unit}"
        rows = [curve.plain, *curve.points]
        cells = [(label(row.arm), figure(row.gained), figure(row.forgotten)) for row in rows]
        blocks.append("\n".join([*textwrap.wrap(heading, width), *table(cells, width)]))
    lines = [
        textwrap.fill(f"- {each}", width, subsequent_indent="  ", break_on_hyphens=False)
        for each in said
    ]
    return "\n\n".join([*blocks, *(["\n".join(lines)] if lines else [])])


def table(cells: Sequence[Sequence[str]], width: int) -> list[str]:
    headings = ("", "gained", "forgotten")
    sizes = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    if 2 + sum(sizes) + 4 <= width:
        return [
            "  " + "  ".join([row[0].ljust(sizes[0]), *map(str.rjust, row[1:], sizes[1:])]).rstrip()
            for row in [headings, *cells]
        ]
    lines = []
    for name, gained, forgotten in cells:
        lines += [f"  {name}", f"    gained {gained}", f"    forgotten {forgotten}"]
    return lines
