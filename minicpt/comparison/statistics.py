"""Intervals that count two kinds of chance: which units of text were held out, and the seeds.

A figure of the comparison is a ratio, such as bits over bytes: both are summed over units of
held-out text (documents; passages where there are few documents), divided, and averaged over seeds.
What is compared is paired: before and after, and one remedy and another, see the same units and
seeds. The interval of 95 % has two levels.

    seeds  The seeds' figures are numbers, one for each seed. Their standard error is known, and its
           half width is Student's t with S - 1 degrees of freedom times that. It is no bootstrap:
           3 seeds have only 10 different draws, whose spread is too narrow.
    units  All seeds are measured on the same units, so the units are drawn again for all seeds
           together (Owen 2007, "The pigeonhole bootstrap", arXiv 0712.1111). A bootstrap-t (Efron
           and Tibshirani 1993, chapter 12) gives the half width: few units, unequal sizes and
           skewed losses make it wider. It is never taken narrower than Student's t. What seeds and
           units do together is in the seeds' level already, and is left out here.

The half widths add as the sides of a right triangle do: squared (Howe 1974, JASA 69, 789; Zou and
Donner 2008, Statistics in Medicine 27, 1693). Where one level dominates, this is the interval of
that level alone; between them it is a little too wide. ``benchmarks/coverage.py`` measures how
often it misses the truth, beside the percentile bootstrap over both levels, and beside the sum of
the variances (Satterthwaite), which are narrower and miss more often.

With one seed the level of seeds is left out, and the interval speaks of text alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from minicpt.common.randomness import generator
from minicpt.comparison.student import quantile

DRAWS = 2000
OUTSIDE = 0.05  # how often an interval may miss the truth
LEAST = 1e-9  # no p-value is said to be smaller


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

    def of(self, units: Tensor) -> "Figures":
        """The same of some units, by their places."""
        return Figures(self.sums[:, units], self.sizes[:, units])


@dataclass(frozen=True)
class Level:
    """One kind of chance: the standard errors below and above, and their degrees of freedom."""

    below: float
    above: float
    df: int


@dataclass(frozen=True)
class Estimate:
    """A value and its kinds of chance."""

    value: float
    levels: tuple[Level, ...]

    @property
    def interval(self) -> Interval:
        below, above = (self._half(OUTSIDE, side) for side in ("below", "above"))
        return Interval(self.value, self.value - below, self.value + above)

    @property
    def p(self) -> float:
        """How far intervals may be narrowed until they leave zero out: the two-sided p-value.

        It is below 0.05 exactly where the interval of 95 % leaves zero out.
        """
        side = "below" if self.value > 0 else "above"
        if self.value == 0 or self._half(LEAST, side) <= abs(self.value):
            return LEAST if self.value else 1.0
        low, high = math.log(LEAST), 0.0
        for _ in range(40):
            middle = (low + high) / 2
            wide = self._half(math.exp(middle), side) > abs(self.value)
            low, high = (middle, high) if wide else (low, middle)
        return math.exp(high)

    def _half(self, outside: float, side: str) -> float:
        return math.hypot(*(quantile(outside, each.df) * getattr(each, side)
                            for each in self.levels))  # fmt: skip


def interval(*groups: Sequence[Figures]) -> Interval:
    """The mean over seeds of the sum of ratios, with its interval of 95 %; deterministic.

    Figures of one group are of the same units; each group's units are drawn by themselves, and the
    seeds are the same for all groups.

    >>> ones = torch.ones(3, 20, dtype=torch.float64)
    >>> interval([Figures(2 * ones, ones)])
    Interval(value=2.0, low=2.0, high=2.0)
    """
    return estimate(*groups).interval


def estimate(*groups: Sequence[Figures]) -> Estimate:
    """The same, before a probability is chosen."""
    ratios = sum(each.sums.sum(1) / each.sizes.sum(1) for group in groups for each in group)  # (S,)
    seeds, levels = len(ratios), []
    if seeds > 1:
        error = float(ratios.std()) / math.sqrt(seeds)
        levels.append(Level(error, error, seeds - 1))
    levels += [_units(group, number) for number, group in enumerate(groups)]
    return Estimate(float(ratios.mean()), tuple(levels))


def _units(group: Sequence[Figures], number: int) -> Level:
    """The chance of the units of one group."""
    seeds, units = group[0].sums.shape
    if units < 2:
        return Level(0.0, 0.0, 1)  # one unit does not tell how units differ
    without = torch.zeros(seeds, units, dtype=torch.float64)  # how the figure falls without a unit
    for each in group:
        total = each.sizes.sum(1, keepdim=True)
        rest = (total - each.sizes).clamp(min=1e-9)
        without += (each.sums - each.sums.sum(1, keepdim=True) / total * each.sizes) / rest
    variance = float(without.mean(0).square().sum()) * (units - 1) / units  # the jackknife's
    if variance == 0:
        return Level(0.0, 0.0, units - 1)
    both = float(without.var(0).sum()) / seeds * (units - 1) / units if seeds > 1 else 0.0
    error = math.sqrt(max(0.0, variance - both))
    drawn, least = _studentised(group, number), quantile(OUTSIDE, units - 1)
    ends = torch.tensor([OUTSIDE / 2, 1 - OUTSIDE / 2], dtype=torch.float64)
    low, high = drawn.quantile(ends).tolist() if len(drawn) else (-least, least)
    # A bootstrap-t takes the other end: estimates too high by much are what lies below.
    return Level(error * max(1, high / least), error * max(1, -low / least), units - 1)


def _studentised(group: Sequence[Figures], number: int) -> Tensor:
    """(draws,) Each draw's distance from the estimate, in standard errors of that draw."""
    units = group[0].sums.shape[1]
    counts, columns = unit_counts(units, number), []
    for each in group:
        total = each.sizes.sum(1, keepdim=True)
        sums, sizes = (each.sums / total).mean(0), (each.sizes / total).mean(0)  # (U,)
        columns += [sums - sums.sum() * sizes, sizes]  # centred, so that little is subtracted below
    data = torch.stack(columns, dim=1)  # (U, 2 for each head)
    drawn = counts @ data
    away, sizes = drawn[:, ::2] / drawn[:, 1::2], drawn[:, 1::2]  # (draws, heads)
    # A unit's residual is a sum over columns: the sum of its squares is a quadratic form.
    weights = torch.stack([1 / sizes, -away / sizes], dim=2).flatten(1)
    products = counts @ (data[:, :, None] * data[:, None, :]).flatten(1)
    forms = products.unflatten(1, (data.shape[1], data.shape[1]))
    squares = torch.einsum("di,dij,dj->d", weights, forms, weights) * units / (units - 1)
    distances = away.sum(1) / squares.clamp(min=0).sqrt()
    return distances[distances.isfinite()]  # a draw of one unit alone says nothing


@lru_cache(maxsize=8)
def unit_counts(units: int, number: int) -> Tensor:
    """(DRAWS, U) How often each unit was drawn."""
    picks = torch.randint(units, (DRAWS, units), generator=generator("units", units, number))
    counts = torch.zeros(DRAWS, units, dtype=torch.float64)
    return counts.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))


def holm(values: Sequence[float]) -> list[float]:
    """The p-values of a family, so adjusted that all of them together err in 5 % (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none falls below another
    that was smaller.

    >>> [round(each, 4) for each in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted


def negative(figures: Sequence[Figures]) -> list[Figures]:
    return [Figures(-each.sums, each.sizes) for each in figures]


def less(first: Sequence[Figures], second: Sequence[Figures]) -> list[Figures]:
    """The first without the second, on the same units and seeds."""
    return [
        Figures(one.sums - other.sums, one.sizes)
        for one, other in zip(first, second, strict=True)
    ]
