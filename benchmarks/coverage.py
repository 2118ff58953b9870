"""How often do the comparison's intervals of 95 % miss a truth that is known?

Data are drawn with a known effect: a part of each seed, a part of each unit of text, and a part of
each seed on each unit. ``interval`` should miss the effect in 5 %. Beside it stand two others: the
percentile bootstrap over seeds and units, which it replaced, and the sum of the same variances with
Satterthwaite's degrees of freedom. ``width`` is the median half width, divided by 1.96 times the
true standard error (of ratios: that of equal sizes): 1.0 could be had if that error were known.

    seeds     the noise of seeds dominates
    units     the noise of units dominates
    both      both are as large
    each      what a seed does on one unit dominates
    skewed    as units, but few units have large losses (log-normal)
    ratios    units differ in size (log-normal, 0.8), and larger ones have larger losses
    pairs     two arms that share most noise; the difference
    texts     the sum of two texts' figures, as in gained less forgotten; both
"""

import argparse
import math
import sys
from collections.abc import Callable

import torch
from timing import check_writable, machine, run, table, write_json
from torch import Tensor
from tqdm import tqdm

from minicpt.common.randomness import generator
from minicpt.comparison.statistics import (
    OUTSIDE,
    Figures,
    Interval,
    estimate,
    interval,
    less,
    unit_counts,
)
from minicpt.comparison.student import quantile

SEEDS, UNITS = (2, 3, 5, 10), (20, 100)
# The standard deviations of seeds, of units, and of both together, as parts of the figure's.
NOISES = {
    "seeds": (1, 0.1, 0.1),
    "units": (0.1, 1, 0.1),
    "both": (1, 1, 0.1),
    "each": (0.1, 0.1, 1),
    "skewed": (0.1, 1, 0.1),
    "ratios": (0.3, 1, 0.3),
    "pairs": (1, 0.5, 0.3),
    "texts": (1, 0.7, 0.3),
}
TRIALS, QUICK = 1000, 40
EFFECT = 0.3
SPREAD = 0.8  # of the logarithms of sizes
DOUBLE = torch.float64


def drawn(case: str, seeds: int, units: int, number: int) -> tuple[list[list[Figures]], float]:
    """The groups of one trial, and the truth about their figure."""
    noise = generator("coverage", case, seeds, units, number)
    groups = []
    together, alone, mixed = NOISES[case]
    by_seed = together * math.sqrt(seeds) * normal(noise, seeds, 1)
    for _ in range(2 if case == "texts" else 1):
        own = normal(noise, 1, units)
        sizes = torch.ones(1, units, dtype=DOUBLE)
        if case == "skewed":
            own = (own.exp() - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)
        if case == "ratios":  # weighed by size, the mean logarithm is SPREAD ** 2
            logarithms = SPREAD * normal(noise, 1, units)
            sizes = logarithms.exp()
            own = (own + (logarithms - SPREAD**2) / SPREAD) / math.sqrt(2)
        cells = mixed * math.sqrt(seeds * units) * normal(noise, seeds, units)
        values = EFFECT + by_seed + alone * math.sqrt(units) * own + cells
        groups.append([Figures(values * sizes, sizes.expand(seeds, units))])
    if case == "pairs":
        shared = 10 * (normal(noise, seeds, 1) + normal(noise, 1, units))
        ((first,),) = groups
        one, other = Figures(first.sums + shared, first.sizes), Figures(0 * values + shared, sizes)
        groups = [less([one], [other])]
    return groups, EFFECT * len(groups)


def normal(noise: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=noise, dtype=DOUBLE)


def percentile(*groups: list[Figures]) -> Interval:
    """The interval that ``interval`` replaced: percentiles of a bootstrap over seeds and units."""
    seeds = len(groups[0][0].sums)
    chosen = torch.randint(seeds, (2000, seeds), generator=generator("seeds", seeds))
    value, figures = 0.0, torch.zeros(2000, dtype=DOUBLE)
    for number, group in enumerate(groups):
        counts = unit_counts(group[0].sums.shape[1], number)
        for each in group:
            value += float((each.sums.sum(1) / each.sizes.sum(1)).mean())
            ratios = (counts @ each.sums.t()) / (counts @ each.sizes.t())
            figures += ratios.gather(1, chosen).mean(1)
    low, high = figures.quantile(torch.tensor([0.025, 0.975], dtype=DOUBLE)).tolist()
    return Interval(value, low, high)


def satterthwaite(*groups: list[Figures]) -> Interval:
    """The same levels, their variances added, with degrees of freedom estimated from the data."""
    found = estimate(*groups)
    squares = [(max(each.below, each.above) ** 2, each.df) for each in found.levels]
    variance = sum(square for square, _ in squares)
    df = variance**2 / sum(square**2 / df for square, df in squares)
    half = quantile(OUTSIDE, int(df)) * math.sqrt(variance)
    return Interval(found.value, found.value - half, found.value + half)


METHODS = {"interval": interval, "percentile": percentile, "satterthwaite": satterthwaite}


def misses(
    method: Callable[..., Interval], case: str, seeds: int, units: int, trials: int
) -> tuple[float, float]:
    """The share of trials in which the truth lies outside, and the median half width."""
    missed, widths = 0, []
    for number in range(trials):
        groups, truth = drawn(case, seeds, units, number)
        found = method(*groups)
        missed += not found.low <= truth <= found.high
        widths.append((found.high - found.low) / 2)
    return missed / trials, float(torch.tensor(widths).median())


def error(share: float, trials: int) -> float:
    """The standard error of a share that was counted in so many trials."""
    return math.sqrt(share * (1 - share) / trials)


def measure(case: str, seeds: int, units: int, trials: int) -> dict:
    together, alone, mixed = NOISES[case]
    texts = 2 if case == "texts" else 1  # the seeds' part is the same for both
    true = math.sqrt((texts * together) ** 2 + texts * (alone**2 + mixed**2))
    row = {"case": case, "seeds": seeds, "units": units, "trials": trials}
    for name, method in METHODS.items():
        share, width = misses(method, case, seeds, units, trials)
        row[name] = {"missed": share, "error": error(share, trials), "width": width / 1.96 / true}
    return row


def report(rows: list[dict]) -> str:
    """A line for each case and number of units, with columns for the seeds."""
    headings = ["noise", "units", *(f"{seeds} seeds" for seeds in SEEDS)]
    blocks = []
    for name in METHODS:
        lines = []
        for case in NOISES:
            for units in UNITS:
                mine = [row for row in rows if (row["case"], row["units"]) == (case, units)]
                cells = [
                    f"{100 * row[name]['missed']:4.1f} % ({row[name]['width']:.2f})" for row in mine
                ]
                lines.append([case, str(units), *cells])
        blocks.append(f"{name}: missed (width)\n{table(headings, lines)}")
    trials = rows[0]["trials"]
    blocks.append(f"standard error of a share of 5 %: {100 * error(0.05, trials):.1f} points")
    worst = {name: max(rows, key=lambda row: row[name]["missed"]) for name in METHODS}
    blocks.append("\n".join(
        f"worst, {name}: {100 * row[name]['missed']:.1f} % ({row['case']}, {row['seeds']} seeds,"
        f" {row['units']} units)" for name, row in worst.items()
    ))  # fmt: skip
    return "\n\n".join(blocks)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} trials instead of {TRIALS}")
    parser.add_argument("--json", metavar="PATH", help="write the rows")
    options = parser.parse_args(words)
    check_writable(options.json)
    trials = QUICK if options.quick else TRIALS
    print(__doc__.splitlines()[0])
    print(machine() + "\n", flush=True)
    todo = [(case, seeds, units) for case in NOISES for units in UNITS for seeds in SEEDS]
    rows = [measure(*each, trials) for each in tqdm(todo, disable=None)]
    print(report(rows))
    if options.json:
        write_json(options.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
