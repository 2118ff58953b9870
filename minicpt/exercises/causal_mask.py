"""Exercise: the causal mask."""

import math

import torch

from minicpt.exercises.base import Exercise, Mistake
from minicpt.models.layers import causal_mask
from minicpt.proofs.faults.models import pattern


class CausalMask(Exercise):
    """Who may look at whom, in a model that reads from left to right."""

    ORDER = 10
    minutes = 4
    task = """
    A decoder computes all positions of a text at once. That is right only if no position can look
    at what comes after it. The causal mask says so: a matrix with a row for each position that
    looks, and a column for each position that is looked at.

    Write it for a text of `length` positions. True means: may look. Each position may look at
    itself.
    """
    stub = '''
    def causal_mask(length):
        """The mask (length, length), bool: row t is True at the columns 0, 1, ..., t.

        >>> causal_mask(3).int().tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
        """
    '''
    inputs, outputs = ("length",), ("mask",)
    hints = (
        "Begin with torch.ones(length, length, dtype=torch.bool): everybody sees everybody. Which"
        " part of it must become False?",
        "Row t, column s: may look if s <= t. That is the lower triangle, with its diagonal.",
        "torch.Tensor.tril keeps the lower triangle.",
    )
    subject = "causal-lm"
    proofs = ("causality", "equivalence")
    mistakes = (
        Mistake(
            "hides-itself",
            "no position may look at itself, so the first one may look at nothing",
            lambda length: causal_mask(length) & ~torch.eye(length, dtype=torch.bool),
        ),
        Mistake(
            "rows-and-columns-swapped",
            "each position looks at what comes after it, and at nothing before it: the matrix is"
            " transposed",
            lambda length: causal_mask(length).T,
        ),
        Mistake(
            "added-to-the-scores",
            "0 and -inf are to be added to the scores of attention, as some programs have it;"
            " minicpt's masks are bool, which can be printed and counted",
            lambda length: torch.zeros(length, length).masked_fill(~causal_mask(length), -math.inf),
        ),
        Mistake(
            "only-itself",
            "each position looks at itself alone, so that the model has no context",
            lambda length: torch.eye(length, dtype=torch.bool),
        ),
    )

    def cases(self):
        yield from ((length,) for length in (1, 2, 3, 6))

    def reference(self, length):
        return causal_mask(length)

    def patched(self, subject, function):
        return pattern(subject, function)
