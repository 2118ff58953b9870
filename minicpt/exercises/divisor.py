"""Exercise: positions without a target, and the divisor."""

import torch
import torch.nn.functional as F
from torch import nn

from minicpt.batch import IGNORE, Batch
from minicpt.exercises.base import Exercise, Mistake
from minicpt.loss import losses_of_head


def summed(logits, targets, ignored=IGNORE):
    """The sum of all losses: a target that is ignored costs nothing."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none",
                             ignore_index=ignored)  # fmt: skip
    return losses.view_as(targets)


def of_rows(logits, targets):
    """The mean of the rows' means, those without a target left out."""
    counts = (targets != IGNORE).sum(1)
    means = summed(logits, targets).sum(1) / counts.clamp(min=1)
    return means.sum() / max(int((counts > 0).sum()), 1)


def without_zero(logits, targets):
    kept = torch.where(targets == 0, IGNORE, targets)
    return summed(logits, kept).sum() / max(int((kept != IGNORE).sum()), 1)


class Divisor(Exercise):
    """Positions without a target, and what the sum is divided by."""

    ORDER = 40
    minutes = 6
    task = """
    Rows have different lengths, and are filled up with padding. A padded position has no target:
    its target is IGNORE. It costs nothing, and it does not count in the mean either.

    Write the mean loss of a batch: the sum of the losses of all positions with a target, over the
    number of these positions. One sum, one number, one division. A batch without any target costs
    0, and not 0/0. You may use torch.nn.functional.cross_entropy, or your own.
    """
    stub = '''
    def mean_loss(logits, targets):
        """The mean loss of a batch in nats: a tensor with one number, shape ().

        logits   (B, T, V), floating point: for each position of each row, a logit for each class
        targets  (B, T), int64: the right class, or IGNORE

        >>> logits = torch.zeros(1, 3, 4)  # all four classes are equally likely: ln 4 = 1.3863
        >>> round(float(mean_loss(logits, torch.tensor([[2, 0, IGNORE]]))), 4)
        1.3863
        """
    '''
    inputs, outputs = ("logits", "targets"), ("loss",)
    hints = (
        "targets != IGNORE tells where the loss is asked for: a tensor (B, T) of bool.",
        "logits[asked] is (N, V), and targets[asked] is (N,), for the N positions with a target.",
        "Without a target N is 0. Divide by max(N, 1).",
    )
    mistakes = (
        Mistake(
            "pad-targets",
            "IGNORE has become class 0, or padding is counted as one",
            lambda logits, targets: summed(logits, targets.clamp(min=0)).mean(),
        ),
        Mistake(
            "divided-by-all-positions",
            "the sum is right, but it is divided by all positions, those without a target too",
            lambda logits, targets: summed(logits, targets).mean(),
        ),
        Mistake(
            "mean-of-rows",
            "each row has its own mean, and these are averaged: a mean of means, in which a target"
            " of a short row counts more",
            of_rows,
        ),
        Mistake(
            "class-zero-ignored",
            "class 0 is a class like any other",
            without_zero,
        ),
        Mistake(
            "no-targets-is-nan",
            "0/0 where no position has a target",
            lambda logits, targets: summed(logits, targets).sum() / (targets != IGNORE).sum(),
        ),
        Mistake(
            "never-divided",
            "the sum of the losses, which is not divided",
            lambda logits, targets: summed(logits, targets).sum(),
        ),
        Mistake(
            "divided-by-the-rows",
            "the sum is divided by the number of rows",
            lambda logits, targets: summed(logits, targets).sum() / len(targets),
        ),
    )

    def cases(self):
        no = IGNORE
        for targets in ([[1]], [[1, no]], [[0, 2]], [[1, 2, 0], [2, no, no]], [[no, no]]):
            targets = torch.tensor(targets)
            count = targets.numel() * 3
            logits = (torch.arange(count, dtype=torch.float64) * 7 % 5 - 2) / 2
            yield logits.view(*targets.shape, 3), targets

    def reference(self, logits, targets):
        batch = Batch({}, {"tokens": targets})
        return losses_of_head("tokens", logits, nn.Identity(), batch, fused=False).total().mean
