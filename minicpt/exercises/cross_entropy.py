"""Exercise: cross-entropy by hand."""

import dataclasses
import math

import torch
from torch import nn

from minicpt.exercises.base import Exercise, Mistake
from minicpt.loss import head_losses


def by_hand(logits, targets, dim=1):
    """log Z less the target's logit."""
    return logits.logsumexp(dim, keepdim=True).expand_as(logits) - logits


def at(values, targets):
    return values.gather(1, targets[:, None])[:, 0]


class CrossEntropy(Exercise):
    """What a prediction costs, in nats."""

    ORDER = 30
    minutes = 6
    task = """
    A model gives a logit for each class. Softmax makes probabilities of them, and a prediction
    costs -ln of the probability of the right class:

        p(class) = exp(logit of the class) / sum over all classes of exp(logit)
        loss     = -ln p(target)

    Write it without torch's cross_entropy, and so that large logits do no harm: exp(1000) is
    infinite, and the loss is not.
    """
    stub = '''
    def cross_entropy(logits, targets):
        """The loss (N,) of each prediction, in nats, in the logits' own dtype.

        logits   (N, V), floating point: a row for each prediction, a column for each class
        targets  (N,), int64: the right class of each

        >>> [round(x, 4) for x in cross_entropy(torch.tensor([[0.0, 0.0], [2.0, 0.0]]),
        ...                                     torch.tensor([0, 0])).tolist()]
        [0.6931, 0.1269]
        """
    '''
    inputs, outputs = ("logits", "targets"), ("losses",)
    hints = (
        "-ln p(target) = ln(sum of exp(logits)) - logit of the target.",
        "torch.gather picks one column of each row: logits.gather(1, targets[:, None]).",
        "torch.logsumexp computes ln(sum of exp) without overflow. By hand: subtract the largest"
        " logit of the row from all of its logits first. That changes no probability.",
    )
    subject = "causal-lm"
    proofs = ("zeroed head",)
    mistakes = (
        Mistake(
            "bits",
            "the logarithm has base 2, so the loss is in bits: ln 2 times as much is in nats",
            lambda logits, targets: at(by_hand(logits, targets), targets) / math.log(2),
        ),
        Mistake(
            "no-normaliser",
            "the target's logit with a minus is no loss: the sum over all classes is missing",
            lambda logits, targets: -at(logits, targets),
        ),
        Mistake(
            "probability-without-logarithm",
            "1 less the probability of the target: the logarithm is missing",
            lambda logits, targets: 1 - at(logits.softmax(1), targets),
        ),
        Mistake(
            "sign",
            "the logarithm of a probability is negative: the minus is missing",
            lambda logits, targets: -at(by_hand(logits, targets), targets),
        ),
        Mistake(
            "softmax-twice",
            "softmax is taken of what softmax gave, so that no loss can become small",
            lambda logits, targets: at(by_hand(logits.softmax(1), targets), targets),
        ),
        Mistake(
            "softmax-over-the-predictions",
            "probabilities add up to 1 in each column, where they should in each row: dim=0",
            lambda logits, targets: at(by_hand(logits, targets, 0), targets),
        ),
        Mistake(
            "overflow",
            "exp of a large logit is infinite: subtract the row's largest logit before exp",
            lambda logits, targets: logits.exp().sum(1).log() - at(logits, targets),
        ),
        Mistake(
            "overflow",
            "exp of a large logit is infinite, and inf/inf is not a number",
            lambda logits, targets: -at(logits.exp() / logits.exp().sum(1, True), targets).log(),
        ),
        Mistake(
            "overflow",
            "a small probability has become 0, whose logarithm is infinite: do not go through the"
            " probability",
            lambda logits, targets: -at(logits.softmax(1), targets).log(),
        ),
        Mistake(
            "all-classes",
            "every class costs something here; only the target's column counts",
            lambda logits, targets: by_hand(logits, targets).sum(1),
        ),
        Mistake(
            "averaged-already",
            "one number for all predictions, where each has its own loss",
            lambda logits, targets: at(by_hand(logits, targets), targets).mean(),
        ),
    )

    def cases(self):
        rows = [[[1.0, 0.0]], [[0.0, 0.0, 0.0]], [[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]]]
        rows.append([[0.0, 1000.0, 0.0], [0.0, 1000.0, 0.0]])
        for each, target in zip(rows, ([0], [2], [2, 1], [1, 0]), strict=True):
            yield torch.tensor(each, dtype=torch.float64), torch.tensor(target)

    def reference(self, logits, targets):
        return head_losses(nn.Identity(), logits, targets, fused=False)

    def patched(self, subject, function):
        def losses(learner, batch):
            found = subject.losses(learner, batch)
            heads = learner.model.heads
            return {
                head: dataclasses.replace(
                    each, losses=function(heads[head](each.hidden).detach(), each.targets)
                )
                for head, each in found.items()
            }

        return dataclasses.replace(subject, losses=losses)
