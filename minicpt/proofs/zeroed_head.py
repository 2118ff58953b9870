"""A head of zeros finds every class as likely, and costs exactly the logarithm of their number."""

import math

import torch

from minicpt.batch import IGNORE
from minicpt.proofs.bounds import additions, tolerance
from minicpt.proofs.result import NotChecked, Proof
from minicpt.proofs.subject import Subject

ORDER = 70


def zeroed_head(subject: Subject) -> Proof:
    """The loss of every head, zeroed: those of the model, and those that are parts.

    Raises NotChecked without targets.
    """
    numbers, problems, worst = {}, [], 0.0
    learner, objective = subject.learner(), subject.objective
    batch = subject.batch(subject.passages(4))
    counts = batch.counts()
    if not sum(counts.values()):
        raise NotChecked("needs a target; the first passages have none")
    allowed = tolerance(additions(learner, batch))
    for head in counts:
        layer = objective.head_of(head, learner.model, learner.parts)
        if counts[head]:
            with torch.no_grad():
                layer.weight.zero_()
                if layer.bias is not None:
                    layer.bias.zero_()
                found = float(subject.losses(learner, batch)[head].total().mean)
            asked = batch.targets[head] != IGNORE
            weights = batch.weights.get(head, torch.ones_like(asked))[asked]
            share = float(weights.double().mean())
            exact = share * math.log(len(layer.weight))
            numbers[f"{head}: a zeroed head"] = found
            numbers[f"{head}: ln of its classes"] = exact
            worst = max(worst, abs(found - exact) / exact)
            if not abs(found - exact) <= allowed * exact:
                problems.append(f"with a zeroed head {head!r} costs {found:.6f}, not {exact:.6f}")
    return Proof(
        name="zeroed head",
        passed=not problems,
        compared="its loss with the logarithm of its classes",
        numbers=numbers,
        why="All classes are equally likely: each costs the logarithm of their number.",
        not_covered="Heads that are not zeroed.",
        message="; ".join(problems),
        worst=worst,
        tolerance=allowed,
    )
