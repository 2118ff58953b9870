"""Passages that are too short for an objective are skipped, and counted.

P passages.
"""

from torch import Tensor

from minicpt.common.errors import InputError
from minicpt.data.order import Plan


def without_short(plan: Plan, sizes: Tensor, least: int, why: str) -> Plan:
    """The plan without the passages whose size is below ``least``.

    sizes  (P,) int64, of each passage what ``least`` counts
    why    what needs passages of that size: "prefix-lm needs passages of 2 tokens"

    Their number stands in ``skipped``. Raises InputError where no passage is left.

    >>> import torch
    >>> plan = Plan(torch.tensor([[0, 2], [2, 3]]), lambda start, stop: "abc"[start:stop])
    >>> left = without_short(plan, plan.lengths, 2, "a test needs passages of 2 tokens")
    >>> left[:], left.skipped
    (['ab'], 1)
    """
    enough = sizes >= least
    if not enough.any():
        raise InputError(f"{why}, and all {len(plan)} are shorter; give longer texts")
    skipped = plan.skipped + int((~enough).sum())
    return Plan(plan.rows[enough], plan.cut, plan.lengths[enough], skipped)
