"""The picture of a passage as text for a terminal: tables of what is read, seen and predicted.

Takes the plain data that ``passage.as_data`` gathers, and knows neither models nor objectives.
"""

import math
from collections.abc import Collection, Iterator, Sequence

from minicpt.common.terminal import Column, bar, columns, draw, fit, paint, printable, words, wrap
from minicpt.pictures import triangle
from minicpt.pictures.characters import PART
from minicpt.pictures.likeliest import percent
from minicpt.pictures.sentences import counted, means, number, remarks, which

LEAST = 60  # columns; a narrower terminal gets lines of this many
BAR = 7  # columns of the bars of losses, where there is room
PICTURES = 14  # columns that the pictures of visibility get at the least
LEAKS, LEAK = "2", "!"  # what is seen and must not be: in a row of visibility, and drawn


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
    drawn, blocks = tables(data, width, ascii, color)
    lines += drawn
    lines.append("")
    say(legend(data, blocks, ascii))
    for text in remarks(data):
        say(text)
    if table := likely(data, ascii):
        lines.append("")
        say("How likely the model holds each target, and what it holds likeliest:")
        lines += draw(table, width, color)
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


def tables(
    data: dict, width: int, ascii: bool, color: bool, marked: Collection[int] | None = None
) -> tuple[list[str], dict[str, int]]:
    """The tables of the streams, an empty line before each; and the ``blocks`` of ``predictions``.

    marked  the positions of the targets' stream that get a mark; None: there is no such column
    """
    lines: list[str] = []
    blocks: dict[str, int] = {}
    for name, stream in data["streams"].items():
        if name == data["target_stream"]:
            of = "" if len(data["streams"]) == 1 else " of each stream"
            text = f"The {stream['reader']} reads, may see{of}, and must predict:"
            table, blocks = predictions(data, width, ascii, marked)
        else:
            text = f"The {stream['reader']} reads:"
            table = reading(stream["positions"], range(len(stream["positions"])), ascii)
        lines += ["", *wrap(text, width, ascii), *draw(table, width, color)]
    return lines, blocks





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


def predictions(
    data: dict, width: int, ascii: bool, marked: Collection[int] | None = None
) -> tuple[list[Column], dict[str, int]]:
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
    if marked is not None:
        marks = ["*" if place in marked else "" for place, _, _ in rows]
        before.insert(0, words("", marks, most=1, least=1, ascii=ascii, style="1;31"))
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


def likely(data: dict, ascii: bool) -> list[Column]:
    """The table of each target's probability and the likeliest classes; empty without them."""
    rows = [
        (place, head, each)
        for head, found in data["heads"].items()
        for place, each in ((each["position"], each) for each in found["targets"])
        if "likeliest" in each
    ]
    if not rows:
        return []
    targets = [each for _, _, each in rows]
    most = max(len(each["likeliest"]) for each in targets)
    columns = [
        words("pos", [str(place) for place, _, _ in rows], 6, 3, ascii, right=True),
        words("target", [label(head, each, ascii) for _, head, each in rows], 16, 8, ascii),
        words("p", [percent(each["probability"]) for each in targets], 7, 7, ascii, right=True),
    ]
    for rank in range(most):
        cells = [
            f"{shown(best['token'], ascii)} {percent(best['probability'])}"
            for best in (each["likeliest"][rank] for each in targets)
        ]
        columns.append(words("likeliest" if not rank else "", cells, 24, 12, ascii))
    return columns



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
    >>> picture("11120", 1, ascii=False), picture("11120", 2, ascii=False)
    ('███!·', '█!·')
    """
    marks = signs(ascii)
    blocks = ("".join(set(seen[at : at + size])) for at in range(0, len(seen), size))
    return "".join(LEAK if LEAKS in each else marks.get(each, marks["mixed"]) for each in blocks)


def signs(ascii: bool) -> dict[str, str]:
    """The sign of a block in which all ("1"), no ("0") or some positions may be seen."""
    return dict(zip(("1", "0", "mixed"), "#.+" if ascii else "█·▒", strict=True))


def legend(data: dict, blocks: dict[str, int], ascii: bool) -> str:
    """What the signs mean, as far as they occur."""
    seen, hidden, mixed = signs(ascii).values()
    rows = [row for sees in data["visibility"].values() for may in sees.values() for row in may]
    parts = [f"{seen} may see" + (f", {hidden} may not" if any("0" in row for row in rows) else "")]
    if any(LEAKS in row for row in rows):
        parts.append(f"{LEAK} sees, and must not")
    for stream, size in blocks.items():
        if size > 1:
            reader = data["streams"][stream]["reader"]
            parts.append(f"each stands for {size} positions of the {reader} ({mixed}: for a part)")
    parts.append("' ' a token" if ascii else "␣ a space")
    if any(PART.search(token) for token in tokens(data)):
        parts.append("x 1/3 the first of the three bytes of a character")
    parts.append(f"loss in nats, a full bar is {number(full_bar(data))}")
    return "; ".join(parts) + "."



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
