"""What the parts' results say: gained, forgotten, what is within noise, the Pareto front.

    gained     the fall of the held-out loss on the new text, from the base on
    forgotten  the rise of the held-out loss on the old text

All differences are paired (``statistics``). A difference is within noise when its interval holds
zero.

The best of several looks better than it is, on the text that it was chosen on. So the held-out
units are split into two halves: the best arm and the front are chosen on the first, and what the
best arm gains and forgets is reported on the second. Both halves share the seeds: a remedy that was
lucky in these trainings is so in both.

Many comparisons find something by chance. Those of an objective's remedies with no remedy are
corrected together (Holm); strengths of a sweep, and all else, are exploratory.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from minicpt.comparison import measure
from minicpt.comparison.arms import CONTROL, NOTHING
from minicpt.comparison.parts import Part
from minicpt.comparison.statistics import (
    Figures,
    Interval,
    estimate,
    holm,
    interval,
    less,
    negative,
)

SIDES = ("new", "old")
# Units of each text that it takes to choose on one half and report on the other. In simulations
# intervals over 8 units still hold, unless few units have most of the loss (then they miss in 9 %).
HALVES = 16
TUNED = "tuned"  # the probe, where the model learns too
CORRECTED = 0.05  # the level of corrected p-values
PRIVATE = ("figures", "probed", "halves")  # of a row, left out of JSON


@dataclass(frozen=True)
class Row:
    """One objective with one arm, over its seeds.

    bases          how many bases the seeds continue
    units          how many units of held-out text, by side
    before, after  mean losses by side, "new" and "old"
    spared         how much less it forgets than nothing does; None for nothing itself
    lost           how much less it gains than nothing does
    net            gained less forgotten
    adjusted       the p-values of spared and lost, corrected for all remedies of the objective
                   (Holm); None where the row is in no such family
    first_half     gained, forgotten and net on the half of the units that chooses, and
    second_half    on the half that reports, with intervals; None where there are too few units
    probe          the probe's shares of right answers by side: "4", "16", "64", from so many shots
                   and frozen features, and "tuned"; {} where there is no probe
    figures        what the intervals are of, by side, to hold rows against each other
    probed         the same of the probe
    halves         the units of the two halves, by side
    """

    objective: str
    arm: str
    seeds: int
    bases: int
    unit: str
    units: dict[str, int]
    before: dict[str, float]
    after: dict[str, float]
    gained: Interval
    forgotten: Interval
    net: Interval
    spared: Interval | None
    lost: Interval | None
    adjusted: dict[str, float] | None
    first_half: dict[str, float] | None
    second_half: dict[str, Interval] | None
    probe: dict[str, dict[str, Interval]]
    figures: dict[str, list[Figures]] = field(repr=False)
    probed: dict[str, dict[str, list[Figures]]] = field(repr=False)
    halves: dict[str, tuple[Tensor, Tensor]] | None = field(repr=False)

    def plain(self) -> dict:
        """For JSON."""
        kept = {name: value for name, value in vars(self).items() if name not in PRIVATE}
        return {name: _plain(value) for name, value in kept.items()}


@dataclass(frozen=True)
class Base:
    """What the bases of a role score on the probe, and what guessing would, by side."""

    role: str
    probe: dict[str, dict[str, Interval]]
    majority: dict[str, float | None]
    parts: dict[str, list[str]]

    def plain(self) -> dict:
        return {name: _plain(value) for name, value in vars(self).items()}


def _plain(value):
    if isinstance(value, Interval):
        return asdict(value)
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, dict) else value


def rows(results: dict[Part, dict]) -> list[Row]:
    """A row for each objective and arm, in the order of the parts."""
    found: dict[tuple[str, str], list[Part]] = {}
    for part in results:
        if part.arm is not None:
            found.setdefault((part.objective, part.arm), []).append(part)
    falls = {key: _falls(results, members) for key, members in found.items()}
    made = [_row(results, members, falls[key]) for key, members in found.items()]
    plain = {row.objective: row for row in made if row.arm == NOTHING}
    made = [_against(row, plain.get(row.objective)) for row in made]
    adjusted = {}
    for name in plain:
        adjusted |= _corrected([row for row in made if row.objective == name], plain[name])
    return [replace(row, adjusted=adjusted.get((row.objective, row.arm))) for row in made]


def _against(row: Row, plain: Row | None) -> Row:
    """The row, held against no remedy."""
    if row.arm == NOTHING or plain is None:
        return row
    spared, lost = _changes(row, plain)
    return replace(row, spared=interval(spared), lost=interval(lost))


def _changes(row: Row, plain: Row) -> tuple[list[Figures], list[Figures]]:
    """What a remedy spares of the old text, and what it costs on the new."""
    mine, other = row.figures, plain.figures
    return less(mine["old"], other["old"]), less(other["new"], mine["new"])


def _corrected(rows: list[Row], plain: Row) -> dict[tuple[str, str], dict[str, float]]:
    """The p-values of one objective's remedies against none, by objective and arm."""
    family = [row for row in rows if row.arm not in (NOTHING, CONTROL) and not swept(row.arm)]
    values = [estimate(each).p for row in family for each in _changes(row, plain)]
    pairs = iter(holm(values))
    return {
        (row.objective, row.arm): {"spared": next(pairs), "lost": next(pairs)} for row in family
    }


def swept(arm: str) -> bool:
    """Whether an arm is one of several strengths that a remedy is swept through, "kl=0.1"."""
    return "=" in arm


def _falls(results: dict[Part, dict], members: list[Part]) -> dict[str, list[Figures]]:
    """The fall of the loss on each side, seed by seed."""
    name = members[0].objective
    return {
        side: measure.differences(
            [results[part.from_base]["losses"][name][side] for part in members],
            [results[part]["losses"][name][side] for part in members],
        )
        for side in SIDES
    }


def _row(results: dict, members: list[Part], mine: dict) -> Row:
    name, arm = members[0].objective, members[0].arm
    measured = results[members[0]]["losses"][name]

    def mean(parts: list[Part], side: str) -> float:
        losses = [measure.loss(results[part]["losses"][name][side]) for part in parts]
        return sum(losses) / len(losses)

    probed = {side: _probed([results[part] for part in members], side) for side in SIDES}
    units = {side: measured[side]["units"] for side in SIDES}
    split = None
    if min(map(len, units.values())) >= HALVES:
        split = {side: halves(units[side]) for side in SIDES}
    parts = [{side: [each.of(split[side][half]) for each in mine[side]] for side in SIDES}
             for half in (0, 1)] if split else None  # fmt: skip
    return Row(
        objective=name,
        arm=arm,
        seeds=len(members),
        bases=len({part.from_base for part in members}),
        unit=measured["new"]["unit"],
        units={side: len(each) for side, each in units.items()},
        before={side: mean([part.from_base for part in members], side) for side in SIDES},
        after={side: mean(members, side) for side in SIDES},
        **_balance(mine),
        spared=None,
        lost=None,
        adjusted=None,
        first_half=parts and {key: each.value for key, each in _balance(parts[0]).items()},
        second_half=parts and _balance(parts[1]),
        probe=_intervals(probed),
        figures=mine,
        probed=probed,
        halves=split,
    )


def _balance(falls: dict[str, list[Figures]]) -> dict[str, Interval]:
    """What is gained, what is forgotten, and the one less the other."""
    return {
        "gained": interval(falls["new"]),
        "forgotten": interval(negative(falls["old"])),
        "net": interval(falls["new"], falls["old"]),
    }


def halves(units: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The places of the units that choose, and of those that report: a function of their names.

    >>> [each.tolist() for each in halves(["a", "b", "c", "d"])]
    [[2, 3], [0, 1]]
    """

    def key(place: int) -> bytes:
        return hashlib.sha256(str(units[place]).encode()).digest()

    order = sorted(range(len(units)), key=key)
    middle = len(units) // 2
    return torch.tensor(sorted(order[:middle])), torch.tensor(sorted(order[middle:]))


def _probed(results: list[dict], side: str) -> dict[str, list[Figures]]:
    """The probe's figures by the number of shots, and tuned."""
    probes = [each["probe"][side] for each in results]
    if not all(probes):
        return {}
    kinds = {kind: [each["frozen"][kind] for each in probes] for kind in probes[0]["frozen"]}
    if all(each["tuned"] for each in probes):
        kinds[TUNED] = [each["tuned"] for each in probes]
    return {kind: measure.accuracies(found) for kind, found in kinds.items()}


def _intervals(probed: dict[str, dict[str, list[Figures]]]) -> dict[str, dict[str, Interval]]:
    return {
        side: {kind: interval(each) for kind, each in found.items()}
        for side, found in probed.items()
    }


def bases(results: dict[Part, dict]) -> list[Base]:
    """A row for the bases of each role."""
    found: dict[str, list[dict]] = {}
    for part, result in results.items():
        if part.arm is None:
            found.setdefault(part.role, []).append(result)
    rows = []
    for role, members in found.items():
        probed = {side: _probed(members, side) for side in SIDES}
        first = members[0]["probe"]
        rows.append(
            Base(
                role,
                _intervals(probed),
                {side: first[side] and first[side]["majority"] for side in SIDES},
                {side: first[side]["parts"] if first[side] else [] for side in SIDES},
            )
        )
    return rows


def lead(row: Row, other: Row) -> Interval:
    """By how much the net of one row is above that of another, on the same units and seeds.

    It is of the second half of the units, where one half chooses; else of all.
    """
    apart = {side: less(row.figures[side], other.figures[side]) for side in SIDES}
    if row.halves:
        apart = {
            side: [each.of(row.halves[side][1]) for each in found] for side, found in apart.items()
        }
    return interval(*apart.values())


def best(rows: list[Row]) -> Row | None:
    """The row of one objective whose net is highest on the half that chooses.

    Several strengths of a remedy compete with each other, and with all others. None with too few
    units, since the best of all would then be reported on the text that it was chosen on.
    """
    able = [row for row in rows if row.arm != CONTROL and row.first_half]
    return max(able, key=lambda row: row.first_half["net"], default=None)


def front(points: list[Row]) -> list[Row]:
    """The Pareto front: rows that no other beats on both sides, by what they gain.

    It is chosen on the first half of the units; with too few, on all. The control is no way to
    learn the new text, and is left out.
    """
    able = [row for row in points if row.arm != CONTROL]

    def place(row: Row) -> tuple[float, float]:
        if row.first_half:
            return row.first_half["gained"], row.first_half["forgotten"]
        return row.gained.value, row.forgotten.value

    def beaten(row: Row, other: Row) -> bool:
        (mine, my_loss), (others, other_loss) = place(row), place(other)
        ahead = others - mine, my_loss - other_loss
        return min(ahead) >= 0 and max(ahead) > 0

    kept = [row for row in able if not any(beaten(row, other) for other in able)]
    return sorted(kept, key=lambda row: row.gained.value)
