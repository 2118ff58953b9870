"""A fault beside what is right, for a terminal; and what there is to say of it, in sentences."""

from collections.abc import Sequence

from minicpt.common.terminal import paint, printable, wrap
from minicpt.pictures.sentences import blocks, number, plural
from minicpt.pictures.text import LEAKS, LEAST, legend, tables

SHOWN = 4  # examples that a sentence gives
NOUNS = {"read": "what is read", "target": "the target", "weight": "the weight"}
RIGHT, WRONG = "As it should be", "With the fault"
CATCHERS = "Made in the proofs' own small model and texts, these proofs fail:"
DIFFERENT, CATCHING = "What differs", "Who catches it"


def as_text(found, width: int, ascii: bool = False, color: bool = False) -> str:
    """A ``broken.Broken`` in lines of at most ``width`` columns (60 at the least)."""
    width = max(width, LEAST)
    lines: list[str] = []

    def say(texts: Sequence[str], heading: str = "") -> None:
        if heading:
            bold = wrap(printable(heading, ascii), width, ascii)
            lines.extend(["", *(paint(line, "1", color) for line in bold)])
        for text in texts:
            lines.extend(wrap(printable(text, ascii), width, ascii))

    say([place(found)], title(found))
    say([], RIGHT)
    lines += tables(found.right, width, ascii, color)[0]
    if found.wrong:
        say([], WRONG)
        drawn, sizes = tables(marked(found), width, ascii, color, changed(found))
        lines += drawn
        say(["", legend(marked(found), sizes, ascii)])
    say(differences(found), DIFFERENT)
    say(catchers(found), CATCHING)
    return "\n".join(lines[1:])


def title(found) -> str:
    return f"{found.fault.name}: {found.fault.what}"


def place(found) -> str:
    """Where it is made, and in which passage it is shown."""
    unit, data = found.right["unit"], found.right
    text = f"Made in {found.fault.subject}, shown in {unit} {data['number']} of {data['of']}"
    longer = f", below a longer {unit} of the batch, so that it is padded" if found.padded else ""
    return f"{text}{longer}: {data['place']}."


def marked(found) -> dict:
    """The data of the wrong picture, its leaks marked in the rows of visibility."""
    rows = {
        head: {stream: [list(row) for row in each] for stream, each in streams.items()}
        for head, streams in found.wrong["visibility"].items()
    }
    for leak in found.leaks:
        rows[leak.head][leak.stream][leak.position][leak.seen] = LEAKS
    joined = {
        head: {stream: list(map("".join, each)) for stream, each in streams.items()}
        for head, streams in rows.items()
    }
    return found.wrong | {"visibility": joined}


def changed(found) -> set[int]:
    """The positions of the targets' stream at which what is read, a target or a weight changes, or
    something is seen that must not be. (Losses change at many more.)"""
    own = found.right["target_stream"]
    heads = found.right["heads"].keys() | found.wrong["heads"].keys()
    kinds = {"read": {own}, "target": heads, "weight": heads}
    places = {each.position for each in found.changes if each.where in kinds.get(each.what, ())}
    return places | {leak.position for leak in found.leaks}


def differences(found) -> list[str]:
    """What differs, in sentences; or why nothing does."""
    if not found.wrong:
        return [f"Nothing in this picture: {found.reason}."]
    lines = []
    for what, noun in NOUNS.items():
        each = [change for change in found.changes if change.what == what]
        if each:
            examples = "; ".join(
                f"{change.position}: {value(change.right)} became {value(change.wrong)}"
                for change in each[:SHOWN]
            )
            more = "; …" if len(each) > SHOWN else ""
            lines.append(f"At {plural(len(each), 'position')} {noun} differs ({examples}{more}).")
    lines += pairs(found, found.leaks, "Leak, what must not be seen")
    lines += pairs(found, found.lost, "Lost, what is no longer seen")
    losses = sum(each.what == "loss" for each in found.changes)
    if losses:
        lines.append("One loss differs." if losses == 1 else f"{losses} losses differ.")
    for head in found.right["heads"]:
        right, wrong = found.right["heads"][head], found.wrong["heads"].get(head)
        if wrong and any(each.where == head for each in found.changes):
            of = f" of the head '{head}'" if len(found.right["heads"]) > 1 else ""
            lines.append(f"Loss{of}: {quotient(right)}; with the fault {quotient(wrong)}.")
    return lines


def pairs(found, leaks: Sequence, what: str) -> list[str]:
    """Who sees what, a sentence for each head and stream."""
    lines = []
    for head, stream in dict.fromkeys((leak.head, leak.stream) for leak in leaks):
        each = [leak for leak in leaks if (leak.head, leak.stream) == (head, stream)]
        rows: dict[int, list[int]] = {}
        for leak in each:
            rows.setdefault(leak.position, []).append(leak.seen)
        examples = [f"by position {at}: {spans(seen)}" for at, seen in list(rows.items())[:SHOWN]]
        more = ["…"] * (len(rows) > SHOWN)
        streams, heads = found.wrong["streams"], found.wrong["heads"]
        of = f" of the {streams[stream]['reader']}" if len(streams) > 1 else ""
        of += f", head '{head}'" if len(heads) > 1 else ""
        lines.append(f"{what}{of} ({plural(len(each), 'pair')}): {'; '.join(examples + more)}.")
    return lines


def spans(places: Sequence[int]) -> str:
    """
    >>> spans([1, 2, 3, 7])
    '1 to 3, 7'
    """
    row = ["0"] * (max(places) + 1)
    for place in places:
        row[place] = "1"
    return blocks("".join(row), "1")


def quotient(totals: dict) -> str:
    """Sum, divisor and mean of a head."""
    mean = f" = {number(totals['mean'])}" if totals["count"] else ""
    return f"{number(totals['sum'])} nats / {plural(totals['count'], 'target')}{mean}"


def value(each) -> str:
    if each is None:
        return "nothing"
    return number(each) if isinstance(each, float) else f"'{each}'"


def catchers(found) -> list[str]:
    """The proofs that fail, each with its message."""
    if not found.caught:
        return ["No proof catches it."]
    return [CATCHERS, *(f"- {each.proof}: {each.message}" for each in found.caught)]
