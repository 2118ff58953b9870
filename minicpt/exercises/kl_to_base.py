"""Exercise: the divergence from a base's predictions."""

import math

import torch
from torch import nn

from minicpt.exercises.base import Exercise, Mistake
from minicpt.remedies.kl import divergences


def logs(*logits):
    return (each.log_softmax(dim=1) for each in logits)


def kl(one, other):
    """KL(one || other) of two tensors of logits."""
    one, other = logs(one, other)
    return (one.exp() * (one - other)).sum(1)


def crossed(logits, base):
    one, other = logs(logits, base)
    return -(other.exp() * one).sum(1)


def squared(logits, base):
    one, other = logs(logits, base)
    return (one.exp() - other.exp()).square().sum(1)


class KLToBase(Exercise):
    """What keeps a continued model near its base."""

    ORDER = 120
    minutes = 8
    task = """
    A model that goes on learning on new text forgets the old. One remedy adds to the loss of each
    target how far the model's prediction is from that of its base, the model before it went on:

        KL(base || model) = sum over classes of p_base * (ln p_base - ln p_model)

    It is 0 where both predict the same, and never negative. The base comes first: what it finds
    likely, the model must not find unlikely. Write it for logits.
    """
    stub = '''
    def kl_to_base(logits, base_logits):
        """KL(base || model) of each prediction, in nats: (N,), of the logits' dtype.

        logits       (N, V): the model's, a row for each prediction, a column for each class
        base_logits  (N, V): the base's

        >>> base = torch.tensor([[0.0, 0.0]])                       # 1/2 and 1/2
        >>> model = torch.log(torch.tensor([[0.25, 0.75]]))
        >>> round(float(kl_to_base(model, base)), 4)                # ln(2 / sqrt(3))
        0.1438
        """
    '''
    inputs, outputs = ("logits", "base_logits"), ("divergences",)
    hints = (
        "torch.log_softmax(logits, dim=1) gives ln p of all classes, without overflow.",
        "p_base is the exponential of the base's ln p.",
        "Sum over the classes, dim=1: a number for each prediction remains.",
    )
    mistakes = (
        Mistake(
            "wrong-way-round",
            "KL(model || base): weighed by the model's probabilities, where it should be by the"
            " base's",
            lambda logits, base: kl(logits, base),
        ),
        Mistake(
            "cross-entropy-to-the-base",
            "the cross-entropy with the base's probabilities: it is larger by the base's own"
            " entropy, and not 0 where both agree",
            crossed,
        ),
        Mistake(
            "mean-over-classes",
            "the mean over the classes, where it should be the sum: V times too small",
            lambda logits, base: kl(base, logits) / logits.shape[1],
        ),
        Mistake(
            "averaged-already",
            "one number for all predictions, where each has its own",
            lambda logits, base: kl(base, logits).mean(),
        ),
        Mistake(
            "averaged-already",
            "one number for all predictions, where each has its own",
            lambda logits, base: kl(base, logits).sum(),
        ),
        Mistake(
            "no-softmax",
            "the logits are taken for logarithms of probabilities, which they are not",
            lambda logits, base: (base.softmax(1) * (base - logits)).sum(1),
        ),
        Mistake(
            "no-softmax",
            "the logits are taken for logarithms of probabilities, which they are not",
            lambda logits, base: (base.exp() * (base - logits)).sum(1),
        ),
        Mistake(
            "sign",
            "the difference of the logarithms is the other way round, so that it is negative",
            lambda logits, base: -kl(base, logits),
        ),
        Mistake(
            "bits",
            "the logarithm has base 2, so the result is in bits",
            lambda logits, base: kl(base, logits) / math.log(2),
        ),
        Mistake("squared-difference", "the squared difference of the probabilities", squared),
        Mistake(
            "overflow",
            "the logarithm of a probability that has become 0: take log_softmax, not softmax",
            lambda logits, base: (
                base.softmax(1) * (base.softmax(1).log() - logits.softmax(1).log())
            ).sum(1),
        ),
    )

    def cases(self):
        for logits, base in (
            ([[0.0, 0.0]], [[1.0, 0.0]]),
            ([[1.0, 0.0]], [[1.0, 0.0]]),
            ([[2.0, 0.5, -1.0]], [[0.0, 1.0, 3.0]]),
            ([[0.0, 1.0, 2.0], [1.0, 1.0, 0.0]], [[1.0, 0.0, 1.0], [2.0, 0.0, -2.0]]),
            ([[1000.0, 0.0]], [[0.0, 1.0]]),
        ):
            yield tuple(torch.tensor(each, dtype=torch.float64) for each in (logits, base))

    def reference(self, logits, base_logits):
        # A head that passes on what it is given: then hidden states are logits.
        head = nn.Linear(logits.shape[1], logits.shape[1], bias=False, dtype=logits.dtype)
        with torch.no_grad():
            head.weight.copy_(torch.eye(logits.shape[1]))
            return divergences(head, logits, head, base_logits)
