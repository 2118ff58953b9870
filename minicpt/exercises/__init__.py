"""Exercises that check themselves: a learner writes one function, minicpt's own proofs judge it.

A new exercise is one new file in this folder, with a class that derives from ``base.Exercise``, or
from ``diagnosis.Diagnosis`` (a broken run is given, and its fault is asked for), and has an
``ORDER``. Nothing else knows the exercises by name. One that teaches a piece which is not there is
left out.

    base, diagnosis    what an exercise is
    child, runner      a learner's code, in a process of its own
    comparing          an answer beside the right one
    judging            whether it is right, and which known mistake it is
    report             the answer, for a terminal or as data
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minicpt.exercises.base import Exercise


def known() -> "dict[str, Exercise]":
    """The exercises by their names, in the order in which they build the whole thing."""
    # Imported here: the process that runs a learner's code needs this package, and none of these.
    from minicpt import data, exercises, objectives, remedies
    from minicpt.common import registry
    from minicpt.exercises.base import Exercise
    from minicpt.proofs import faults

    taught = (objectives, remedies, data, faults)
    kinds = registry.classes(exercises, Exercise, *taught).items()
    made = {name: kind() for name, kind in kinds if hasattr(kind, "ORDER")}
    found = {name: each for name, each in made.items() if each.is_possible()}
    return dict(sorted(found.items(), key=lambda item: item[1].ORDER))
