"""The numbers in plain sentences: what shows, what does not, and what to do."""

from collections.abc import Callable

from minicpt.comparison.plan import CONTROL, NOTHING
from minicpt.comparison.statistics import Interval, interval, less
from minicpt.comparison.summary import Row, lead

NOISE = "within noise"


def sentences(rows: list[Row], label: Callable[[str], str]) -> list[str]:
    """What the rows say; the last sentence is the advice.

    label  from an arm to its name
    """
    plain = [row for row in rows if row.arm == NOTHING]
    found = [_gains(plain), _forgets(plain)]
    for base in plain:
        mine = [row for row in rows if row.objective == base.objective]
        remedies = [row for row in mine if row.arm not in (NOTHING, CONTROL)]
        found += [_remedy(row, base, label(row.arm)) for row in remedies]
        found += [_control(row, base) for row in mine if row.arm == CONTROL]
    found.append(_probe(plain))
    advice = [_advice(base, rows, label) for base in plain]
    return [each for each in [*found, *advice] if each]


def figure(value: Interval, unit: str = "") -> str:
    """An interval in a sentence.

    >>> figure(Interval(0.5, 0.25, 0.75), "bits/byte")
    '+0.500 bits/byte [+0.250, +0.750]'
    """
    return f"{value.value:+.3f}{unit and ' ' + unit} [{value.low:+.3f}, {value.high:+.3f}]"


def _list(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _gains(plain: list[Row]) -> str:
    shown = [row.objective for row in plain if row.gained.sign > 0]
    not_shown = [
        f"{row.objective} ({figure(row.gained, row.unit)})" for row in plain if row.gained.sign <= 0
    ]
    text = f"Without a remedy, {_list(shown)} gained on the new text." if shown else ""
    if not_shown:
        text += f" No gain shows for {_list(not_shown)}."
    return text.strip()


def _forgets(plain: list[Row]) -> str:
    shown = [row.objective for row in plain if row.forgotten.sign > 0]
    not_shown = [
        f"{row.objective} ({figure(row.forgotten, row.unit)})"
        for row in plain
        if row.forgotten.sign <= 0
    ]
    text = f"Without a remedy, {_list(shown)} forgot of the old text." if shown else ""
    if not_shown:
        text += f" No forgetting shows for {_list(not_shown)}."
    return text.strip()


def _remedy(row: Row, base: Row, name: str) -> str:
    begin = f"{row.objective}, {name}:"
    if row.spared.sign > 0:
        text = f"{begin} forgets less than without a remedy, by {figure(row.spared, row.unit)}"
    elif row.spared.sign < 0:
        more = Interval(-row.spared.value, -row.spared.high, -row.spared.low)
        text = f"{begin} forgets more than without a remedy, by {figure(more, row.unit)}"
    else:
        text = f"{begin} less forgetting does not show: {figure(row.spared, row.unit)}"
    cost = f"{figure(row.lost)} of the {base.gained.value:+.3f} gained"
    if row.lost.sign == 0:
        return f"{text}; the gain that it costs is {NOISE}: {cost}."
    return f"{text}; it costs {cost}."


def _control(row: Row, base: Row) -> str:
    begin = f"{row.objective}, the same budget on the wrong text:"
    if row.gained.sign <= 0:
        return f"{begin} no gain on the new text shows: {figure(row.gained, row.unit)}."
    of = ""
    if base.gained.sign > 0:
        of = f", {row.gained.value / base.gained.value:.0%} of what the new text itself gives"
    return f"{begin} gains on the new text, too: {figure(row.gained, row.unit)}{of}."


def _probe(plain: list[Row]) -> str:
    able = sorted(
        (row for row in plain if row.probe["new"]), key=lambda row: -row.probe["new"].value
    )
    if len(able) < 2:
        return ""
    first, second = able[:2]
    ahead = interval(less(first.probed["new"], second.probed["new"]))
    noise = f", which is {NOISE}" if ahead.sign == 0 else ""
    return (
        f"The probe on the new text is right most often after {first.objective}"
        f" ({first.probe['new'].value:.0%}), then {second.objective}"
        f" ({second.probe['new'].value:.0%}): {ahead.value * 100:+.0f} points{noise}."
    )


def _advice(base: Row, rows: list[Row], label: Callable[[str], str]) -> str:
    mine = [row for row in rows if row.objective == base.objective and row.arm != CONTROL]
    able = sorted(mine, key=lambda row: -row.net.value)
    if len(able) < 2:  # nothing to choose from
        return ""
    best, second = able[:2]
    ahead = lead(best, second)
    kept = best.gained.value / base.gained.value if base.gained.sign > 0 else None
    text = f"Advice for {base.objective}: "
    if base.gained.sign <= 0:
        return text + "this budget does not gain on the new text; train longer, then compare again."
    if best.arm == NOTHING:
        text += "no remedy pays here: gained less forgotten, training without one is best"
    else:
        text += f"{label(best.arm)} keeps {kept:.0%} of the gain"
        if base.forgotten.sign > 0:
            spared = 1 - best.forgotten.value / base.forgotten.value
            text += f" and spares {spared:.0%} of the forgetting"
        text += "; gained less forgotten, it is best"
    alike = [label(row.arm) for row in able[1:] if lead(best, row).sign == 0]
    if alike:
        return f"{text}, but its lead over {_list(alike)} is {NOISE}."
    return f"{text}, ahead of {label(second.arm)} by {figure(ahead, base.unit)}."
