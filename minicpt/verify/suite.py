"""All proofs on all subjects, and all faults against all proofs."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType

from minicpt.verify.causality import prove_causality
from minicpt.verify.equivalence import equivalence
from minicpt.verify.faults import Fault
from minicpt.verify.floors import floors
from minicpt.verify.packing import Packed
from minicpt.verify.padding import padding
from minicpt.verify.partition import partition
from minicpt.verify.result import Proof
from minicpt.verify.round_trip import round_trip
from minicpt.verify.rules import rules
from minicpt.verify.subject import Subject, subject
from minicpt.verify.teacher_forcing import teacher_forcing

SEEN = 3  # passages whose every pair of positions the proof of causality looks at
PACKED = "packed causal-lm"
# Settings that make another computation of an objective, beside its defaults.
VARIANTS = {"next-sentence": {"next-sentence with masked-lm": {"masked": True}}}


def causality(subject: Subject) -> list[Proof]:
    """No target depends on what it may not see: by derivatives and by changed tokens."""
    batch = subject.batch(subject.passages(SEEN))
    return prove_causality(subject.model, batch, subject.objective.visibility(batch))


PROOFS: tuple[Callable[[Subject], Proof | list[Proof]], ...] = (
    rules, equivalence, causality, padding, partition, floors, round_trip,
)  # fmt: skip
# Of a packed row there is one; it is not split, padded or resumed.
PACKED_PROOFS = (equivalence, causality)


def subjects(
    objectives: Mapping[str, ModuleType], models: Mapping[str, ModuleType]
) -> list[Subject]:
    """A subject for each objective, and for those of its variants that compute otherwise."""
    result = []
    for kind, module in objectives.items():
        model = models[module.Objective.architecture]
        result.append(subject(kind, module, model))
        for name, settings in VARIANTS.get(kind, {}).items():
            result.append(subject(kind, module, model, name, **settings))
        if kind == "causal-lm":
            alone = result[-1]
            packed = Packed(alone.objective)
            result.append(dataclasses.replace(alone, name=PACKED, objective=packed))
    return result


def proofs(subject: Subject) -> Sequence[Callable]:
    if subject.name == PACKED:
        return PACKED_PROOFS
    # A decoder alone can be fed its own predictions in place of all that it reads.
    return (*PROOFS, teacher_forcing) if subject.objective.architecture == "decoder" else PROOFS


def prove(subject: Subject) -> Iterator[Proof]:
    """Every proof of a subject, one after the other."""
    for proof in proofs(subject):
        found = proof(subject)
        yield from found if isinstance(found, list) else [found]


def catch(fault: Fault, sound: Subject) -> Proof | None:
    """The first proof that fails on the mistaken subject, or None."""
    return next((proof for proof in prove(fault.make(sound)) if proof.passed is False), None)
