"""All proofs on all subjects, and all faults against all proofs."""

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from minicpt import proofs
from minicpt.common import registry
from minicpt.common.errors import InputError
from minicpt.models.layers import Model
from minicpt.objectives.base import Objective
from minicpt.proofs import processes, rules
from minicpt.proofs.black_box.verdict import verify_model
from minicpt.proofs.faults.base import Fault
from minicpt.proofs.result import NotChecked, Proof, Proofs
from minicpt.proofs.subject import Subject, Variant, subject
from minicpt.runs import assembly
from minicpt.runs.assembly import fitting, model_kind, objective_kind


def verify(objective: str = "", model: Callable | str | None = None, **given) -> Proofs:
    """Every proof of an objective, of all objectives, or of a causal model that is not ours.

        verify("causal-lm")
        verify("causal-lm", "llama")
        verify(model=my_model)  # from token ids (B, T) to logits (B, T, V)

    ``given`` goes to ``black_box.verdict.verify_model``: lengths, rows, seed, seconds. Raises
    InputError where no objective has that name, or the model cannot be called.
    """
    if callable(model):
        return Proofs(verify_model(model, **given))
    every = subjects([objective] if objective else (), model or "")
    return Proofs(
        replace(proof, name=f"{each.name}: {proof.name}") if len(every) > 1 else proof
        for each in every
        for proof in prove(each)
    )


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


def subjects(names: Collection[str] = (), model: str = "") -> list[Subject]:
    """The subjects of the objectives that are named, or of all that a model is there for.

    Each objective comes with the model that is its default, then in the variants that stand beside
    its rule, then with the default model of each other role that it can train. With ``model``, the
    name of one of ours, that one stands in the place of all these. Raises InputError where no
    objective has one of the names, or no model fits it.
    """
    result = []
    for name in names or trainable():
        objective, rule = objective_kind(name), rules.known().get(name)
        usual = Variant(getattr(rule, "SETTINGS", {}))
        default = model_kind("", objective)
        for title, kind in chosen(objective, model, bool(names)).items():
            more = "" if kind is default else f" with {title}"
            # Without parts that the objective needs, a model is left out, unless it is asked for.
            left_out = more and not (model and names)
            with contextlib.suppress(InputError) if left_out else contextlib.nullcontext():
                result.append(subject(name + more, name, objective, kind, usual))
            if kind.ROLE == default.ROLE:
                for title, variant in getattr(rule, "VARIANTS", {}).items():
                    result.append(subject(title + more, name, objective, kind, variant))
    return result


@functools.cache
def sound(name: str) -> Subject:
    """The subject of this name, made once: to be copied by those who change it.

    Raises KeyError where there is none.
    """
    return {each.name: each for each in subjects([kinds()[name]])}[name]


def kinds() -> dict[str, str]:
    """The names of the subjects with the usual models, each with its objective."""
    return {
        name: kind
        for kind in trainable()
        for name in (kind, *getattr(rules.known().get(kind), "VARIANTS", ()))
    }


def chosen(objective: type[Objective], model: str, must_fit: bool) -> dict[str, type[Model]]:
    """The model that is asked for, or the default one of each role; by name.

    must_fit  InputError for a model that the objective cannot train; otherwise there is none
    """
    fits = fitting(objective)
    if model and (must_fit or model in fits):
        return {model: model_kind(model, objective)}
    of_role = {kind.ROLE: (name, kind) for name, kind in reversed(fits.items())}
    return {} if model else dict(reversed(of_role.values()))


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
    if fault.processes:
        return processes.catch(fault.name, sound)
    mistaken = fault.make(sound)
    for trains in (False, True):
        failed = [proof for proof in prove(mistaken, trains) if proof.passed is False]
        if failed:
            return failed
    return []
