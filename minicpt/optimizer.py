"""AdamW and the learning-rate schedule.

Loshchilov & Hutter 2017, arXiv 1711.05101 (AdamW); arXiv 1608.03983 (cosine).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from minicpt.errors import InputError
from minicpt.settings import Checked, setting


@dataclass(frozen=True)
class Optimization(Checked):
    learning_rate: float = setting(1e-3, "the highest learning rate", above=0, most=10)
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine", "how the learning rate falls after the warm-up"
    )
    warmup: float = setting(0.05, "share of the steps in which the rate rises", least=0, most=1)
    final: float = setting(0.1, "where the rate ends, as a share of the highest", least=0, most=1)
    weight_decay: float = setting(
        0.1, "decay of the matrices (no biases, no norms)", least=0, most=100
    )
    beta1: float = setting(0.9, "AdamW: memory of the gradient", least=0, below=1)
    beta2: float = setting(0.99, "AdamW: memory of its square", least=0, below=1)
    epsilon: float = setting(1e-8, "AdamW: added to the denominator", above=0, most=1)
    clip: float = setting(1.0, "largest norm of the gradient; 0: any", least=0)


def learning_rate(step: int, steps: int, settings: Optimization) -> float:
    """The rate of step ``step`` (from 0) of ``steps``; a pure function, so there is no state.

    It rises linearly over the first ``warmup * steps`` steps, then falls to ``final`` times the
    highest at the last step (or stays, for ``constant``).
    """
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - warmup) / max(1, steps - 1 - warmup)  # 0 to 1
    left = (1 + math.cos(math.pi * done)) / 2 if settings.schedule == "cosine" else 1 - done
    return settings.learning_rate * (settings.final + (1 - settings.final) * left)


def make_optimizer(model: nn.Module, settings: Optimization) -> torch.optim.AdamW:
    """AdamW over the parameters that learn (tied ones once); only matrices decay."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {
            "params": [each for each in parameters if each.dim() >= 2],
            "weight_decay": settings.weight_decay,
        },
        {"params": [each for each in parameters if each.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Loads a state into a new optimizer of the same parameters and settings.

    Raises InputError, and changes nothing, where it is another optimizer's.
    """
    fresh = optimizer.state_dict()
    fields = {"step": (), "exp_avg": None, "exp_avg_sq": None}  # shape; None: the parameter's
    for found, own in zip(state["param_groups"], fresh["param_groups"], strict=True):
        if {**found, "lr": 0} != {**own, "lr": 0}:
            raise InputError("the optimizer's settings are not those of the run")
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    if not state["state"].keys() <= set(range(len(parameters))):
        raise InputError(f"the optimizer's state is not one of {len(parameters)} parameters")
    for index, moments in state["state"].items():
        for name, shape in fields.items():
            wanted = parameters[index].shape if shape is None else torch.Size(shape)
            value = moments[name]
            if value.shape != wanted or value.dtype != torch.float32 or len(moments) != len(fields):
                raise InputError(f"the optimizer's {name} of parameter {index} does not fit it")
    optimizer.load_state_dict(state)
