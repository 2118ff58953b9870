"""Where two pictures of a passage differ: what is read, the targets, their numbers, what is seen.

Takes the plain data that ``passage.as_data`` gathers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

CLOSE = 1e-6  # relative: losses that differ by less are the same


@dataclass(frozen=True)
class Change:
    """A number or a token that the fault changes.

    what      "read", "target", "weight" or "loss", at a position; "sum" or "divisor" of a head
    where     the stream that is read, or the head
    position  None for sum and divisor
    right, wrong  None where there is none: no such position, no target
    """

    what: str
    where: str
    position: int | None
    right: str | float | None
    wrong: str | float | None


@dataclass(frozen=True)
class Leak:
    """The target of a head at ``position`` depends on position ``seen`` of a stream, and must not.
    """

    head: str
    stream: str
    position: int
    seen: int


def changes(right: dict, wrong: dict) -> Iterator[Change]:
    """All tokens and numbers of two pictures that differ."""
    for stream in {**right["streams"], **wrong["streams"]}:
        for at, one, other in beside(*(read(data, stream) for data in (right, wrong))):
            if one != other:
                yield Change("read", stream, at, one and one[1], other and other[1])
    for head in {**right["heads"], **wrong["heads"]}:
        for what in ("target", "weight", "loss"):
            for at, one, other in beside(*(values(data, head, what) for data in (right, wrong))):
                if not same(one, other):
                    yield Change(what, head, at, one, other)
        for what, key in (("sum", "sum"), ("divisor", "count")):
            one, other = (data["heads"].get(head, {}).get(key) for data in (right, wrong))
            if not same(one, other):
                yield Change(what, head, None, one, other)


def beside(one: dict, other: dict) -> Iterator[tuple]:
    """(key, value, other value), None where a side has none."""
    for key in sorted({**one, **other}):
        yield key, one.get(key), other.get(key)


def read(data: dict, stream: str) -> dict[int, tuple[int, str]]:
    """The tokens that are read, by position, padding apart."""
    found = data["streams"].get(stream, {"positions": []})["positions"]
    return {
        at: (each["id"], each["token"]) for at, each in enumerate(found) if "padding" not in each
    }


def values(data: dict, head: str, what: str) -> dict[int, str | float | None]:
    """The targets of a head, or their weights or losses, by position."""
    found = data["heads"].get(head, {"targets": []})["targets"]
    if what == "target":
        return {each["position"]: named(each) for each in found}
    return {each["position"]: each.get(what) for each in found}


def named(target: dict) -> str:
    """How a target is called: its token, or its class."""
    return target.get("token", target.get("name", f"class {target['class']}"))


def same(one, other) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=CLOSE) or math.isnan(one) and math.isnan(other)
    return one == other


def beyond(more: dict, less: dict, data: dict, other: dict) -> Iterator[Leak]:
    """What the targets that both pictures have see in ``more``, and not in ``less``.

    Nothing where they do not read the same: then positions do not compare.
    """
    if any(read(data, stream) != read(other, stream) for stream in data["streams"]):
        return
    for head, streams in more.items():
        both = values(data, head, "target").keys() & values(other, head, "target").keys()
        for stream, rows in streams.items():
            for position in sorted(both):
                row, fewer = rows[position], less[head].get(stream, [""] * len(rows))[position]
                for at, (one, two) in enumerate(zip(row, fewer, strict=False)):
                    if one > two:
                        yield Leak(head, stream, position, at)
