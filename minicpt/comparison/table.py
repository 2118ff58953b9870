"""The comparison as text: a table for each objective, then sentences; the last ones are advice.

A line of a table is an arm. Everything is ASCII, so that any terminal, pipe and file can carry it.
Where a line does not fit, its figures stand below each other.
"""

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from minicpt.common import html
from minicpt.comparison.arms import CONTROL, NOTHING
from minicpt.comparison.statistics import Interval, interval, less
from minicpt.comparison.summary import CORRECTED, HALVES, SIDES, TUNED, Base, Row, best, lead

NOTE = (
    "Gained: the held-out loss of the new text fell by so much; forgotten: that of the old text "
    "rose by so much. {brackets} Probe: how often a "
    "classifier names the part of the text that a passage comes from, learnt from so many passages "
    "of each part (shots): a linear one on frozen features, or, tuned, with all weights of a copy "
    "of the model and the most shots. Its intervals speak of other passages of these parts."
)
NOISE = "within noise"
CHANGES = ("", "gained", "forgotten")  # the headings of an objective's table
NO_PROBE = "No probe: neither text has two parts (folders or files) that are long enough."
SEVERAL = "Brackets: 95 % intervals over seeds and held-out text."
ONE = (
    "Brackets: 95 % intervals over held-out text alone; one seed does not show how far another "
    "training would be off."
)


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


def as_html(
    rows: Sequence[Row],
    bases: Sequence[Base],
    sentences: Sequence[str],
    label: Callable[[str], str],
) -> str:
    """The same for a notebook."""
    names = dict.fromkeys(row.objective for row in rows)
    tables = []
    for name in names:
        mine = [row for row in rows if row.objective == name]
        heading, headings = _heading(mine[0]), ("training", *CHANGES[1:])
        drawn = html.table(headings, _changes(mine, label), caption=heading, numbers=(1, 2))
        tables.append((drawn, name))
    for side in SIDES:
        if cells := _shares(rows, bases, label, side):
            numbers = range(1, len(cells[0]))
            tables.append((html.table(cells[0], cells[1:], numbers=numbers), cells[0][0]))
    said = html.element("ul", *(html.element("li", each) for each in sentences))
    note = NOTE.format(brackets=ONE if max(row.seeds for row in rows) == 1 else SEVERAL)
    return html.fragment(*(html.wide(*each) for each in tables), html.paragraphs([note]), said)


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
    return textwrap.wrap(_heading(mine[0]), width) + _lines(CHANGES, _changes(mine, label), width)


def _heading(first: Row) -> str:
    before = ", ".join(f"{side} text {first.before[side]:.3f}" for side in ("old", "new"))
    return f"{first.objective}, in {first.unit} (bases: {before}; {count(first.seeds)})"


def _changes(mine: Sequence[Row], label: Callable[[str], str]) -> list[tuple[str, ...]]:
    return [(label(row.arm), figure(row.gained), figure(row.forgotten)) for row in mine]


def _probes(
    rows: Sequence[Row], bases: Sequence[Base], label: Callable[[str], str], width: int
) -> list[str]:
    """The probe of every model, a table for each text."""
    tables = [_shares(rows, bases, label, side) for side in SIDES]
    found = [_lines(cells[0], cells[1:], width) for cells in tables if cells]
    return [line for each in found for line in ["", *each]][1:] or [NO_PROBE]


def _shares(
    rows: Sequence[Row], bases: Sequence[Base], label: Callable[[str], str], side: str
) -> list[tuple[str, ...]]:
    """The probe's table of a text, its heading first; none where there is no probe."""
    kinds = list(dict.fromkeys(kind for base in bases for kind in base.probe[side]))
    if not kinds:
        return []
    shots = [kind if kind == TUNED else f"{kind} shots" for kind in kinds]
    guessed = share(bases[0].majority[side])
    return [
        (f"probe, {side} text", *shots),
        ("guessing", *[guessed] * len(kinds)),
        *((f"{each.role} base", *_scores(each.probe[side], kinds)) for each in bases),
        *(
            (f"{row.objective}, {label(row.arm)}", *_scores(row.probe[side], kinds))
            for row in rows
            if row.probe[side]
        ),
    ]


def _scores(probe: dict[str, Interval], kinds: Sequence[str]) -> list[str]:
    found = []
    for kind in kinds:
        each = probe.get(kind)
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


def figure(value: Interval, unit: str = "") -> str:
    """An estimate with its interval.

    >>> figure(Interval(0.5, 0.25, 0.75), "bits/byte")
    '+0.500 bits/byte [+0.250, +0.750]'
    """
    return f"{value.value:+.3f}{unit and ' ' + unit} [{value.low:+.3f}, {value.high:+.3f}]"


def share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


# --- sentences -------------------------------------------------------------------------------


def sentences(rows: list[Row], label: Callable[[str], str]) -> list[str]:
    """What the rows say; the last sentence is the advice.

    label  from an arm to its name

    Strengths of a sweep have no sentence of their own, and compete in the advice.
    """
    plain = [row for row in rows if row.arm == NOTHING]
    found = [
        _shown(plain, "gained", "gained on the new", "gain"),
        _shown(plain, "forgotten", "forgot of the old", "forgetting"),
    ]
    for base in plain:
        mine = [row for row in rows if row.objective == base.objective]
        remedies = [row for row in mine if row.adjusted]
        found += [_remedy(row, base, label(row.arm)) for row in remedies]
        found += [_control(row, base) for row in mine if row.arm == CONTROL]
    found += [*_probes_said(plain), _corrections(rows)]
    advice = [_advice(base, rows, label) for base in plain]
    return [each for each in [*found, *advice] if each]


def _list(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _shown(plain: list[Row], change: str, verb: str, noun: str) -> str:
    """For which objectives a change shows without a remedy, and for which it does not.

    change  "gained" or "forgotten", and in words: the verb and its noun
    """
    found = [(row, getattr(row, change)) for row in plain]
    shown = [row.objective for row, value in found if value.sign > 0]
    rest = [
        f"{row.objective} ({figure(value, row.unit)})" for row, value in found if value.sign <= 0
    ]
    text = f"Without a remedy, {_list(shown)} {verb} text." if shown else ""
    return f"{text} No {noun} shows for {_list(rest)}.".strip() if rest else text


def _remedy(row: Row, base: Row, name: str) -> str:
    begin = f"{row.objective}, {name}:"
    shows = {change: value < CORRECTED for change, value in row.adjusted.items()}
    less, p = row.spared.value > 0, _p(row.adjusted["spared"])
    spared = row.spared
    if shows["spared"] and not less:
        spared = Interval(-spared.value, -spared.high, -spared.low)
    if shows["spared"]:
        text = f"{begin} forgets {'less' if less else 'more'} than without a remedy, by"
        text += f" {figure(spared, row.unit)} ({p})"
    else:
        text = f"{begin} less forgetting does not show ({p}): {figure(spared, row.unit)}"
    cost = f"{figure(row.lost)} of the {base.gained.value:+.3f} gained ({_p(row.adjusted['lost'])})"
    if shows["lost"]:
        return f"{text}; it costs {cost}."
    return f"{text}; that it costs some of the gain does not show: {cost}."


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p {value:.2g}"


def _corrections(rows: list[Row]) -> str:
    """What was corrected, and what was not."""
    family = [row for row in rows if row.adjusted]
    if not family:
        return ""
    counts = Counter(row.objective for row in family)
    said = _list([f"{2 * count} of {name}" for name, count in counts.items()])
    return (
        f"Each p is corrected for all comparisons with no remedy ({said}; Holm): below"
        f" {CORRECTED:g} a change shows. All else is exploratory: other intervals, the probe,"
        " sweeps, and leads between remedies."
    )


def _control(row: Row, base: Row) -> str:
    begin = f"{row.objective}, the same budget on the wrong text:"
    if row.gained.sign <= 0:
        return f"{begin} no gain on the new text shows: {figure(row.gained, row.unit)}."
    of = ""
    if base.gained.sign > 0:
        of = f", {row.gained.value / base.gained.value:.0%} of what the new text itself gives"
    return f"{begin} gains on the new text, too: {figure(row.gained, row.unit)}{of}."


def _probes_said(plain: list[Row]) -> list[str]:
    """Whether the probe tells objectives apart on the new text: from most shots, and tuned."""
    kinds = list(dict.fromkeys(kind for row in plain for kind in row.probe["new"]))
    frozen = [kind for kind in kinds if kind != TUNED]
    return [_probe(plain, kind) for kind in (*frozen[-1:], *kinds[len(frozen) :])]


def _probe(plain: list[Row], kind: str) -> str:
    able = sorted(
        (row for row in plain if kind in row.probe["new"]),
        key=lambda row: -row.probe["new"][kind].value,
    )
    if len(able) < 2:
        return ""
    how = "tuned" if kind == TUNED else f"frozen, {kind} shots"
    first, *others = able
    ahead = [interval(less(first.probed["new"][kind], row.probed["new"][kind])) for row in others]
    shares = [f"{row.objective} {_points(row.probe['new'][kind])}" for row in able]
    text = f"Probe on the new text, {how}, right answers in 100: {_list(shares)}."
    if not any(each.sign for each in ahead):
        most = max(100 * each.high for each in ahead)
        return (
            f"{text} All tie: each interval of what {first.objective} is ahead by holds zero, and"
            f" none reaches beyond {most:.1f}."
        )
    beaten = [row.objective for row, each in zip(others, ahead, strict=True) if each.sign > 0]
    tied = [row.objective for row, each in zip(others, ahead, strict=True) if each.sign <= 0]
    tie = f", and ties with {_list(tied)}" if tied else ""
    return f"{text} {first.objective} is ahead of {_list(beaten)}{tie}."


def _points(value: Interval) -> str:
    """An interval of shares in points."""
    return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def _advice(base: Row, rows: list[Row], label: Callable[[str], str]) -> str:
    mine = [row for row in rows if row.objective == base.objective and row.arm != CONTROL]
    if len(mine) < 2:  # nothing to choose from
        return ""
    text, chosen = f"Advice for {base.objective}: ", best(mine)
    if chosen is None:
        few = min(base.units.values())
        return text + (
            f"none. To choose a remedy on one half of the held-out text and to report it on the"
            f" other takes {HALVES} units of each text, and here are {few}; give more text."
        )
    plain, found = base.second_half, chosen.second_half
    if plain["gained"].sign <= 0:
        return text + "this budget does not gain on the new text; train longer, then compare again."
    says = "no remedy pays here, training without one" if chosen is base else label(chosen.arm)
    text += f"gained less forgotten, on one half of the held-out text, {says} is best. On the other"
    text += f" half, it gained {figure(found['gained'], base.unit)}"
    text += f" and forgot {figure(found['forgotten'])}"
    if chosen is not base:
        kept = found["gained"].value / plain["gained"].value
        text += f": it keeps {kept:.0%} of the gain"
        if plain["forgotten"].sign > 0:
            spared = 1 - found["forgotten"].value / plain["forgotten"].value
            text += f" and spares {spared:.0%} of the forgetting"
    leads = {label(row.arm): lead(chosen, row) for row in mine if row is not chosen}
    if alike := [name for name, ahead in leads.items() if ahead.sign == 0]:
        text += f"; its lead over {_list(alike)} is {NOISE}"
    if ahead := [f"{name} by {figure(each)}" for name, each in leads.items() if each.sign > 0]:
        text += f"; it is ahead of {_list(ahead)}"
    if behind := [f"{name} by {figure(each)}" for name, each in leads.items() if each.sign < 0]:
        text += f"; it is behind {_list(behind)}"
    return f"{text}. {_limits(chosen)}"


def _limits(row: Row) -> str:
    """What an advice rests on, and what it cannot know."""
    bases = "one base" if row.bases == 1 else f"{row.bases} bases"
    unknown = ["other texts", "larger models", "longer training"]
    if row.bases == 1:
        unknown.insert(0, "another base")
    if row.seeds == 1:
        unknown.insert(0, "another seed")
    units = f"{row.units['new']} units of the new and {row.units['old']} of the old text"
    text = f"That rests on {count(row.seeds)} of {bases}, and on {units};"
    text += f" it does not tell of {_list(unknown)}."
    if row.seeds > 1:
        text += " The same seeds chose and reported, so luck of these trainings is not taken out."
    return text
