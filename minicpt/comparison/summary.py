"""What the parts' results say: gained, forgotten, what is within noise, the Pareto front.

    gained     the fall of the held-out loss on the new text, from the base on
    forgotten  the rise of the held-out loss on the old text

All differences are paired (``statistics``). A difference is within noise when its interval holds
zero.
"""

from dataclasses import asdict, dataclass, field

from minicpt.comparison import measure
from minicpt.comparison.arms import CONTROL, NOTHING
from minicpt.comparison.parts import Part
from minicpt.comparison.statistics import Figures, Interval, interval, less, negative

SIDES = ("new", "old")


PRIVATE = ("figures", "probed")  # of a row, left out of JSON


@dataclass(frozen=True)
class Row:
    """One objective with one arm, over its seeds.

    before, after  mean losses by side, "new" and "old"
    spared         how much less it forgets than nothing does; None for nothing itself
    lost           how much less it gains than nothing does
    net            gained less forgotten
    probe          the probe's share of right answers by side; None where there is no probe
    figures        what the intervals are of, by side, to hold rows against each other
    probed         the same of the probe
    """

    objective: str
    arm: str
    seeds: int
    unit: str
    before: dict[str, float]
    after: dict[str, float]
    gained: Interval
    forgotten: Interval
    net: Interval
    spared: Interval | None
    lost: Interval | None
    probe: dict[str, Interval | None]
    figures: dict[str, list[Figures]] = field(repr=False)
    probed: dict[str, list[Figures] | None] = field(repr=False)

    def plain(self) -> dict:
        """For JSON."""
        kept = {name: value for name, value in vars(self).items() if name not in PRIVATE}
        return {name: _plain(value) for name, value in kept.items()}


@dataclass(frozen=True)
class Base:
    """What the bases of a role score on the probe, and what guessing would, by side."""

    role: str
    probe: dict[str, Interval | None]
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
    return [
        _row(results, members, falls[key], falls.get((key[0], NOTHING)))
        for key, members in found.items()
    ]


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


def _row(results: dict, members: list[Part], mine: dict, plain: dict | None) -> Row:
    name, arm = members[0].objective, members[0].arm

    def mean(parts: list[Part], side: str) -> float:
        losses = [measure.loss(results[part]["losses"][name][side]) for part in parts]
        return sum(losses) / len(losses)

    compared = arm != NOTHING and plain is not None
    probed = {side: _probed([results[part] for part in members], side) for side in SIDES}
    return Row(
        objective=name,
        arm=arm,
        seeds=len(members),
        unit=results[members[0]]["losses"][name]["new"]["unit"],
        before={side: mean([part.from_base for part in members], side) for side in SIDES},
        after={side: mean(members, side) for side in SIDES},
        gained=interval(mine["new"]),
        forgotten=interval(negative(mine["old"])),
        net=interval(mine["new"], mine["old"]),
        spared=interval(less(mine["old"], plain["old"])) if compared else None,
        lost=interval(less(plain["new"], mine["new"])) if compared else None,
        probe={side: each and interval(each) for side, each in probed.items()},
        figures=mine,
        probed=probed,
    )


def _probed(results: list[dict], side: str) -> list[Figures] | None:
    probes = [each["probe"][side] for each in results]
    return measure.accuracies(probes) if probes[0] else None


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
                {side: each and interval(each) for side, each in probed.items()},
                {side: first[side] and first[side]["majority"] for side in SIDES},
                {side: first[side]["parts"] if first[side] else [] for side in SIDES},
            )
        )
    return rows


def lead(row: Row, other: Row) -> Interval:
    """By how much the net of one row is above that of another, on the same units and seeds."""
    return interval(*(less(row.figures[side], other.figures[side]) for side in SIDES))


def front(points: list[Row]) -> list[Row]:
    """The Pareto front: rows that no other beats on both sides, by what they gain.

    The control is no way to learn the new text, and is left out.
    """
    able = [row for row in points if row.arm != CONTROL]

    def beaten(row: Row, other: Row) -> bool:
        ahead = other.gained.value - row.gained.value, row.forgotten.value - other.forgotten.value
        return min(ahead) >= 0 and max(ahead) > 0

    kept = [row for row in able if not any(beaten(row, other) for other in able)]
    return sorted(kept, key=lambda row: row.gained.value)
