"""However a batch is split, one gradient and one loss.

Parts with different numbers of targets must be weighed by them: (x1/n1 + x2/n2)/2, the mean of
means, is not (x1 + x2)/(n1 + n2).
"""

import math

import torch

from minicpt.batch import IGNORE, Batch
from minicpt.verify.result import Proof, worse
from minicpt.verify.subject import Subject

TOLERANCE = 1e-12
PASSAGES = 6


def partition(subject: Subject) -> Proof:
    """One training step in several splits, a part without targets among them; and evaluations."""
    passages = subject.enough(PASSAGES)
    whole = subject.batch(passages)
    splits = {
        "1 + 5": [subject.batch(passages[:1]), subject.batch(passages[1:])],
        "2 + 3 + 1": [subject.batch(passages[i:j]) for i, j in ((0, 2), (2, 5), (5, 6))],
        "6 x 1": [subject.batch([passage]) for passage in passages],
        "6 and a part without targets": [whole, without_targets(whole)],
        "a part without targets and 6": [without_targets(whole), whole],
    }
    expected, loss = update(subject, [whole])
    found = {split: update(subject, batches) for split, batches in splits.items()}
    differences = {split: largest(expected, after) for split, (after, _) in found.items()}
    losses_apart = max((abs(other - loss) for _, other in found.values()), key=nan_is_worst)
    still, _ = update(subject, [without_targets(whole)])
    moved = largest(still, weights(subject.copy_of_model()))
    means = mean_of_means(subject, splits["1 + 5"]) - mean_of_means(subject, [whole])
    one, many = (evaluated(subject, size) for size in (1, 4))
    evaluations = abs(one - many)
    worst = max(differences, key=lambda split: nan_is_worst(differences[split]))
    nearest = worse(
        [(each, TOLERANCE) for each in (differences[worst], losses_apart, evaluations)]
        + [(moved, 0.0)]
    )
    problems = []
    if not differences[worst] <= TOLERANCE:
        problems.append(f"split {worst}, the gradient differs by {differences[worst]:.1e}")
    if not losses_apart <= TOLERANCE:
        problems.append(f"in one of the splits the step's own loss differs by {losses_apart:.1e}")
    if not moved <= 0:
        problems.append(f"a step without targets moved a weight by {moved:.1e}")
    if not evaluations <= TOLERANCE:
        problems.append(
            f"evaluated one by one and four by four, the loss differs by {evaluations:.1e}"
        )
    return Proof(
        name="partition",
        passed=not problems,
        compared=f"{PASSAGES} passages in one batch with the same in {len(splits)} other splits:"
        " loss and gradient; a step without targets; evaluations in two batch sizes",
        numbers={
            "largest difference of a gradient": differences[worst],
            "largest difference of a loss": losses_apart,
            "largest change by a step without targets": moved,
            "difference of the evaluations": evaluations,
            "tolerance": TOLERANCE,
            "what a mean of means would be off by, in nats": abs(means),
        },
        why="Every part is divided by the number of targets of all parts, counted beforehand.",
        not_covered="Splits over several processes.",
        message="; ".join(problems),
        worst=nearest[0],
        tolerance=nearest[1],
    )


def nan_is_worst(value: float) -> float:
    return math.inf if math.isnan(value) else value


def without_targets(batch: Batch) -> Batch:
    targets = {head: torch.full_like(each, IGNORE) for head, each in batch.targets.items()}
    return Batch(batch.inputs, targets)


def weights(model) -> dict:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def update(subject: Subject, batches: list[Batch]) -> tuple[dict, float]:
    """One step of plain gradient descent, which moves the weights by the gradient.

    The weights after it, and the loss that the step gives back.
    """
    model = subject.copy_of_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    losses = subject.step(model, optimizer, batches, 0.0)
    return weights(model), sum(float(each.mean) for each in losses.values())


def largest(one: dict, other: dict) -> float:
    return max((float((one[name] - other[name]).abs().max()) for name in one), key=nan_is_worst)


def mean_of_means(subject: Subject, batches: list[Batch]) -> float:
    model = subject.copy_of_model()
    with torch.no_grad():
        means = [
            sum(float(each.total().mean) for each in subject.losses(model, batch).values())
            for batch in batches
        ]
    return sum(means) / len(means)


def evaluated(subject: Subject, batch_size: int) -> float:
    model = subject.copy_of_model()
    return subject.evaluate(model, subject.objective, subject.corpus, batch_size=batch_size).total
