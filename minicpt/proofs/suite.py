"""All proofs on all subjects, and all faults against all proofs."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from minicpt import proofs
from minicpt.common import registry
from minicpt.common.errors import InputError
from minicpt.proofs import rules
from minicpt.proofs.black_box.verdict import verify_model
from minicpt.proofs.faults.base import Fault
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.subject import Subject, Variant, subject
from minicpt.runs import assembly
from minicpt.runs.assembly import fitting, model_kind, objective_kind


def verify(objective: str = "", model: Callable | None = None, **given) -> list[Proof]:
    """Every proof of an objective, of all objectives, or of a causal model that is not ours.

        verify("causal-lm")
        verify(model=my_model)  # from token ids (B, T) to logits (B, T, V)

    ``given`` goes to ``black_box.verdict.verify_model``: lengths, rows, seed, seconds. Raises
    InputError where no objective has that name, or the model cannot be called.
    """
    if model is not None:
        return verify_model(model, **given)
    every = subjects([objective] if objective else ())
    return [
        replace(proof, name=f"{each.name}: {proof.name}") if len(every) > 1 else proof
        for each in every
        for proof in prove(each)
    ]


def known(trains: bool | None = None) -> dict[str, Callable]:
    """The proofs by their names, in their order.

    trains  False: those that are quick; True: those that train a model; None: all
    """
    found = [item for item in registry.modules(proofs).items() if hasattr(item[1], "ORDER")]
    return {
        name.replace("-", " "): getattr(module, name.replace("-", "_"))
        for name, module in sorted(found, key=lambda item: item[1].ORDER)
        if trains in (None, getattr(module, "TRAINS", False))
    }


def subjects(names: Collection[str] = ()) -> list[Subject]:
    """The subjects of the objectives that are named, or of all that a model is there for.

    Each objective comes with the model that is its default, then in the variants that stand beside
    its rule, then with every other model that it can train. Raises InputError where no objective
    has one of the names, or no model fits it.
    """
    result = []
    for name in names or trainable():
        objective = objective_kind(name)
        model = model_kind("", objective)
        rule = rules.known().get(name)
        usual = Variant(getattr(rule, "SETTINGS", {}))
        result.append(subject(name, name, objective, model, usual))
        variants = getattr(rule, "VARIANTS", {})
        for title, variant in variants.items():
            result.append(subject(title, name, objective, model, variant))
        for title, other in fitting(objective).items():
            if other is not model:
                with contextlib.suppress(InputError):  # it lacks what the objective's parts need
                    result.append(subject(f"{name} with {title}", name, objective, other, usual))
    return result


def trainable() -> list[str]:
    """The names of the objectives that a model is there for."""
    return list(assembly.trainable())


def prove(subject: Subject, trains: bool | None = None) -> Iterator[Proof]:
    """Every proof of a subject, one after the other; ``trains`` as in ``known``."""
    for name, proof in known(trains).items():
        try:
            found = proof(subject)
        except NotChecked as reason:
            found = Proof(name, None, "", message=str(reason))
        yield from found if isinstance(found, list) else [found]


def catch(fault: Fault, sound: Subject) -> list[Proof]:
    """The proofs that fail on the mistaken subject; those that train run only if no other does."""
    mistaken = fault.make(sound)
    for trains in (False, True):
        failed = [proof for proof in prove(mistaken, trains) if proof.passed is False]
        if failed:
            return failed
    return []
