"""A head of zeros finds every class as likely, and costs exactly the logarithm of their number."""

import math

import torch

from minicpt.batch import IGNORE
from minicpt.proofs import rules
from minicpt.proofs.bounds import additions, tolerance
from minicpt.proofs.result import NotChecked, Proof, worse
from minicpt.proofs.subject import Subject

ORDER = 70
EPOCHS = 12  # over which weights are averaged
ERRORS = 4  # standard errors by which their mean may differ by chance


def zeroed_head(subject: Subject) -> Proof:
    """The loss of every head, zeroed: those of the model, and those that are parts.

    Classes that a head never predicts are not counted: the objective's rule names them. Where
    targets are weighted, the batch costs the mean weight times that; and where the rule says what
    the mean weight is over many draws, that is held against a few epochs.

    Raises NotChecked without targets.
    """
    numbers, problems, apart = {}, [], []
    rule = rules.known().get(subject.kind)
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
            weights = batch.weights.get(head, asked)[asked]
            share = float(weights.double().mean())
            never = getattr(rule, "NEVER", {}).get(head, ())
            exact = share * math.log(len(layer.weight) - len(never))
            numbers[f"{head}: a zeroed head"] = found
            numbers[f"{head}: ln of its classes"] = exact
            apart.append((abs(found - exact) / exact if exact else 0.0, allowed))
            if not abs(found - exact) <= allowed * exact:
                problems.append(f"with a zeroed head {head!r} costs {found:.6f}, not {exact:.6f}")
            if head in getattr(rule, "WEIGHT", {}):
                expected, (mean, error) = rule.WEIGHT[head], mean_weight(subject, head)
                numbers[f"{head}: mean weight of a target"] = mean
                numbers[f"{head}: its standard error"] = error
                apart.append((abs(mean - expected) / error, ERRORS))
                if not abs(mean - expected) <= ERRORS * error:
                    problems.append(
                        f"the mean weight of a target of {head!r} is {mean:.3f}, not {expected:g}:"
                        f" {abs(mean - expected) / error:.0f} standard errors away"
                    )
    worst, most = worse(apart)
    return Proof(
        name="zeroed head",
        passed=not problems,
        compared="its loss with the logarithm of its classes",
        numbers=numbers,
        why="All classes are equally likely: each costs the logarithm of their number.",
        not_covered="Heads that are not zeroed.",
        message="; ".join(problems),
        worst=worst,
        tolerance=most,
    )


def mean_weight(subject: Subject, head: str) -> tuple[float, float]:
    """The mean weight of a target in a few epochs, and its standard error, from the passages."""
    sums, counts = [], []
    for epoch in range(EPOCHS):
        batch = subject.batch(subject.passages(10**6, epoch), epoch)
        asked = batch.targets[head] != IGNORE
        sums.append((batch.weights[head].double() * asked).sum(dim=1))  # (B,)
        counts.append(asked.sum(dim=1))
    sums, counts = torch.cat(sums), torch.cat(counts)
    mean = float(sums.sum() / counts.sum())
    error = float((sums - mean * counts).square().sum().sqrt() / counts.sum())
    return mean, max(error, 1e-300)
