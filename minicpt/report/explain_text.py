"""The report of ``explain`` as text for a terminal: tables of what is read, seen and predicted.

Takes the plain data that ``explain.as_data`` gathers, and knows neither models nor objectives.
"""

import math
from collections.abc import Sequence

from minicpt.report.terminal import (
    Column,
    bar,
    columns,
    draw,
    fit,
    paint,
    printable,
    words,
    wrap,
)

LEAST = 60  # columns; a narrower terminal gets lines of this many
PICTURES = 14  # columns that the pictures of visibility get at the least
LABEL, CELL = 10, 6  # columns of the triangle: of its labels, and of its numbers


def as_text(data: dict, width: int, *, ascii: bool = False, color: bool = False) -> str:
    """What ``as_data`` gathered, in lines of at most ``width`` columns (60 at the least).

    ascii  draw with ASCII alone; ``terminal.needs_ascii`` tells where that is necessary
    color  with the terminal's colour sequences, which take no columns
    """
    width = max(width, LEAST)
    lines: list[str] = []

    def say(text: str, style: str = "") -> None:
        lines.extend(paint(line, style, color) for line in wrap(text, width, ascii))

    say(printable(data["summary"], ascii), "1")
    say(f"Passage: {printable(data['place'], ascii)}")
    say(counted(data))
    for name, stream in data["streams"].items():
        lines.append("")
        if name == data["target_stream"]:
            of = "" if len(data["streams"]) == 1 else " of each stream"
            say(f"The {stream['reader']} reads, may see{of}, and must predict:")
            table, blocks = predictions(data, width, ascii)
        else:
            say(f"The {stream['reader']} reads:")
            table = reading(stream["positions"], range(len(stream["positions"])), ascii)
        lines += draw(table, width, color)
    lines.append("")
    say(legend(data, blocks, ascii))
    lines.append("")
    for text in means(data):
        say(text)
    if data["triangle"]:
        lines.append("")
        say("One pass over the whole passage, and runs that read a prefix and nothing else:", "1")
        lines += triangle(data, width, ascii, color)
        for text in conclusion(data):
            say(text)
    return "\n".join(lines)


def counted(data: dict) -> str:
    """How many positions are read, and how many targets there are."""
    read = " and ".join(
        f"the {each['reader']} reads {plural(len(each['positions']), 'position')}"
        for each in data["streams"].values()
    )
    several = len(data["heads"]) > 1
    predicted = " and ".join(
        plural(found["count"], "target") + (f" of the head '{head}'" if several else "")
        for head, found in data["heads"].items()
    )
    return f"{read[0].upper()}{read[1:]}; {predicted}."


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --- the tables ------------------------------------------------------------------------------


def reading(read: Sequence[dict], places: Sequence[int], ascii: bool) -> list[Column]:
    """Position, segment where there are any, and token; what comes again stays blank."""
    again = [number > 0 and places[number - 1] == place for number, place in enumerate(places)]

    def column(heading, cell, **options) -> Column:
        cells = [
            "" if repeated else cell(place) for place, repeated in zip(places, again, strict=True)
        ]
        return words(heading, cells, ascii=ascii, **options)

    table = [column("pos", str, most=6, least=6, right=True)]
    if read and "segment" in read[0]:
        table.append(column("seg", lambda place: str(read[place]["segment"]), most=3, least=3))
    token = column("read", lambda place: shown(read[place]["token"], ascii), most=24, least=8)
    return [*table, token]


def predictions(data: dict, width: int, ascii: bool) -> tuple[list[Column], dict[str, int]]:
    """The table of the stream with targets, a row for each position or each of its targets; and how
    many positions of each stream one block of its picture stands for."""
    read = data["streams"][data["target_stream"]]["positions"]
    rows = [row for place in range(len(read)) for row in rows_of(data, place)]
    found = [each for _, _, each in rows]
    full = full_bar(data)

    def bars(size: int) -> list[str]:
        return ["" if each is None else bar(each["loss"], full, size, ascii) for each in found]

    labels = ["" if each is None else label(head, each, ascii) for _, head, each in rows]
    losses = ["" if each is None else number(each["loss"]) for each in found]
    before = reading(read, [place for place, _, _ in rows], ascii)
    after = [
        words("target", labels, most=16, least=13, ascii=ascii, style="33"),
        words("loss", losses, most=10, least=10, ascii=ascii, right=True),
        Column("", bars, wanted=24, least=7, style="36"),
    ]
    # The pictures get what the other columns leave, but no less than PICTURES.
    taken = sum(column.wanted for column in before + after[:-1]) + after[-1].least
    room = max(width - taken - len(before + after) - len(data["streams"]), PICTURES)
    room //= len(data["streams"])
    pictures, blocks = [], {}
    for stream, each in data["streams"].items():
        size = blocks[stream] = max(1, math.ceil(len(each["positions"]) / room))
        cells = [picture(data["visibility"][head][stream][at], size, ascii) for at, head, _ in rows]
        heading = "may see" if len(data["streams"]) == 1 else each["reader"]
        pictures.append(words(heading, cells, most=width, least=width, ascii=ascii))
    return [*before, *pictures, *after], blocks


def rows_of(data: dict, place: int) -> list[tuple[int, str, dict | None]]:
    """(position, head, target) of one position; without a target, the first head's view of it."""
    found = [
        (place, head, each)
        for head, heads in data["heads"].items()
        for each in heads["targets"]
        if each["position"] == place
    ]
    return found or [(place, next(iter(data["heads"])), None)]


def picture(seen: str, size: int, ascii: bool) -> str:
    """A row of visibility, ``size`` positions to a block.

    >>> picture("11100", 1, ascii=False), picture("11100", 2, ascii=False)
    ('███··', '█▒·')
    """
    marks = signs(ascii)
    blocks = ("".join(set(seen[at : at + size])) for at in range(0, len(seen), size))
    return "".join(marks.get(each, marks["mixed"]) for each in blocks)


def signs(ascii: bool) -> dict[str, str]:
    """The sign of a block in which all ("1"), no ("0") or some positions may be seen."""
    return dict(zip(("1", "0", "mixed"), "#.+" if ascii else "█·▒", strict=True))


def legend(data: dict, blocks: dict[str, int], ascii: bool) -> str:
    """What the signs mean, as far as they occur."""
    seen, hidden, mixed = signs(ascii).values()
    rows = [row for sees in data["visibility"].values() for may in sees.values() for row in may]
    parts = [f"{seen} may see" + (f", {hidden} may not" if any("0" in row for row in rows) else "")]
    for stream, size in blocks.items():
        if size > 1:
            reader = data["streams"][stream]["reader"]
            parts.append(f"each stands for {size} positions of the {reader} ({mixed}: for a part)")
    parts.append("' ' a token" if ascii else "␣ a space")
    parts.append(f"loss in nats, a full bar is {number(full_bar(data))}")
    return "; ".join(parts) + "."


def full_bar(data: dict) -> float:
    """The loss of the longest bar: that of a uniform guess, or of the worst target."""
    heads = data["heads"].values()
    losses = [each["loss"] for head in heads for each in head["targets"]]
    return max([head["uniform"] for head in heads] + [each for each in losses if each < math.inf])


def label(head: str, target: dict, ascii: bool) -> str:
    """What is predicted: a token, or a class by its number."""
    if "token" in target:
        return shown(target["token"], ascii)
    return printable(f"{head}: class {target['class']}", ascii)


def shown(token: str, ascii: bool) -> str:
    """A token for a table; in ASCII in quotes, which show its spaces."""
    return f"'{printable(token.replace('␣', ' '), ascii)}'" if ascii else printable(token)


def number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


# --- the mean --------------------------------------------------------------------------------


def means(data: dict) -> list[str]:
    """Sum over count for each head, beside a guess, and what training minimises."""
    lines = []
    for head, found in data["heads"].items():
        name = "Loss" if len(data["heads"]) == 1 else f"Loss of the head '{head}'"
        if not found["count"]:
            lines.append(f"{name}: no position has a target, so there is nothing to predict.")
            continue
        classes, uniform, mean = found["classes"], found["uniform"], found["mean"]
        gain = uniform - mean
        lines.append(
            f"{name}: {number(found['sum'])} nats / {plural(found['count'], 'target')} ="
            f" {number(mean)} nats per target."
            f" A uniform guess among {classes} classes costs ln {classes} ="
            f" {number(uniform)}: this model is {number(abs(gain))} nats"
            f" {'better' if gain > 0 else 'worse'}."
        )
    if len(data["heads"]) > 1:
        each = [found["mean"] for found in data["heads"].values()]
        lines.append(
            f"Training minimises the sum of the means:"
            f" {' + '.join(map(number, each))} = {number(sum(each))}."
        )
    return lines


# --- every prefix alone ----------------------------------------------------------------------


def triangle(data: dict, width: int, ascii: bool, color: bool) -> list[str]:
    """A line for each prefix, as many as fit: the losses of its targets. Then those of the one pass
    and the differences."""
    runs = data["triangle"]
    size = min(len(runs["positions"]), (width - LABEL) // CELL)

    def line(label: str, cells: Sequence[str]) -> str:
        return fit(label, LABEL) + "".join(map(right, cells[:size]))

    def right(cell: str) -> str:
        return " " + fit(" " * (CELL - 1 - columns(cell)) + cell, CELL - 1, ascii)

    head = runs["head"]
    labels = [label(head, each, ascii) for each in data["heads"][head]["targets"]]
    rows = zip(runs["positions"][:size], runs["alone"], strict=False)
    return [
        paint(line("target", labels), "1", color),
        *(line(f"first {place + 1}", list(map(loss, losses))) for place, losses in rows),
        line("one pass", list(map(loss, runs["together"]))),
        line("differ by", list(map(difference, runs["differences"]))),
    ]


def loss(value: float) -> str:
    """A loss in five signs.

    >>> loss(8.31912), loss(12.3456), loss(0.012345), loss(98765.4)
    ('8.319', '12.35', '0.012', '1e+05')
    """
    return min((f"{value:.3f}", f"{value:#.4g}", f"{value:.0e}"), key=len)


def difference(value: float) -> str:
    """
    >>> difference(1.77e-15), difference(0.0)
    ('2e-15', '0')
    """
    return f"{value:.0e}" if value else "0"


def conclusion(data: dict) -> list[str]:
    """Why the numbers agree; or that they do not, where a model sees more than is declared."""
    largest = max(data["triangle"]["differences"])
    runs = plural(len(data["triangle"]["alone"]), "run")
    lines = [f"Largest difference in {runs}: {difference(largest)} nats, computed in float64."]
    if not largest <= data["triangle"]["tolerance"]:  # NaN too
        return [
            *lines,
            "The losses are not the same: at some position this model uses what follows it, which"
            " the objective rules out.",
        ]
    return [
        *lines,
        "They are equal because the mask lets no position see what follows it: what stands later"
        " cannot change an earlier loss, so that the pass over the whole text holds every run.",
        "And one pass is enough because of teacher forcing: each position reads the text itself,"
        " not the model's own predictions, so that all inputs are known beforehand.",
    ]
