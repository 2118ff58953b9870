"""Exercise: several texts in one row."""

import dataclasses

import torch

from minicpt.batch import valid_positions
from minicpt.data.packing import packed_inputs
from minicpt.exercises.base import Exercise, Mistake
from minicpt.proofs.faults.base import targets


def numbers_of(lengths, size):
    """The text to which each position belongs, -1 for padding; and its place in it."""
    sizes = torch.tensor(lengths)
    numbers, positions = torch.full((size,), -1), torch.zeros(size, dtype=torch.int64)
    numbers[: int(sizes.sum())] = torch.arange(len(sizes)).repeat_interleave(sizes)
    positions[: int(sizes.sum())] = torch.cat([torch.arange(each) for each in lengths])
    return numbers, positions


def wrong(causal=True, apart=True, restart=True, hides=True):
    """A packed row without some of what keeps its texts apart."""

    def make(lengths, size):
        numbers, positions = numbers_of(lengths, size)
        mask = torch.ones(size, size, dtype=torch.bool)
        if apart:
            mask &= numbers[:, None] == numbers
        if causal:
            mask = mask.tril()
        if hides:
            mask &= (numbers >= 0) & (numbers >= 0)[:, None]
        return mask, positions if restart else torch.arange(size)

    return make


class Packing(Exercise):
    """Several texts in one row, and none sees another."""

    ORDER = 90
    minutes = 8
    task = """
    Short texts waste room: each would be filled up with padding. Packed, several of them share a
    row. Two things keep them apart: a mask in which each sees itself alone, and positions that
    begin at 0 with each text.

        lengths 2 and 3, size 6     mask   1 . . . . .     positions  0 1 0 1 2 0
                                           1 1 . . . .
                                           . . 1 . . .
                                           . . 1 1 . .
                                           . . 1 1 1 .
                                           . . . . . .

    Behind the last text there is padding. It sees nothing, nothing sees it, and its position is 0.
    """
    stub = '''
    def pack(lengths, size):
        """The mask (size, size), bool, True = may look, and the positions (size,), int64.

        lengths  a list of whole numbers: of each text, one behind the other
        size     the length of the row; the texts fit into it

        >>> mask, positions = pack([2, 1], 4)
        >>> mask.int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
        >>> positions.tolist()
        [0, 1, 0, 0]
        """
    '''
    inputs, outputs = ("lengths", "size"), ("mask", "positions")
    hints = (
        "Give each position the number of its text: [0, 0, 1]. Padding gets -1.",
        "Two positions may look at each other only if their numbers are equal: compare"
        " numbers[:, None] == numbers[None, :]. Then .tril() makes it causal.",
        "A loop over the lengths that keeps the place where the next text begins is fine too:"
        " mask[begin:end, begin:end] is the block of one text.",
    )
    subject = "packed causal-lm"
    proofs = ("batch rules", "causality")
    mistakes = (
        Mistake(
            "packed-together",
            "the mask is causal over the whole row",
            wrong(apart=False),
        ),
        Mistake(
            "packed-together",
            "the mask is causal over the whole row, and padding looks too",
            wrong(apart=False, hides=False),
        ),
        Mistake(
            "positions-go-on",
            "the second text seems to begin far behind the first",
            wrong(restart=False),
        ),
        Mistake(
            "nothing-keeps-them-apart",
            "the mask is causal over the whole row, and positions do not restart: to the model it"
            " is one text",
            wrong(apart=False, restart=False),
        ),
        Mistake(
            "nothing-keeps-them-apart",
            "the mask is causal over the whole row, and positions do not restart: to the model it"
            " is one text",
            wrong(apart=False, restart=False, hides=False),
        ),
        Mistake(
            "no-mask",
            "each text looks at all of itself, also at what comes later",
            wrong(causal=False),
        ),
        Mistake(
            "padding-is-a-text",
            "padding looks at itself, as if it were one more text",
            wrong(hides=False),
        ),
    )

    def cases(self):
        yield from (([1], 1), ([2], 2), ([1, 1], 2), ([2, 1], 3), ([2], 3), ([1, 3, 2], 8))

    def reference(self, lengths, size):
        # Beside a row that is full, so that this one is filled up.
        rows = [[torch.zeros(each, dtype=torch.int64) for each in lengths], [torch.zeros(size)]]
        found = packed_inputs(rows, 0)
        return found["mask"][0], found["positions"][0]

    def patched(self, subject, function):
        def change(batch):
            real, size = valid_positions(batch.inputs["mask"]), batch.inputs["tokens"].shape[1]
            made = []
            for row, own in zip(batch.inputs["positions"], real, strict=True):
                starts = (row[own] == 0).nonzero()[:, 0].tolist()
                stops = [*starts[1:], int(own.sum())]
                lengths = [stop - start for start, stop in zip(starts, stops, strict=True)]
                made.append(function(lengths, size))
            mask, positions = (torch.stack(each) for each in zip(*made, strict=True))
            inputs = batch.inputs | {"mask": mask, "positions": positions}
            return dataclasses.replace(batch, inputs=inputs)

        return targets(subject, change)
