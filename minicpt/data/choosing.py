"""Some passages of a plan that stand for all of it: for evaluations, and for one to look at.

A plan's first passages would be all of one length: see ``order.group_by_length``.
"""

import torch

from minicpt.data.order import Plan


def spread(plan: Plan, count: int) -> list[int]:
    """``count`` places evenly spread over the plan, and so over its lengths; the shortest first.

    In this order batches are padded little.
    """
    places = torch.arange(count) * len(plan) // count
    return places[plan.lengths[places].argsort(stable=True)].tolist()


def typical(plan: Plan):
    """A passage of middling length."""
    return plan[int(plan.lengths.argsort(stable=True)[len(plan) // 2])]
