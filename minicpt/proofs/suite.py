"""All proofs on all subjects, and all faults against all proofs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType

from minicpt.proofs.causality import prove_causality
from minicpt.proofs.chance import chance
from minicpt.proofs.entropy_floor import floors, zeroed_head
from minicpt.proofs.equivalence import equivalence
from minicpt.proofs.faults import Fault
from minicpt.proofs.padding import padding
from minicpt.proofs.partition import partition
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.round_trip import round_trip
from minicpt.proofs.rules import batch_rules, order_and_padding
from minicpt.proofs.subject import SHORT, Subject, subject
from minicpt.proofs.teacher_forcing import teacher_forcing

SEEN = 3  # passages whose every pair of positions the proof of causality looks at
PACKED = "packed causal-lm"
ORDER = "sentence order"
# Settings that make another computation of an objective, beside its defaults.
VARIANTS = {
    "next-sentence": {"next-sentence with masked-lm": {"masked": True}, ORDER: {"order": True}}
}


def causality(subject: Subject) -> list[Proof]:
    """No target depends on what it may not see: by derivatives and by changed tokens."""
    batch = subject.batch(subject.passages(SEEN))
    return prove_causality(subject.model, batch, subject.objective.visibility(batch))


QUICK: tuple[Callable[[Subject], Proof | list[Proof]], ...] = (
    order_and_padding, batch_rules, equivalence, causality, padding, partition, zeroed_head,
    teacher_forcing,
)  # fmt: skip
SLOW = (round_trip, floors, chance)  # these train


def subjects(
    objectives: Mapping[str, ModuleType], models: Mapping[str, ModuleType]
) -> list[Subject]:
    """A subject for each objective, and for those of its variants that compute otherwise."""
    result = []
    for kind, module in objectives.items():
        model = models[module.Objective.role]
        result.append(subject(kind, module, model))
        for name, settings in VARIANTS.get(kind, {}).items():
            result.append(subject(kind, module, model, name, **settings))
        if kind == "causal-lm":
            result.append(subject(kind, module, model, PACKED, SHORT, pack=True))
    return result


def prove(subject: Subject, wanted: Sequence[Callable] = (*QUICK, *SLOW)) -> Iterator[Proof]:
    """Every proof of a subject, or those that are wanted, one after the other."""
    for proof in wanted:
        try:
            found = proof(subject)
        except NotChecked as reason:
            found = Proof(proof.__name__.replace("_", " "), None, "", message=str(reason))
        yield from found if isinstance(found, list) else [found]


def catch(fault: Fault, sound: Subject) -> list[Proof]:
    """The proofs that fail on the mistaken subject; the slow ones run only if no quick one does."""
    mistaken = fault.make(sound)
    for some in (QUICK, SLOW):
        failed = [proof for proof in prove(mistaken, some) if proof.passed is False]
        if failed:
            return failed
    return []
