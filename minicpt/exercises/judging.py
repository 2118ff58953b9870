"""Whether a learner's function is right; and if not, where it fails first, and which mistake it is.

1. The function is called on the exercise's inputs, from the smallest to the largest, and compared
   with minicpt's own. The first that differs is the smallest on which it fails.
2. Every typical mistake is computed on the same inputs. One that gives what the learner's function
   gives, on all of them, is named.
3. The function is put into the place of ours in a subject of the proofs. Every fault that
   ``verify --break`` knows of that subject is made too: one with the same losses is named. And the
   proofs run.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minicpt.batch import IGNORE
from minicpt.exercises.base import Exercise
from minicpt.exercises.child import Strange
from minicpt.exercises.runner import Answer, Failed
from minicpt.proofs import faults, suite
from minicpt.proofs.bounds import gap, largest, tolerance
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.subject import Subject
from minicpt.proofs.suite import sound

ADDITIONS = 1000  # more than any of the sums that are compared has


@dataclass
class Verdict:
    """What there is to say of a learner's function.

    state    "right", "wrong", "empty" (nothing written yet) or "failed" (it gave no answer)
    number   of the first inputs on which it fails, from 1, of ``cases``
    inputs, wanted, got   of that call
    problem  what differs, or what went wrong, in a sentence; ``lines`` of the learner's file
    fault    the name of the known mistake, and ``why``, what is computed instead; "": none gives it
    loss     what the subject gives with the learner's function, and ``sound`` with ours
    formed   whether type and shape of what it gives are right
    proofs   those that ran with the learner's function in the place of ours
    more     what the exercise has to say of it; ``printed`` is what the learner's code has printed
    """

    exercise: Exercise
    state: str = "right"
    number: int = 0
    cases: int = 0
    inputs: tuple = ()
    wanted: Any = None
    got: Any = None
    problem: str = ""
    lines: tuple[str, ...] = ()
    fault: str = ""
    why: str = ""
    loss: float | None = None
    sound: float | None = None
    formed: bool = True
    proofs: list[Proof] = field(default_factory=list)
    more: str = ""
    printed: str = ""

    @property
    def failing(self) -> list[Proof]:
        return [proof for proof in self.proofs if proof.passed is False]


def judge(exercise: Exercise, function: Callable[..., Answer]) -> Verdict:
    """Judges a learner's function, which gives an ``Answer`` or raises Failed."""
    cases = list(exercise.cases())
    verdict = Verdict(exercise, cases=len(cases))
    calls = []  # (inputs, wanted, got)
    fits = True
    for number, inputs in enumerate(cases, 1):
        wanted = exercise.reference(*copy.deepcopy(inputs))
        try:
            answer = function(*inputs)
        except Failed as failed:
            fits = False
            if verdict.state == "right":
                verdict.state = "empty" if failed.kind in ("empty", "missing") else "failed"
                verdict.number, verdict.inputs, verdict.wanted = number, inputs, wanted
                verdict.problem, verdict.lines = failed.text, failed.lines
            if failed.kind != "raised":
                break
            continue
        calls.append((inputs, wanted, answer))
        problem, formed = compare(exercise, inputs, wanted, answer)
        fits = fits and formed
        if problem and verdict.state == "right":
            verdict.state, verdict.problem, verdict.number = "wrong", problem, number
            verdict.inputs, verdict.wanted, verdict.got = inputs, wanted, answer.value
            verdict.formed = formed
    if verdict.state == "wrong":
        verdict.fault, verdict.why = named(exercise, calls)
    if calls and verdict.state in ("right", "wrong"):
        verdict.more = exercise.remark(calls[-1][-1].value)
    if fits and exercise.subject:
        in_the_subject(verdict, function)
    return verdict


# --- one call ----------------------------------------------------------------------------------


def compare(
    exercise: Exercise, inputs: tuple, wanted: Any, answer: Answer
) -> tuple[str, bool]:
    """What is wrong with an answer, "" where nothing; and whether types and shapes are right."""
    parts = [("it", wanted, answer.value)]
    if isinstance(wanted, tuple):
        if len(as_parts(answer.value)) != len(wanted):
            names = ", ".join(exercise.outputs)
            return f"it gives {described(answer.value)}; wanted is a tuple ({names})", False
        names = (f"`{name}`" for name in exercise.outputs)
        parts = list(zip(names, wanted, answer.value, strict=True))
    for part in parts:
        problem, formed = difference(*part)
        if problem:
            return problem, formed
    if answer.changed:
        names = " and ".join(f"`{exercise.inputs[place]}`" for place in answer.changed)
        return f"it changes {names}, which belongs to the caller; change a .clone()", True
    return "", True


def as_parts(value: Any) -> list:
    return list(value) if isinstance(value, tuple | list) else [value]


def difference(name: str, wanted: Any, got: Any) -> tuple[str, bool]:
    """In words, how one output differs; and whether its type and shape are right."""
    if not isinstance(wanted, Tensor):
        own = got if isinstance(got, str) else described(got)
        return ("" if wanted == got else f"your answer is `{own}`"), type(wanted) is type(got)
    got = as_tensor(wanted, got)
    if not isinstance(got, Tensor):
        return f"{name} is {described(got)}; wanted is {described(wanted)}", False
    if got.shape != wanted.shape:
        shapes = tuple(got.shape), tuple(wanted.shape)
        return f"{name} has the shape {shapes[0]}; wanted is {shapes[1]}", False
    both = got.dtype.is_floating_point and wanted.dtype.is_floating_point
    wide = both and got.dtype.itemsize >= wanted.dtype.itemsize
    if got.dtype != wanted.dtype and not wide:
        alike = "the values are right, but " if equal(wanted, got) else ""
        return f"{alike}{name} is of {got.dtype}; wanted is {wanted.dtype}", False
    if equal(wanted, got):
        return "", True
    places = [tuple(place) for place in (~close(wanted, got)).nonzero().tolist()]
    if wanted.dim() == 0:
        return f"{name} is {value(got.item())}; right is {value(wanted.item())}", True
    place = places[0] if len(places[0]) > 1 else places[0][0]
    more = f" (and at {len(places) - 1} more)" if len(places) > 1 else ""
    one, other = (value(each[places[0]].item()) for each in (got, wanted))
    return f"{name} is {one} at {place}, where {other} is right{more}", True


def as_tensor(wanted: Tensor, got: Any) -> Any:
    """A number of Python's as a tensor, where a single number is wanted."""
    if wanted.dim() == 0 and type(got) in (int, float):
        return torch.tensor(got, dtype=wanted.dtype)
    return got


def close(wanted: Tensor, got: Tensor) -> Tensor:
    """Where two tensors of one shape agree, as far as rounding goes."""
    one, other = wanted.double(), got.double()
    if not (wanted.dtype.is_floating_point and got.dtype.is_floating_point):
        return one == other
    finite = wanted[wanted.isfinite()]
    coarse = min(wanted.dtype, got.dtype, key=lambda each: each.itemsize)
    allowed = tolerance(ADDITIONS, coarse if coarse.itemsize > 2 else torch.float32)
    near = (one - other).abs() <= allowed * max(1.0, largest(finite))
    return near | (one == other) | (one.isnan() & other.isnan())


def equal(wanted: Any, got: Any) -> bool:
    """Whether two values are the same, whatever their types, as far as rounding goes."""
    if isinstance(wanted, tuple | list):
        pairs = zip(wanted, as_parts(got), strict=False)
        return len(wanted) == len(as_parts(got)) and all(equal(*pair) for pair in pairs)
    if not isinstance(wanted, Tensor):
        return type(wanted) is type(got) and wanted == got
    got = as_tensor(wanted, got)
    return isinstance(got, Tensor) and got.shape == wanted.shape and bool(close(wanted, got).all())


def described(value: Any) -> str:
    """What kind of value it is, in words."""
    if isinstance(value, Strange):
        return value.what
    if value is None:
        return "None, as without a return"
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r}, of the type {type(value).__name__}"


def value(number: Any) -> str:
    """A number as the answers show it.

    >>> value(0.125), value(IGNORE), value(True)
    ('0.125', 'IGNORE', 'True')
    """
    if isinstance(number, float):
        return f"{number:.6g}"
    return "IGNORE" if number is not True and number == IGNORE else str(number)


# --- which mistake it is -----------------------------------------------------------------------


def named(exercise: Exercise, calls: list[tuple]) -> tuple[str, str]:
    """The name of the typical mistake that gives just these answers, and what it computes."""
    changes = [answer.changed for *_, answer in calls]
    if any(changes) and all(equal(wanted, answer.value) for _, wanted, answer in calls):
        return "change-in-place", what("change-in-place", "the caller's own tensor is changed")
    for mistake in exercise.mistakes:
        made = (mistake.make(*copy.deepcopy(inputs)) for inputs, _, _ in calls)
        if all(equal(one, answer.value) for one, (*_, answer) in zip(made, calls, strict=True)):
            return mistake.name, what(mistake.name, mistake.why)
    return "", ""


def what(name: str, why: str) -> str:
    """What a mistake is, in the words of ``verify --break`` where it is known there too."""
    fault = faults.known().get(name)
    return f"{fault.what} ({why})" if fault and why and fault.what != why else why


def in_the_subject(verdict: Verdict, function: Callable[..., Answer]) -> None:
    """Puts the function into the place of ours: its loss, the fault with the same losses, proofs.

    Where the function fails on the way, what was found until then stays.
    """
    exercise, subject = verdict.exercise, copy.deepcopy(sound(verdict.exercise.subject))
    patched = exercise.patched(subject, lambda *inputs: well_formed(exercise, function, inputs))
    try:
        found = exercise.measure(patched)
        verdict.loss = float(found[0])
        verdict.sound = float(exercise.measure(copy.deepcopy(subject))[0])
        if verdict.state == "wrong" and not verdict.fault:
            verdict.fault, verdict.why = same_fault(exercise, found)
        for name in exercise.proofs:
            verdict.proofs += proved(name, patched)
    except Failed as failed:
        if verdict.state == "right":
            verdict.state, verdict.lines = "failed", failed.lines
            verdict.problem = f"is right on small inputs, but on minicpt's own text {failed.text}"
        return
    if verdict.state == "right" and verdict.failing:
        verdict.state = "wrong"
        verdict.problem = "the small inputs are right, but on minicpt's own text a proof fails"


def well_formed(exercise: Exercise, function: Callable[..., Answer], inputs: tuple) -> Any:
    """The function's answer; Failed where a type or a shape is not that of the right one."""
    wanted = exercise.reference(*copy.deepcopy(inputs))
    answer = function(*inputs)
    problem, formed = compare(exercise, inputs, wanted, answer)
    if not formed:
        raise Failed("raised", f"it is not: {problem}")
    if not isinstance(wanted, tuple):
        return as_tensor(wanted, answer.value)
    return tuple(map(as_tensor, wanted, answer.value))


def same_fault(exercise: Exercise, found: list[Tensor]) -> tuple[str, str]:
    """The fault of ``verify --break`` that makes the same of the subject, and what it is."""
    for fault in faults.known().values():
        if fault.subject == exercise.subject:
            made = exercise.measure(fault.make(copy.deepcopy(sound(fault.subject))))
            if alike(made, found):
                return fault.name, fault.what
    return "", ""


def alike(some: list[Tensor], others: list[Tensor]) -> bool:
    """Whether two measurements agree, as far as rounding goes."""
    return len(some) == len(others) and all(
        one.shape == other.shape
        and gap(one, other, max(1.0, largest(one))) <= tolerance(ADDITIONS)
        for one, other in zip(some, others, strict=True)
    )


def proved(name: str, subject: Subject) -> Iterator[Proof]:
    """The proofs of one name; those that were not checked are left out."""
    try:
        found = suite.known()[name](subject)
    except (NotChecked, KeyError):
        return
    for proof in found if isinstance(found, list) else [found]:
        if proof.passed is not None:
            yield proof
