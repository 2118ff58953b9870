"""The mistakes that people make, each as a small patch of one piece of a sound subject.

To add one: in a file of this folder write a function from a sound subject to a mistaken one, and
name the mistake and the objective above it.
"""

from dataclasses import replace

from minicpt import models as every_model
from minicpt.common import registry
from minicpt.proofs import faults, rules
from minicpt.proofs.faults.base import Fault
from minicpt.runs.assembly import fitting, trainable


def known() -> dict[str, Fault]:
    """The faults by their names, those of one known mistake together.

    A fault whose objective, subject or model is not there is left out.
    """
    names = set(trainable())
    subjects = names.union(*(getattr(each, "VARIANTS", ()) for each in rules.known().values()))
    for name, kind in trainable().items():
        subjects |= {f"{name} with {model}" for model in fitting(kind)}
    roles = {"", *(kind.ROLE for kind in every_model.known().values())}
    found = [
        each
        for module in registry.modules(faults).values()
        for each in vars(module).values()
        if isinstance(each, Fault)
        and each.objective in names
        and each.subject in subjects
        and each.needs in roles
    ]
    found.sort(key=lambda fault: fault.mistake)
    return {each.name: replace(each, number=place) for place, each in enumerate(found, 1)}
