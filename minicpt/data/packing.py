"""Packing: several short passages share a row of the batch, so that nothing is padded.

Two things keep them apart: a mask in which each sees itself alone, and positions that restart with
each. Positions that restart would hide nothing by themselves.

    read       <end> a b c <end> d e
    position     0   1 2 3   0   1 2

B rows, T positions, P passages, R rows of a plan.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from minicpt.batch import pad
from minicpt.common.randomness import generator
from minicpt.data.corpus import Passage
from minicpt.data.order import POOL, Plan


@dataclass(frozen=True)
class Row:
    """Passages that are read in one row, one behind the other."""

    passages: tuple[Passage, ...]

    @property
    def place(self) -> str:
        """For messages."""
        more = len(self.passages) - 1
        return self.passages[0].place + (f" and {more} more" if more else "")

    @property
    def document(self) -> str:
        """The document of the first passage, and ``start`` likewise."""
        return self.passages[0].document

    @property
    def start(self) -> int:
        return self.passages[0].start


def packed(plan: Plan, size: int, seed: int, epoch: int) -> Plan:
    """A plan of rows of at most ``size`` positions, which hold the passages of ``plan``."""
    order, rows = pack(plan.lengths, size, generator("pack", seed, epoch))
    cuts, lengths = plan.rows[order], plan.lengths[order]
    filled = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])  # before each passage

    def cut(begin: int, end: int) -> Row:
        return Row(tuple(plan.cut(*each) for each in cuts[begin:end].tolist()))

    return Plan(rows, cut, filled[rows[:, 1]] - filled[rows[:, 0]])


def packed_inputs(rows: Sequence[Sequence[Tensor]], filler: int) -> dict[str, Tensor]:
    """What a decoder reads of rows that hold several texts: tokens, mask (B, T, T), positions."""
    numbers = [
        torch.cat([torch.full_like(text, number) for number, text in enumerate(row)])
        for row in rows
    ]
    positions = [torch.cat([torch.arange(len(text)) for text in row]) for row in rows]
    return {
        "tokens": pad([torch.cat(list(row)) for row in rows], filler),
        "mask": packed_causal_mask(pad(numbers, -1)),
        "positions": pad(positions, 0),
    }


def packed_causal_mask(numbers: Tensor) -> Tensor:
    """The mask (B, T, T) of rows that hold several texts: each text sees itself alone, causally.

    numbers  (B, T) int64: the text to which a position belongs; below 0: to none (padding)

    >>> packed_causal_mask(torch.tensor([[0, 0, 1, -1]])).int().tolist()
    [[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]]
    """
    same = numbers[:, :, None] == numbers[:, None, :]  # (B, T, T)
    return same.tril() & (numbers >= 0)[:, None, :]


def pack(lengths: Tensor, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Which passages share a row of ``size`` positions: best fit, the longest first.

    Returns a permutation (P,) of the passages and, for each of the R rows, (start, stop) of its
    passages in that: (R, 2) int64. Pools of POOL passages, drawn at random, are packed apart.

    >>> order, rows = pack(torch.tensor([2, 5, 4, 1, 3]), 6, torch.Generator())
    >>> order.tolist(), rows.tolist()
    ([1, 3, 2, 0, 4], [[0, 2], [2, 4], [4, 5]])
    """
    order, stops = array("q"), array("q")
    for pool in torch.randperm(len(lengths), generator=generator).split(POOL):
        pool = pool[lengths[pool].argsort(descending=True, stable=True)]
        rows: list[list[int]] = []
        rooms: list[tuple[int, int]] = []  # ascending: the room that is left, and in which row
        for passage, length in zip(pool.tolist(), lengths[pool].tolist(), strict=True):
            tightest = bisect_left(rooms, (length, 0))
            if tightest < len(rooms):
                room, row = rooms.pop(tightest)
            else:
                room, row = size, len(rows)
                rows.append([])
            rows[row].append(passage)
            if room > length:
                insort(rooms, (room - length, row))
        for row in rows:
            order.extend(row)
            stops.append(len(order))
    stops = torch.frombuffer(stops, dtype=torch.int64)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), stops[:-1]])
    return torch.frombuffer(order, dtype=torch.int64), torch.stack([starts, stops], dim=1)
