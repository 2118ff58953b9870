"""z-loss and label smoothing: the same in one pass and token by token, and in training alone."""

import copy
from dataclasses import replace

from minicpt.batch import Batch
from minicpt.proofs.both_ways import BothWays
from minicpt.proofs.bounds import gap, nats
from minicpt.proofs.result import NotChecked, Proof, worse
from minicpt.proofs.subject import Subject

ORDER = 62
PASSAGES = 4  # of which the first with a target is taken
STRENGTHS = {"z-loss": 0.1, "label-smoothing": 0.3}  # far stronger than anybody would train with


def terms(subject: Subject) -> Proof:
    """Every head's losses with both terms, both ways; and that an evaluation has no terms."""
    learner = subject.learner()
    batches = [subject.batch([passage]) for passage in subject.passages(PASSAGES)]
    plain = next((batch for batch in batches if any(batch.counts().values())), None)
    if plain is None:
        raise NotChecked("needs a target; the first passages have none")
    batch = replace(plain, terms=STRENGTHS)
    visibility = subject.objective.visibility(batch)
    ways = BothWays(learner, lambda some: subject.losses(learner, some), batch, visibility)
    apart = steepest = left = 0.0
    evaluated = terms_of_evaluation(subject)
    problems = [f"the evaluation adds {' and '.join(sorted(evaluated))}"] if evaluated else []
    if missing := ways.missing() or lacking(ways):
        problems.append(missing)
    else:
        apart, steepest = ways.losses_apart()[0], ways.gradients_apart()[0]
        left = taken_out(ways, subject.losses(learner, plain))
    measured = {"loss": apart, "gradient": steepest, "loss whose terms are taken out": left}
    for what, difference in measured.items():
        if not difference <= ways.tolerance:
            problems.append(f"a {what} differs by {difference:.1e}")
    worst, allowed = worse(
        [(each, ways.tolerance) for each in measured.values()] + [(len(problems), 0)]
    )
    return Proof(
        name="terms",
        passed=not problems,
        compared="losses with z-loss and label smoothing, in one pass and one target at a time; an"
        " evaluation, which must have neither",
        numbers={"targets": sum(batch.counts().values())}
        | {f"largest difference of a {what}": each for what, each in measured.items()}
        | {"terms in an evaluation": len(evaluated)},
        why="A term is a function of the logits at its target, which are the same both ways.",
        not_covered="Whether a term helps.",
        message="; ".join(problems),
        worst=worst,
        tolerance=allowed,
    )


def lacking(ways: BothWays) -> str:
    """What is wrong with the terms of the one pass; "" where each head has what was asked for."""
    for head, each in ways.together.items():
        if each.terms.keys() != STRENGTHS.keys():
            return f"the losses of head {head!r} lack the terms that the batch asks for"
    return ""


def taken_out(ways: BothWays, plain: dict) -> float:
    """How far the losses without their terms lie from ``plain``, those of a batch without terms."""
    return max(
        gap(each.losses - sum(each.terms.values()), plain[head].losses, nats(each.losses))
        for head, each in ways.together.items()
    )


def terms_of_evaluation(subject: Subject) -> set[str]:
    """The terms that the batches of an evaluation carry."""
    found: set[str] = set()
    learner, listening = subject.learner(), copy.copy(subject.objective)

    def losses(model, parts, batch: Batch, *rest):
        found.update(batch.terms)
        return subject.objective.losses(model, parts, batch, *rest)

    listening.losses = losses
    subject.evaluate(learner.model, listening, subject.corpus, batch_size=4, parts=learner.parts)
    return found
