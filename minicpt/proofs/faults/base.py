"""A fault: a mistake that people make, as a small patch of one piece of a sound subject.

Each has the number of the known mistake that it is an example of; several faults can be examples of
one.
"""

import copy
import dataclasses
from collections.abc import Callable

import torch

from minicpt.batch import Batch
from minicpt.data.order import Plan
from minicpt.proofs.subject import Subject


@dataclasses.dataclass(frozen=True)
class Fault:
    """A mistake, and the subject on which it is made.

    mistake    the number of the known mistake that it is an example of
    objective  the name of the objective that it belongs to
    subject    the name of the subject that it is made on
    what       the mistake, in words
    make       from the sound subject to the mistaken one
    needs      the role of a model that must be there beside the subject's own; "": none
    processes  whether it is a mistake that several processes make together
    name, number  its own, the number counted from 1
    """

    mistake: int
    objective: str
    subject: str
    what: str
    make: Callable[[Subject], Subject]
    needs: str = ""
    processes: bool = False
    name: str = ""
    number: int = 0


def fault(
    mistake: int,
    objective: str,
    what: str,
    subject: str = "",
    needs: str = "",
    processes: bool = False,
):
    """Makes a fault of a function from a sound subject to a mistaken one."""

    def register(make: Callable[[Subject], Subject]) -> Fault:
        name = make.__name__.replace("_", "-")
        of = mistake, objective, subject or objective
        return Fault(*of, what, make, needs, processes, name)

    return register


# --- the places where a patch goes


def objective(subject: Subject, batch: Callable = None, plan: Callable = None) -> Subject:
    """The same objective with another ``batch`` or ``plan``.

    batch  called with the real objective, the passages and their draws
    plan   called with the real plan
    """
    real, mistaken = subject.objective, copy.copy(subject.objective)
    if batch:
        mistaken.batch = lambda passages, draws: batch(real, passages, draws)
    if plan:
        mistaken.plan = lambda *key: as_plan(plan(real.plan(*key)))
    return dataclasses.replace(subject, objective=mistaken)


def as_plan(passages: list) -> Plan:
    rows = torch.arange(len(passages))[:, None]
    return Plan(rows, passages.__getitem__, lengths=torch.zeros(len(passages)))


def targets(subject: Subject, change: Callable[[Batch], Batch]) -> Subject:
    """The same objective, its batches changed afterwards."""
    return objective(subject, lambda real, passages, draws: change(real.batch(passages, draws)))


def model(subject: Subject, forward: Callable) -> Subject:
    """The same model with another forward: ``forward(real forward, inputs) -> hidden``."""

    def patched(self, **inputs):
        real = super(type(self), self).forward
        return forward(real, inputs)

    return other_class(subject, forward=patched)


def other_class(subject: Subject, **methods: Callable) -> Subject:
    """The same model with some methods replaced."""
    mistaken = copy.deepcopy(subject.model)
    real = type(mistaken)
    methods["__module__"] = real.__module__
    mistaken.__class__ = type("Mistaken", (real,), methods)
    return dataclasses.replace(subject, model=mistaken)


def ones(length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool)
