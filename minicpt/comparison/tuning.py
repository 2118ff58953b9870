"""The learning rate of each objective, chosen for all of them by the same rule and budget.

From the usual base of a role and with seed 0, each objective is continued once with each of RATES.
The rate is taken after which its own loss on the new text is lowest, on one half of the held-out
units: a fixed half, which does not depend on the model or the seed. Remedies take the rate of their
objective, and so do continuations of other bases.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch

from minicpt.common.randomness import generator
from minicpt.comparison.parts import Part

RATES = (0.0003, 0.001, 0.003)


def trials(words: Iterable[tuple[str, str]]) -> list[Part]:
    """The continuations that the rates are chosen by; ``words`` are roles with objectives."""
    found: dict[Part, None] = {}
    for role, word in words:
        for rate in RATES:
            part = Part(role, 0, word, f"learning-rate={rate:g}")
            found |= {part.from_base: None, part: None}
    return list(found)


def chosen(results: Mapping[Part, dict], parts: Sequence[Part]) -> dict[tuple[str, str], float]:
    """The rate of each role and objective, from the results of the trials."""
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for part in parts:
        if part.arm is None:
            continue
        rate = float(part.arm.partition("=")[2])
        loss = half_loss(results[part]["losses"][part.objective]["new"])
        key = part.role, part.objective
        best[key] = min(best.get(key, (loss, rate)), (loss, rate))
    return {key: rate for key, (_, rate) in best.items()}


def half_loss(measured: dict) -> float:
    """A loss on the half of the units by which something is chosen."""
    units = len(measured["units"])
    half = torch.randperm(units, generator=generator("choosing", units))[: max(1, units // 2)]
    total = 0.0
    for sums, sizes in measured["heads"].values():
        picked = [(sums[place], sizes[place]) for place in half.tolist()]
        total += sum(each for each, _ in picked) / max(1, sum(size for _, size in picked))
    return total
