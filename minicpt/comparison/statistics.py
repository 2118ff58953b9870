"""Bootstrap intervals over seeds and units of text.

A figure of the comparison is a ratio, such as bits over bytes: both are summed over units of
held-out text (documents; passages where there are few documents), divided, and averaged over seeds.
Two things in it are chance: which units were held out, and the seed of the training. So both are
drawn again, with replacement. All seeds are measured on the same units, so one draw of units serves
all drawn seeds: drawing them anew for each seed would average away what a unit is like, and give
intervals that are too narrow (Owen 2007, "The pigeonhole bootstrap", arXiv 0712.1111). What is
compared is paired: before and after, and one remedy and another, see the same units and seeds.

Three seeds have ten different draws, so the part that seeds play is rough; with one seed it is
left out, and the interval speaks of text alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minicpt.common.randomness import generator

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies on one side of zero; 0: within noise."""
        return (self.low > 0) - (self.high < 0)


@dataclass(frozen=True)
class Figures:
    """Ratios by seed: (S, U) numerators and denominators of U units, in float64.

    A figure that is a sum of ratios (a loss of several heads) is a sequence of these.
    """

    sums: Tensor
    sizes: Tensor


def interval(*groups: Sequence[Figures]) -> Interval:
    """The mean over seeds of the sum of ratios, with its bootstrap interval; deterministic.

    Figures of one group are of the same units; each group's units are drawn by themselves, and the
    seeds for all groups together.

    >>> ones = torch.ones(3, 20, dtype=torch.float64)
    >>> interval([Figures(2 * ones, ones)])
    Interval(value=2.0, low=2.0, high=2.0)
    """
    seeds = len(groups[0][0].sums)
    chosen = torch.randint(seeds, (DRAWS, seeds), generator=generator("seeds", seeds))
    value, drawn = 0.0, torch.zeros(DRAWS, dtype=torch.float64)
    for number, group in enumerate(groups):
        units = group[0].sums.shape[1]
        draws = generator("units", units, number)
        picks = torch.randint(units, (DRAWS, units), generator=draws)
        counts = torch.zeros(DRAWS, units, dtype=torch.float64)  # how often each unit was drawn
        counts.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))
        for each in group:
            value += float((each.sums.sum(1) / each.sizes.sum(1)).mean())
            ratios = (counts @ each.sums.t()) / (counts @ each.sizes.t())  # (DRAWS, S)
            drawn += ratios.gather(1, chosen).mean(1)
    drawn = drawn[drawn.isfinite()]  # a draw without any target says nothing
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = drawn.quantile(ends).tolist()
    return Interval(value, low, high)


def negative(figures: Sequence[Figures]) -> list[Figures]:
    return [Figures(-each.sums, each.sizes) for each in figures]


def less(first: Sequence[Figures], second: Sequence[Figures]) -> list[Figures]:
    """The first without the second, on the same units and seeds."""
    return [
        Figures(one.sums - other.sums, one.sizes)
        for one, other in zip(first, second, strict=True)
    ]
