"""Gained and forgotten: the rows of comparisons as points of a plane.

The rows are those of ``minicpt compare --json``. Several comparisons from one base, with different
strengths of a remedy, give a slider. Without ``--compare`` the page shows a small real one, whose
settings stand beside it.
"""

from collections.abc import Iterator, Mapping, Sequence

from minicpt import remedies
from minicpt.common.errors import InputError
from minicpt.comparison.arms import CONTROL, NOTHING, parted
from minicpt.pictures.lesson.grid import short
from minicpt.pictures.lesson.sections import Lesson, table

ORDER = 5
TITLE = "Gained and forgotten"
LEAD = "What continued pre-training gains on the new text, and what it forgets of the old one."
ENDS = ("value", "low", "high")
SIDES = ("gained", "forgotten")
# What is told of the settings of a comparison.
TOLD = ("seeds", "steps", "base_steps", "width", "layers", "window", "batch_size", "characters")


def data(lesson: Lesson) -> dict:
    """A point for each objective, arm and strength that was measured; the same twice is one."""
    found: dict[tuple, dict] = {}
    for result in whole(lesson.compared):
        for row in rows_of(result):
            key = row["objective"], row["arm"], row["label"]
            found.setdefault(key, row)
    points = sorted(found.values(), key=lambda row: (row["objective"], row["arm"], row["strength"]))
    settings = next((each.get("settings", {}) for each in whole(lesson.compared)), {})
    told = {name: settings[name] for name in TOLD if name in settings}
    return {"points": points, "settings": told}


def whole(compared: Sequence[Mapping]) -> Iterator[Mapping]:
    """Each comparison; the benchmark's file holds several by their names."""
    for result in compared:
        inner = [each for each in result.values() if isinstance(each, Mapping) and "rows" in each]
        yield from inner or [result]


def rows_of(result: Mapping) -> list[dict]:
    """The points of one comparison. InputError where it is none."""
    try:
        strengths = result["settings"]["remedies"]
        return [
            {
                "objective": row["objective"],
                "arm": parted(row["arm"])[0],
                **called(row["arm"], strengths.get(row["arm"], {})),
                "unit": row["unit"],
                "seeds": row["seeds"],
                **{side: [short(row[side][end]) for end in ENDS] for side in SIDES},
            }
            for row in result["rows"]
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"--compare: that is no result of `minicpt compare --json` ({error!r}); give the file"
            " that it wrote"
        ) from None


def called(arm: str, settings: Mapping) -> dict:
    """How an arm is shown, and its strength, by which a slider orders it; 0: it has none."""
    name, value = parted(arm)
    if value is not None and name not in remedies.known():
        return {"label": f"{name.replace('-', ' ')} {value:g}", "strength": value}
    if arm in (NOTHING, CONTROL) or name not in remedies.known():
        names = {NOTHING: "no remedy", CONTROL: "wrong text"}
        return {"label": names.get(arm, arm), "strength": 0}
    kind = remedies.known()[name]
    numbers = [value for value in settings.values() if type(value) in (int, float)]
    label = kind.label(kind.Settings(**{**settings, **tuples(settings)}))
    return {"label": label, "strength": numbers[0] if numbers else 0}


def tuples(settings: Mapping) -> dict:
    """JSON has lists where settings have tuples."""
    return {name: tuple(each) for name, each in settings.items() if isinstance(each, list)}


def tables(lesson: Lesson, data: dict) -> str:
    rows = [
        [
            f"{row['objective']}, {row['label']}",
            *("{:+.3f} ({:+.3f} to {:+.3f})".format(*row[side]) for side in SIDES),
            row["unit"],
        ]
        for row in data["points"]
    ]
    return table(
        "Gained on the new text and forgotten of the old, with 95 % intervals",
        ["objective and remedy", *SIDES, "unit"],
        rows,
    )
