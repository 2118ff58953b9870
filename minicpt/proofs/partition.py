"""However a batch is split, one gradient and one loss.

Parts with different numbers of targets must be weighed by them: (x1/n1 + x2/n2)/2, the mean of
means, is not (x1 + x2)/(n1 + n2).
"""

import torch
from torch import Tensor, nn

from minicpt.batch import Batch
from minicpt.proofs.bounds import additions, gap, largest, tolerance
from minicpt.proofs.result import Proof, worse
from minicpt.proofs.subject import SEED, Subject
from minicpt.training.distributed import without_targets

ORDER = 60
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
    before = weights(subject.learner())
    expected, loss = update(subject, [whole])
    found = {split: update(subject, batches) for split, batches in splits.items()}
    # A step adds the passages' gradients, which may cancel, and then the weights themselves.
    alone = (update(subject, [batch])[0] for batch in splits["6 x 1"])
    size = largest(before) + max(largest(after - before) for after in alone)
    differences = {split: gap(expected, after, size) for split, (after, _) in found.items()}
    losses_apart = max(gap(loss, other, largest(loss)) for _, other in found.values())
    still, _ = update(subject, [without_targets(whole)])
    moved = gap(before, still, size)
    means = mean_of_means(subject, splits["1 + 5"]) - mean_of_means(subject, [whole])
    one, many = (evaluated(subject, count) for count in (1, 4))
    evaluations = gap(one, many, largest(one))
    worst = max(differences, key=differences.get)
    every = len(subject.objective.plan(subject.corpus, SEED, 0))  # what the evaluations add up
    allowed = tolerance(additions(subject.learner(), whole, max(every, PASSAGES)))
    nearest = worse(
        [(each, allowed) for each in (differences[worst], losses_apart, evaluations)]
        + [(moved, 0.0)]
    )
    problems = []
    if not differences[worst] <= allowed:
        problems.append(f"split {worst}, the gradient differs by {differences[worst]:.1e}")
    if not losses_apart <= allowed:
        problems.append(f"in one of the splits the step's own loss differs by {losses_apart:.1e}")
    if not moved <= 0:
        problems.append(f"a step without targets moved a weight by {moved:.1e}")
    if not evaluations <= allowed:
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
            "tolerance": allowed,
            "size of what is added": size,
            "what a mean of means would be off by, in nats": abs(means),
        },
        why="Every part is divided by the number of targets of all parts, counted beforehand.",
        not_covered="Splits over several processes.",
        message="; ".join(problems),
        worst=nearest[0],
        tolerance=nearest[1],
    )


def weights(learner: nn.Module) -> Tensor:
    """All of them in one row."""
    return torch.cat([parameter.detach().flatten() for parameter in learner.parameters()])


def update(subject: Subject, batches: list[Batch]) -> tuple[Tensor, Tensor]:
    """One step of plain gradient descent, which moves the weights by the gradient.

    The weights after it, and the loss that the step gives back.
    """
    learner = subject.learner()
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    found = subject.step(
        learner, optimizer, batches, 0.0, head_weights=subject.objective.head_weights
    )
    return weights(learner), sum(each.mean for each in found[""].values())


def mean_of_means(subject: Subject, batches: list[Batch]) -> float:
    learner = subject.learner()
    with torch.no_grad():
        means = [
            sum(float(each.total().mean) for each in subject.losses(learner, batch).values())
            for batch in batches
        ]
    return sum(means) / len(means)


def evaluated(subject: Subject, batch_size: int) -> Tensor:
    learner = subject.learner()
    found = subject.evaluate(
        learner.model,
        subject.objective,
        subject.corpus,
        batch_size=batch_size,
        parts=learner.parts,
    )
    return torch.tensor(found.total, dtype=torch.float64)
