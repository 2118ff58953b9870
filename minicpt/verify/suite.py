"""All proofs on all subjects, and all faults against all proofs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType

from minicpt.verify.causality import prove_causality
from minicpt.verify.chance import chance
from minicpt.verify.equivalence import equivalence
from minicpt.verify.faults import Fault
from minicpt.verify.floors import floors, zeroed_head
from minicpt.verify.padding import padding
from minicpt.verify.partition import partition
from minicpt.verify.result import NotChecked, Proof
from minicpt.verify.round_trip import round_trip
from minicpt.verify.rules import batch_rules, order_and_padding
from minicpt.verify.subject import SHORT, Subject, subject
from minicpt.verify.teacher_forcing import teacher_forcing

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
        model = models[module.Objective.architecture]
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
