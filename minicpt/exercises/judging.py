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

from torch import Tensor

from minicpt.exercises.base import Exercise
from minicpt.exercises.comparing import ADDITIONS, as_tensor, compare, equal, is_finite
from minicpt.exercises.runner import Answer, Failed
from minicpt.proofs import faults, suite
from minicpt.proofs.bounds import gap, largest, tolerance
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.subject import Subject
from minicpt.proofs.suite import sound


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
                verdict.state = "empty" if failed.kind == "empty" else "failed"
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


# --- which mistake it is -----------------------------------------------------------------------


def named(exercise: Exercise, calls: list[tuple]) -> tuple[str, str]:
    """The name of the typical mistake that gives just these answers, and what it computes."""
    changes = [answer.changed for *_, answer in calls]
    if any(changes) and all(equal(wanted, answer.value) for _, wanted, answer in calls):
        return "change-in-place", what("change-in-place", "the caller's own tensor is changed")
    # Who makes a mistake and overflows beside it hears of the mistake first.
    for some in (calls, [call for call in calls if is_finite(call[-1].value)]):
        if all(equal(wanted, answer.value) for _, wanted, answer in some):
            continue
        for mistake in exercise.mistakes:
            made = (mistake.make(*copy.deepcopy(inputs)) for inputs, _, _ in some)
            if all(equal(one, answer.value) for one, (*_, answer) in zip(made, some, strict=True)):
                return mistake.name, what(mistake.name, mistake.why)
    return "", ""


def what(name: str, why: str) -> str:
    """What a mistake is, in the words of ``verify --break`` where it is known there too."""
    fault = faults.known().get(name)
    return f"{fault.what} ({why})" if fault and why and fault.what != why else why


def in_the_subject(verdict: Verdict, function: Callable[..., Answer]) -> None:
    """Puts the function into the place of ours: its loss, the fault with the same losses, proofs.

    Where the function fails on the way, or minicpt on what it gives, what was found until then
    stays.
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
    except Exception:  # numbers that no model takes, such as tokens outside its vocabulary
        if verdict.state == "right":
            raise
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
