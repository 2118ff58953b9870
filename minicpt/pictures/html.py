"""The picture of a passage as HTML: real tables, and small drawings of what is seen.

Takes the plain data that ``passage.as_data`` gathers, as ``text`` does for the terminal.
"""

from collections.abc import Collection, Sequence

from minicpt.common.html import Markup, element, paragraphs, table, wide
from minicpt.pictures import beside, triangle
from minicpt.pictures.likeliest import percent
from minicpt.pictures.sentences import blocks, counted, means, number, remarks, runs, which
from minicpt.pictures.text import LEAKS, full_bar, label, rows_of

CELL, MOST = 7, 320  # pixels of a position in a row of visibility, and of the whole row at most
BAR, HIGH = 96, 14  # pixels of the longest bar, and of all bars and rows
LEGEND = (
    "What a target may see: a block is a position that it may use, a thin line one that it may not."
    " ␣ is a space. Losses are in nats."
)


def of_passage(data: dict, notes: Sequence[str] = ()) -> list[Markup]:
    """The picture of a passage; its heading is left to the caller."""
    place = f"{which(data)}: {data['place']}"
    found = [paragraphs([place, counted(data), *map(sentence, notes)]), *streams(data)]
    found.append(paragraphs([LEGEND, *remarks(data)]))
    found.append(element("h2", "The loss"))
    found.append(paragraphs(means(data)))
    if data["triangle"]:
        found += prefixes(data)
    return found


def of_fault(found) -> list[Markup]:
    """A ``broken.Broken``: right, wrong, what differs, and who catches it."""
    parts = [paragraphs([beside.place(found), *map(sentence, found.notes)])]
    parts += [element("h2", beside.RIGHT), *streams(found.right)]
    if found.wrong:
        wrong = beside.marked(found)
        parts += [element("h2", beside.WRONG), *streams(wrong, beside.changed(found))]
        marks = "* marks what is read or predicted otherwise, or sees what it must not."
        leak = " A tall red block is a leak: it is seen, and must not be." if found.leaks else ""
        parts.append(paragraphs([LEGEND, marks + leak]))
    parts += [element("h2", beside.DIFFERENT), paragraphs(beside.differences(found))]
    rows = [[each.proof, element("div", each.message, class_="text")] for each in found.caught]
    caught = table(["proof", "message"], rows, caption=beside.CATCHERS)
    return [*parts, element("h2", beside.CATCHING), wide(caught, beside.CATCHING)]


def sentence(note: str) -> str:
    """A note, as it stands behind "minicpt: ", by itself."""
    return f"{note[0].upper()}{note[1:]}."


def streams(data: dict, marked: Collection[int] | None = None) -> list[Markup]:
    """A table for each stream; see ``text.tables``."""
    found = []
    for name, stream in data["streams"].items():
        if name == data["target_stream"]:
            of = "" if len(data["streams"]) == 1 else " of each stream"
            caption = f"The {stream['reader']} reads, may see{of}, and must predict"
            drawn = predictions(data, caption, marked)
        else:
            caption = f"The {stream['reader']} reads"
            # Along the page: it has no other columns, and would be long.
            rows = [["reads", *(code(each["token"]) for each in stream["positions"])]]
            drawn = table(["position", *range(len(stream["positions"]))], rows, caption=caption)
        found.append(wide(drawn, caption))
    return found


def predictions(data: dict, caption: str, marked: Collection[int] | None) -> Markup:
    """The table of the stream with targets: a row for each position, or each of its targets."""
    read = data["streams"][data["target_stream"]]["positions"]
    rows = [row for place in range(len(read)) for row in rows_of(data, place)]
    every = [each for _, _, each in rows if each]
    has = {key: any(key in each for each in every) for key in ("fate", "weight", "likeliest")}
    full = full_bar(data)
    headings = ["position", *["changed"] * (marked is not None), "reads"]
    headings += ["segment"] * segmented(read) + ["chosen"] * has["fate"]
    alone = len(data["streams"]) == 1
    headings += ["may see" if alone else each["reader"] for each in data["streams"].values()]
    headings += ["target"] + ["weight"] * has["weight"] + ["loss", "in bars"]
    headings += ["probability", "likeliest"] * has["likeliest"]
    body = []
    for place, head, each in rows:
        each, own = each or {}, read[place]
        cells = [place, *["*" if place in (marked or ()) else ""] * (marked is not None)]
        cells += [code(each.get("reads", own["token"])), *segment(own)]
        cells += [each.get("fate", "")] * has["fate"]
        cells += [sees(data["visibility"][head][stream][place]) for stream in data["streams"]]
        cells.append(code(label(head, each, ascii=False)) if each else "")
        cells += [number(each["weight"]) if "weight" in each else ""] * has["weight"]
        cells += [number(each["loss"]), bar(each["loss"], full)] if each else ["", ""]
        if has["likeliest"]:
            cells += chances(each)
        body.append(cells)
    right = {"position", "segment", "weight", "loss", "probability"}
    numbers = [at for at, heading in enumerate(headings) if heading in right]
    return table(headings, body, caption=caption, numbers=numbers)


def segmented(read: Sequence[dict]) -> bool:
    return any("segment" in each for each in read)


def segment(each: dict) -> list:
    return [each["segment"]] if "segment" in each else []


def chances(target: dict) -> list:
    """A target's probability and the likeliest classes; blank where there is no target."""
    if "likeliest" not in target:
        return ["", ""]
    best = [
        element("span", code(each["token"]), f" {percent(each['probability'])}")
        for each in target["likeliest"]
    ]
    return [percent(target["probability"]), Markup(", ".join(best))]


def prefixes(data: dict) -> list[Markup]:
    """The losses of each prefix alone, above those of the one pass."""
    found = data["triangle"]
    targets = data["heads"][found["head"]]["targets"][: len(found["positions"])]
    labels = [code(label(found["head"], each, ascii=False)) for each in targets]
    blank = [""] * len(labels)
    rows = [
        [f"first {place + 1}", *([triangle.loss(each) for each in losses] + blank)[: len(labels)]]
        for place, losses in zip(found["positions"], found["alone"], strict=True)
    ]
    rows.append(["one pass", *map(triangle.loss, found["together"])])
    rows.append(["differ by", *map(triangle.difference, found["differences"])])
    caption = "Losses of runs that read a prefix and nothing else, and of the one pass"
    numbers, together = range(1, len(labels) + 1), len(rows) - 2
    drawn = table(["reads", *labels], rows, caption=caption, numbers=numbers, marked=[together])
    heading = element("h2", "One pass, or many?")
    return [heading, wide(drawn, caption), paragraphs(triangle.conclusion(found))]


# --- drawings --------------------------------------------------------------------------------


def code(token: str) -> Markup:
    return element("code", token)


def sees(row: str) -> Markup:
    """A row of visibility: tall where there is a leak, a block where it may see, else a line."""
    size = len(row)
    shapes = {"0": ("none", 0.4, 0.2), "1": (None, 0.15, 0.7), LEAKS: ("leak", 0, 1)}
    drawn = [
        element("rect", x=start, y=shapes[kind][1], width=stop - start, height=shapes[kind][2],
                class_=shapes[kind][0])
        for kind, start, stop in runs(row)
    ]  # fmt: skip
    return element(
        "svg", *drawn, class_="sees", viewBox=f"0 0 {size} 1", preserveAspectRatio="none",
        width=min(CELL * size, MOST), height=HIGH, role="img", aria_label=seen(row),
    )  # fmt: skip


def seen(row: str) -> str:
    """
    >>> seen("11100"), seen("010"), seen("000"), seen("1120")
    ('0 to 2', '1', 'nothing', '0 to 1; must not, and sees 2')
    """
    leaks = blocks(row, LEAKS)
    return (blocks(row, "1") or "nothing") + (f"; must not, and sees {leaks}" if leaks else "")


def bar(value: float, full: float) -> Markup:
    """A bar of the loss; the number beside it says the same."""
    part = min(max(value / full, 0), 1) if value == value else 0
    block = element("rect", width=f"{BAR * part:.1f}", height=HIGH - 4, y=2)
    return element("svg", block, class_="bar", width=BAR, height=HIGH, aria_hidden="true")
