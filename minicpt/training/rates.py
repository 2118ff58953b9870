"""Rates that differ between weights: some learn at a share of the rate, some begin later.

A remedy asks for them by the weights' names (its hook ``rates``); what several ask for is
multiplied, and the latest beginning counts. The optimizer's groups are split only then, so that a
run without such a remedy has the two groups of ``make_optimizer``. ``requires_grad`` stays as it
is, because DDP and FSDP2 read it once, when they wrap the model.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minicpt.remedies.base import Rate


def split_groups(optimizer: torch.optim.Optimizer, model: nn.Module, remedies: Sequence) -> None:
    """Gives the optimizer a group for each rate that the remedies ask for.

    What no remedy names, as the objective's parts beside the model, learns at the full rate.
    """
    asked = [found for each in remedies if (found := each.rates(model))]
    if not asked:
        return
    rates = {}  # by the parameter's identity: a tied weight has one
    for name, each in model.named_parameters():
        own = [found[name] for found in asked if name in found]
        factor = math.prod(rate.factor for rate in own)
        rates[id(each)] = Rate(factor, max((rate.begins for rate in own), default=0))
    groups = []
    for group in optimizer.param_groups:
        parameters: dict[Rate, list[nn.Parameter]] = {}
        for each in group["params"]:
            parameters.setdefault(rates.get(id(each), Rate()), []).append(each)
        for rate, own in parameters.items():
            groups.append({**group, "params": own, **rate._asdict()})
    optimizer.param_groups[:] = groups


def set_rates(optimizer: torch.optim.Optimizer, rate: float, step: int) -> None:
    """Sets each group's rate for step ``step`` (from 0): 0 while its weights wait."""
    for group in optimizer.param_groups:
        waits = step < group.get("begins", 0)
        group["lr"] = 0.0 if waits else rate * group.get("factor", 1.0)


def learning(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The gradients of what learns in this step. Those of waiting weights are dropped.

    AdamW skips a weight without a gradient: it neither moves nor decays, and gets no moments.
    """
    for group in optimizer.param_groups:
        if group.get("begins") and not group["lr"]:
            for each in group["params"]:
                each.grad = None
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    return [each.grad for each in parameters if each.grad is not None]
