"""The answer to a learner: for a terminal, and as data for a grader.

The answer begins with the smallest input on which the function fails, and shows beside each other
what is right there and what the function gives. Then it says what differs, which known mistake
gives just that, and what minicpt measures with it.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from minicpt.common.terminal import draw, fit, paint, printable, words, wrap
from minicpt.exercises.base import Exercise, letters
from minicpt.exercises.comparing import as_parts, close, described, value
from minicpt.exercises.judging import Verdict
from minicpt.pictures.text import picture

INDENT = "  "
PRINTED = 5  # lines of what the learner's code has printed
STYLES = {"right": "32", "wrong": "1;31", "failed": "1;31", "empty": "33"}
HEADINGS = {"right": "right", "wrong": "not right yet", "failed": "not right yet",
            "empty": "nothing is written yet"}  # fmt: skip
MOST = 28  # columns of a cell
SMALL = 16  # numbers of a tensor that is shown in a line


def as_text(
    file: str,
    verdict: Verdict,
    width: int,
    *,
    hint: int = 0,
    following: str = "",
    ascii: bool = False,
    color: bool = False,
) -> str:
    """The answer in lines of at most ``width`` columns.

    hint       the number of the hint that is asked for; 0: none is
    following  the name of the next exercise; "": there is none
    """
    exercise, lines = verdict.exercise, []

    def say(text: str, indent: str = INDENT, style: str = "") -> None:
        for line in wrap(text, width - len(indent), ascii):
            lines.append(indent + paint(line, style, color))

    say(f"{printable(file, ascii)}: {HEADINGS[verdict.state]}", "", STYLES[verdict.state])
    if verdict.state == "right":
        tried = f"{verdict.cases} of {verdict.cases} inputs agree with minicpt's own function"
        tried += ", and with yours in its place:" if verdict.proofs else "."
        say(verdict.more or tried)
        for proof in verdict.proofs:
            lines += indented(proof.as_line(width - len(INDENT), color, ascii).split("\n"))
        say(f"Next: minicpt exercise start {following}" if following else "That was the last one.")
    elif verdict.state == "failed":
        if verdict.inputs:
            lines += ["", *indented(given(exercise, verdict.inputs, ascii)), ""]
        say(f"{'Your function' if verdict.cases else 'The file'} {verdict.problem}")
        lines += indented([printable(line, ascii) for line in verdict.lines], 2 * INDENT)
    elif verdict.state == "wrong":
        lines += wrong(verdict, width, ascii, color)
        for text in mistaken(verdict):
            say(text)
        for proof in verdict.failing[:1]:
            lines += indented(proof.as_line(width - len(INDENT), color, ascii).split("\n"))
        first, *drawn = verdict.more.split("\n")
        say(first)
        if drawn:
            lines += ["", *indented([printable(line, ascii) for line in drawn], 2 * INDENT), ""]
    if verdict.printed.strip() and verdict.state != "right":
        say("Your code printed:")
        found = [printable(line, ascii) for line in verdict.printed.strip().split("\n")]
        lines += indented([fit(line, width - 4, ascii) for line in found[:PRINTED]], 2 * INDENT)
        if len(found) > PRINTED:
            say("...", 2 * INDENT)
    if shown := hinted(verdict, hint):
        say(shown, INDENT)
    return "\n".join(line.rstrip() for line in lines)


def indented(lines: Sequence[str], by: str = INDENT) -> list[str]:
    return [by + line for line in lines]


def hinted(verdict: Verdict, hint: int) -> str:
    """The hint that is asked for, or how to get one; an empty file gets the first."""
    hints, state = verdict.exercise.hints, verdict.state
    if state == "right":
        return ""
    number = hint or (1 if state == "empty" else 0)
    if number:
        more = f" (--hint {number + 1} shows the next one)" if number < len(hints) else ""
        return f"Hint {number} of {len(hints)}: {hints[number - 1]}{more}"
    return f"Stuck? Add --hint 1, up to {len(hints)}."


# --- what is wrong -----------------------------------------------------------------------------


def mistaken(verdict: Verdict) -> list[str]:
    """What differs, which mistake it is, and what minicpt measures with it."""
    exercise, name = verdict.exercise, verdict.fault
    lines = [verdict.problem[0].upper() + verdict.problem[1:] + "."]
    number = ""
    if verdict.loss is not None:
        one, other = (f"{each:.3f}" for each in (verdict.loss, verdict.sound))
        if one == other:
            one, other = (f"{each:.6g}" for each in (verdict.loss, verdict.sound))
        number = f"{one} {exercise.measured}"
    if name:
        whose = f"your {number}" if number else "this"
        lines.append(f"{whose[0].upper()}{whose[1:]} is what `{name}` gives: {verdict.why}.")
    elif number:
        lines.append(f"With your function minicpt measures {number}.")
    if number:
        lines[-1] += " The right number is the same." if one == other else f" Right is {other}."
    if not name and verdict.formed and verdict.inputs:
        lines.append("No mistake that minicpt knows gives just this.")
    return lines


def wrong(verdict: Verdict, width: int, ascii: bool, color: bool) -> list[str]:
    """The smallest inputs on which the function fails, what is right there, and what it gives."""
    exercise = verdict.exercise
    if not verdict.inputs:  # a broken run, or what is wrong on minicpt's own text alone
        return []
    several = isinstance(verdict.wanted, tuple)
    one, other = (
        dict(zip(exercise.outputs, as_parts(each) if several else [each], strict=False))
        for each in (verdict.wanted, verdict.got)
    )
    lines = [f"The smallest input on which it fails, {verdict.number} of {verdict.cases}:", ""]
    rows = {
        name: each
        for name, each in zip(exercise.inputs, verdict.inputs, strict=True)
        if isinstance(each, Tensor) and each.dim() == 1
    }
    used: set[str] = set()
    grids: list[list[str]] = []
    for name in exercise.outputs:
        right, own = one[name], other.get(name)
        if isinstance(right, Tensor) and right.dim() == 1:
            beside = {key: row for key, row in rows.items() if len(row) == len(right)}
            beside = {key: row for key, row in beside.items() if key not in used}
            used |= set(beside)
            grids.append(vectors(exercise, name, beside, right, own, width, ascii, color))
        elif isinstance(right, Tensor) and right.dim() == 2:
            grids.append(matrices(exercise, name, right, own, width, ascii, color))
        else:
            grids.append([f"right {shown(exercise, name, right)}",
                          f"yours {shown(exercise, name, own)}"])  # fmt: skip
    left = [key for key in exercise.inputs if key not in used]
    for part in (given(exercise, verdict.inputs, ascii, left), *grids):
        lines += [*part, ""] if part else []
    return indented(lines)


def given(
    exercise: Exercise, inputs: Sequence, ascii: bool, names: Sequence[str] | None = None
) -> list[str]:
    """The inputs of a call, a line each."""
    pairs = zip(exercise.inputs, inputs, strict=True)
    return [
        printable(f"{name} = {shown(exercise, name, each)}", ascii)
        for name, each in pairs
        if names is None or name in names
    ]


def shown(exercise: Exercise, name: str, content: Any) -> str:
    """A value in a line."""
    if isinstance(content, Tensor):
        return shown(exercise, name, content.tolist())
    if isinstance(content, tuple | list):
        return f"[{', '.join(shown(exercise, name, each) for each in content)}]"
    if type(content) is int and name in exercise.tokens:
        return letters(content)
    plain = type(content) in (int, float, bool, str)
    return value(content) if plain else described(content)


def vectors(
    exercise: Exercise,
    name: str,
    beside: dict[str, Tensor],
    right: Tensor,
    own: Any,
    width: int,
    ascii: bool,
    color: bool,
) -> list[str]:
    """An output (T,) as a table: position, what was given there, what is right, what came."""
    came = fits(own, 1)
    count = max(len(right), len(own) if came else 0)

    def cells(key: str, row: Tensor) -> list[str]:
        texts = [printable(shown(exercise, key, each), ascii) for each in row.tolist()]
        return texts + [""] * (count - len(texts))

    table = [words("pos", [*map(str, range(count))], 4, 3, ascii, right=True)]
    for key, row in beside.items():
        table.append(words(key, cells(key, row), MOST, min(len(key), 6), ascii))
    table.append(words(f"{name}: right", cells(name, right), MOST, 9, ascii, style="32"))
    if came:
        marks = ["<" if differ else "" for differ in apart(right, own, count)]
        table.append(words("yours", cells(name, own), MOST, 5, ascii))
        table.append(words("", marks, 1, 1, ascii, style="1;31"))
    return draw(table, width - len(INDENT), color) + ([] if came else yours(exercise, name, own))


def matrices(
    exercise: Exercise, name: str, right: Tensor, own: Any, width: int, ascii: bool, color: bool
) -> list[str]:
    """An output (T, T) of bool as two pictures beside each other."""

    def rows(content: Tensor) -> list[str]:
        texts = ("".join("01"[bool(each)] for each in row) for row in content.tolist())
        return [picture(text, 1, ascii) for text in texts]

    came = fits(own, 2) and len(own) == len(right)
    table = [
        words("row", [*map(str, range(len(right)))], 4, 3, ascii, right=True),
        words(f"{name}: right", rows(right), width, 5, ascii, style="32"),
    ]
    if came:
        marks = ["<" if differ else "" for differ in apart(right, own, len(right))]
        table.append(words("yours", rows(own), width, 5, ascii))
        table.append(words("", marks, 1, 1, ascii, style="1;31"))
    signs = "# may look, . may not" if ascii else "█ may look, · may not"
    below = [] if came else yours(exercise, name, own)
    return [*draw(table, width - len(INDENT), color), signs, *below]


def yours(exercise: Exercise, name: str, own: Any) -> list[str]:
    """What came, in a line, where it is not of the form that is wanted."""
    small = isinstance(own, Tensor) and own.numel() <= SMALL
    return [f"yours: {shown(exercise, name, own) if small else described(own)}"]


def fits(content: Any, dimensions: int) -> bool:
    return isinstance(content, Tensor) and content.dim() == dimensions


def apart(right: Tensor, own: Any, count: int) -> list[bool]:
    """In which rows two tensors differ; where only one of them has a row, it does."""
    if not fits(own, right.dim()) or own.shape[1:] != right.shape[1:]:
        return [False] * count
    both = min(len(right), len(own))
    same = close(right[:both], own[:both]).flatten(1).all(1) if right.dim() > 1 else close(
        right[:both], own[:both]
    )  # fmt: skip
    return [place >= both or not same[place] for place in range(count)]


# --- for a grader ------------------------------------------------------------------------------


def as_data(file: str, verdict: Verdict, hint: int = 0) -> dict:
    """The answer as plain data that JSON can hold."""
    exercise = verdict.exercise
    return {
        "file": file,
        "exercise": exercise.name,
        "right": verdict.state == "right",
        "state": verdict.state,
        "fails_on": verdict.number or None,
        "inputs": dict(zip(exercise.inputs, map(plain, verdict.inputs), strict=False)),
        "expected": plain(verdict.wanted) if exercise.inputs else None,
        "got": plain(verdict.got),
        "problem": verdict.problem,
        "lines": list(verdict.lines),
        "fault": verdict.fault or None,
        "why": verdict.why,
        "measured": plain(verdict.loss),
        "measured_right": plain(verdict.sound),
        "proofs": [proof.as_data() for proof in verdict.proofs],
        "printed": verdict.printed,
        "hint": hinted(verdict, hint) if hint or verdict.state == "empty" else "",
    }


def plain(content: Any) -> Any:
    if isinstance(content, Tensor):
        return plain(content.tolist())
    if isinstance(content, tuple | list):
        return [plain(each) for each in content]
    if isinstance(content, float) and not abs(content) < float("inf"):
        return str(content)
    return content if content is None or type(content) in (bool, int, float, str) else (
        described(content)
    )  # fmt: skip
