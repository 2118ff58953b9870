"""Exercise: gradients that are added up over micro-batches."""

import dataclasses

import torch

from minicpt.exercises.base import Exercise, Mistake
from minicpt.loss import Loss, objective_loss
from minicpt.proofs.faults.runs import step_with
from minicpt.proofs.partition import update

SPLITS = (0, 1, 3, 6)  # passages


class Accumulation(Exercise):
    """One step from several micro-batches, whose gradients are added up."""

    ORDER = 50
    minutes = 6
    task = """
    A batch too large for the memory is read in micro-batches. Each calls backward on its own, and
    the gradients add up. The step must be the one that the whole batch would make: every target
    counts the same, whichever micro-batch it is in. Micro-batch m does

        (factors[m] * sum_of_its_losses).backward()

    Write these factors. The targets of all micro-batches are counted before the first backward.
    """
    stub = '''
    def factors(counts):
        """What each micro-batch's sum of losses is multiplied by: (M,), floating point.

        counts  (M,), int64: the targets of each micro-batch. One may have none; the step has some

        >>> factors(torch.tensor([3, 1])).tolist()  # 4 targets: each counts a quarter
        [0.25, 0.25]
        """
    '''
    inputs, outputs = ("counts",), ("factors",)
    hints = (
        "Write down the mean loss of the whole batch: the sum of all losses over what?",
        "(x1/n1 + x2/n2) / 2 is not (x1 + x2) / (n1 + n2). All factors are the same number.",
        "torch.full_like, or torch.ones(len(counts)) / ..., makes M equal numbers.",
    )
    subject = "masked-lm"
    proofs = ("partition",)
    measured = "as the loss of a step of three micro-batches"
    mistakes = (
        Mistake(
            "mean-of-micro-batches",
            "a target in a small micro-batch counts more than one in a large one",
            lambda counts: 1 / (counts.double() * len(counts)),
        ),
        Mistake(
            "mean-of-micro-batches",
            "a target in a small micro-batch counts more than one in a large one",
            lambda counts: 1 / (counts.clamp(min=1).double() * len(counts)),
        ),
        Mistake(
            "partial-window",
            "divided by four, however many micro-batches there are",
            lambda counts: 1 / (counts.clamp(min=1).double() * 4),
        ),
        Mistake(
            "sum-of-means",
            "the means of the micro-batches are added up, so that more micro-batches make a"
            " longer step",
            lambda counts: 1 / counts.double(),
        ),
        Mistake(
            "sum-of-means",
            "the means of the micro-batches are added up, so that more micro-batches make a"
            " longer step",
            lambda counts: 1 / counts.clamp(min=1).double(),
        ),
        Mistake(
            "divided-by-the-micro-batches",
            "the sum is divided by the number of micro-batches, not of targets",
            lambda counts: torch.full((len(counts),), 1 / len(counts), dtype=torch.float64),
        ),
        Mistake(
            "share-of-the-targets",
            "a sum of losses is large already where there are many targets: here it is multiplied"
            " by their share once more",
            lambda counts: counts.double() / counts.sum(),
        ),
        Mistake(
            "never-divided",
            "nothing is divided, so that more targets make a longer step",
            lambda counts: torch.ones(len(counts), dtype=torch.float64),
        ),
    )

    def cases(self):
        for counts in ([4], [2, 2], [3, 1], [6, 0, 2], [5, 1, 1, 1, 2]):
            yield (torch.tensor(counts),)

    def reference(self, counts):
        """What a sum of 1 counts for in the loss that is minimised."""
        total, one = {"tokens": int(counts.sum())}, torch.tensor(1.0)
        parts = [objective_loss({"tokens": Loss(one, int(n))}, total) for n in counts]
        return torch.stack(parts)

    def patched(self, subject, function):
        def step(learner, optimizer, batches, *rest, **more):
            counts = [sum(batch.counts().values()) for batch in batches]
            made = function(torch.tensor(counts)) if any(counts) else torch.ones(len(counts))
            left = iter(made.tolist())
            divide = step_with(lambda loss, batches: 1 / (next(left) or float("inf")))
            return divide(learner, optimizer, batches, *rest, **more)

        return dataclasses.replace(subject, step=step)

    def measure(self, subject):
        passages = subject.passages(SPLITS[-1])
        parts = zip(SPLITS, SPLITS[1:], strict=False)
        weights, loss = update(subject, [subject.batch(passages[i:j]) for i, j in parts])
        return [loss, weights]
