"""The picture of a passage as text for a terminal: tables of what is read, seen and predicted.

Takes the plain data that ``passage.as_data`` gathers, and knows neither models nor objectives.
"""

import math
from collections.abc import Iterator, Sequence

from minicpt.common.terminal import Column, bar, columns, draw, fit, paint, printable, words, wrap
from minicpt.pictures import triangle
from minicpt.pictures.characters import PART

LEAST = 60  # columns; a narrower terminal gets lines of this many
BAR = 7  # columns of the bars of losses, where there is room
PICTURES = 14  # columns that the pictures of visibility get at the least
FATES = {  # of a token that is predicted where it stands
    "hidden": "hidden behind the mask token",
    "replaced": "replaced by the token that is read there",
    "kept": "kept as it is",
}


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
    say(f"{which(data)}: {printable(data['place'], ascii)}")
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
    for text in remarks(data):
        say(text)
    lines.append("")
    for text in means(data):
        say(text)
    if data["triangle"]:
        lines.append("")
        say("One pass over the whole passage, and runs that read a prefix and nothing else:", "1")
        head = data["triangle"]["head"]
        labels = [label(head, narrow(each), ascii) for each in data["heads"][head]["targets"]]
        lines += triangle.lines(data["triangle"], labels, width, ascii, color)
        for text in triangle.conclusion(data["triangle"]):
            say(text)
    return "\n".join(lines)


def which(data: dict) -> str:
    """Which passage it is: "Window 2 of 5"."""
    unit = data["unit"][0].upper() + data["unit"][1:]
    return f"{unit} {data['number']} of {data['of']}" if data["of"] else unit


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


def reading(
    read: Sequence[dict],
    places: Sequence[int],
    ascii: bool,
    instead: Sequence[str | None] | None = None,
) -> list[Column]:
    """Position, segment where there are any, and token; what comes again stays blank.

    instead  for each place the token that is read there in a second pass; None: the same
    """
    again = [number > 0 and places[number - 1] == place for number, place in enumerate(places)]

    def column(heading, cell, **options) -> Column:
        cells = [
            "" if repeated else cell(place) for place, repeated in zip(places, again, strict=True)
        ]
        return words(heading, cells, ascii=ascii, **options)

    table = [column("pos", str, most=6, least=6, right=True)]
    if read and "segment" in read[0]:
        table.append(column("seg", lambda place: str(read[place]["segment"]), most=3, least=3))
    other = instead or [None] * len(places)
    cells = [
        shown(second or read[place]["token"], ascii) if second or not repeated else ""
        for place, repeated, second in zip(places, again, other, strict=True)
    ]
    return [*table, words("read", cells, ascii=ascii, most=24, least=8)]


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
    instead = [each and each.get("reads") for each in found]
    before = reading(read, [place for place, _, _ in rows], ascii, instead)
    changed = any(each and "fate" in each for each in found)
    if changed:
        before.append(chosen(rows, read, data["ahead"], ascii))
    named = any(each and "name" in each for each in found)
    after = [
        words("target", labels, most=16, least=16 if named else 13, ascii=ascii, style="33"),
        words("loss", losses, most=10, least=10, ascii=ascii, right=True),
        Column("", bars, wanted=24, least=2 if changed else BAR, style="36"),
    ]
    # The pictures get what the other columns leave, but no less than PICTURES (some less beside
    # what became of the tokens).
    taken = sum(column.wanted for column in before + after[:-1]) + BAR
    least = PICTURES - 5 if changed else PICTURES
    room = max(width - taken - len(before + after) - len(data["streams"]), least)
    room //= len(data["streams"])
    pictures, blocks = [], {}
    for stream, each in data["streams"].items():
        size = blocks[stream] = max(1, math.ceil(len(each["positions"]) / room))
        cells = [picture(data["visibility"][head][stream][at], size, ascii) for at, head, _ in rows]
        heading = "may see" if len(data["streams"]) == 1 else each["reader"]
        pictures.append(words(heading, cells, most=width, least=width, ascii=ascii))
    return [*before, *pictures, *after], blocks


def chosen(rows: Sequence[tuple], read: Sequence[dict], ahead: int, ascii: bool) -> Column:
    """What became of each chosen token; where there is room, by which other one it was replaced.

    ahead  the positions between the one that predicts a token and its own
    """
    fates = ["" if each is None else each.get("fate", "") for _, _, each in rows]
    whole = [
        f"{fate} by {shown(read[place + ahead]['token'], ascii)}" if fate == "replaced" else fate
        for fate, (place, _, _) in zip(fates, rows, strict=True)
    ]
    wanted = max(map(columns, ["chosen", *whole]))
    return Column(
        "chosen",
        lambda width: [fit(cell, width, ascii) for cell in (whole if width >= wanted else fates)],
        wanted,
        max(map(columns, ["chosen", *fates])),
        "35",
    )


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
    if any(PART.search(token) for token in tokens(data)):
        parts.append("x 1/3 the first of the three bytes of a character")
    parts.append(f"loss in nats, a full bar is {number(full_bar(data))}")
    return "; ".join(parts) + "."


def remarks(data: dict) -> list[str]:
    """What became of the chosen tokens, and what a position without a target means."""
    lines = []
    for found in data["heads"].values():
        fates = [each["fate"] for each in found["targets"] if "fate" in each]
        if fates:
            counts = ", ".join(f"{fates.count(fate)} {what}" for fate, what in FATES.items())
            early = ", each one position before its own" if data["ahead"] else ""
            whole = plural(len(fates), "token")
            lines.append(f"Chosen to be predicted{early}: {whole}, {counts}.")
    for head, found in data["heads"].items():
        if any("reads" in each for each in found["targets"]):
            lines.append(
                f"For the head '{head}' the model reads again what came of a first pass: where that"
                " is another token, it stands below the first one."
            )
    size = len(data["streams"][data["target_stream"]]["positions"])
    predicted = {each["position"] for head in data["heads"].values() for each in head["targets"]}
    if any("weight" in each for head in data["heads"].values() for each in head["targets"]):
        weights = {
            each["weight"] for head in data["heads"].values() for each in head["targets"]
        }
        its = f"its weight, {number(weights.pop())}" if len(weights) == 1 else "its weight"
        lines.append(
            f"Each loss is shown without {its}; in the sum it is multiplied by it. A target of"
            " weight 0 is not shown; it counts in what the sum is divided by."
        )
    elif len(predicted) < size:
        lines.append("Where the target is blank, nothing is predicted and nothing counts.")
    return lines


def tokens(data: dict) -> Iterator[str]:
    """All that are shown."""
    for stream in data["streams"].values():
        yield from (each["token"] for each in stream["positions"])
    for head in data["heads"].values():
        yield from (each["token"] for each in head["targets"] if "token" in each)


def full_bar(data: dict) -> float:
    """The loss of the longest bar: that of a uniform guess, or of the worst target."""
    heads = data["heads"].values()
    losses = [each["loss"] for head in heads for each in head["targets"]]
    return max([head["uniform"] for head in heads] + [each for each in losses if each < math.inf])


def label(head: str, target: dict, ascii: bool) -> str:
    """What is predicted: a token, or a class by its name or its number."""
    if "token" in target:
        return shown(target["token"], ascii)
    if "name" in target:
        return printable(target["name"], ascii)
    return printable(f"{head}: class {target['class']}", ascii)


def narrow(target: dict) -> dict:
    """The same target, its token as short as can be: "é1/2"."""
    return target | {"token": PART.sub("", target["token"])} if "token" in target else target


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
        verdict = f"this model is {number(abs(gain))} nats {'better' if gain > 0 else 'worse'}"
        if any("weight" in each for each in found["targets"]):
            verdict = "with weights that is the mean over many draws, and a single draw varies"
        lines.append(
            f"{name}: {number(found['sum'])} nats / {plural(found['count'], 'target')} ="
            f" {number(mean)} nats per target."
            f" A uniform guess among {classes} classes costs ln {classes} ="
            f" {number(uniform)}: {verdict}."
        )
    if len(data["heads"]) > 1:
        pairs = [(each["head_weight"], each["mean"]) for each in data["heads"].values()]
        plain = all(weight == 1 for weight, _ in pairs)
        factors = ["" if plain else f"{weight:.4g} * " for weight, _ in pairs]
        terms = [factor + number(mean) for factor, (_, mean) in zip(factors, pairs, strict=True)]
        total = number(sum(weight * mean for weight, mean in pairs))
        lines.append(
            f"Training minimises the sum of the {'' if plain else 'weighted '}means:"
            f" {' + '.join(terms)} = {total}."
        )
    return lines
