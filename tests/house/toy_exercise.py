"""Toy: an exercise on padding (of this test alone)."""

import torch

from minicpt.batch import pad
from minicpt.exercises.base import Exercise, Mistake


class Pad(Exercise):
    """Rows of different lengths become one matrix."""

    ORDER = 200
    task = "Fill up shorter rows on the right, so that all have one length."
    stub = '''
    def pad_rows(rows, value):
        """The rows as a matrix (B, T), filled up with ``value``.

        >>> pad_rows([torch.tensor([1, 2]), torch.tensor([3])], 0).tolist()
        [[1, 2], [3, 0]]
        """
    '''
    inputs, outputs = ("rows", "value"), ("matrix",)
    hints = ("torch.nn.utils.rnn has a function for it.",)
    mistakes = (
        Mistake(
            "on-the-left",
            "the filling stands in front of the rows",
            lambda rows, value: pad([row.flip(0) for row in rows], value).flip(1),
        ),
    )

    def cases(self):
        yield [torch.tensor([1])], 0
        yield [torch.tensor([1, 2]), torch.tensor([3])], 0

    def reference(self, rows, value):
        return pad(rows, value)
