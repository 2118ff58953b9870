"""AdamW and the learning-rate schedule.

Loshchilov & Hutter 2017, arXiv 1711.05101 (AdamW); arXiv 1608.03983 (cosine); Hu et al. 2024,
arXiv 2404.06395 (warm-up, stable, decay). To continue a model, ``cosine`` and ``linear`` warm the
rate up again and let it fall again (Ibrahim et al. 2024, arXiv 2403.08763, who call a schedule with
a stable part "infinite": it can be continued from there, at the same rate and without a warm-up).
"""

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.fast.optimizer import AdamW
from minicpt.training.usual_rate import RULE


@dataclass(frozen=True)
class Optimization(Checked):
    learning_rate: float | None = setting(
        None, f"the highest learning rate (default: {RULE})", above=0, most=10
    )
    schedule: Literal["cosine", "linear", "constant", "warmup-stable-decay"] = setting(
        "cosine",
        "how the learning rate falls after the warm-up; the last two can be made longer (resume"
        " --steps), or continued at the same rate (--init DIR --warmup 0 and that --learning-rate)",
    )
    warmup: float = setting(0.05, "share of the steps in which the rate rises", least=0, most=1)
    decay: float = setting(
        0.2, "warmup-stable-decay: share of the steps, the last, in which it falls", least=0, most=1
    )
    min_lr_ratio: float = setting(
        0.1, "where the rate ends, as a share of the highest", least=0, most=1
    )
    weight_decay: float = setting(
        0.1, "decay of the matrices (no biases, no norms)", least=0, most=100
    )
    beta1: float = setting(0.9, "AdamW: memory of the gradient", least=0, below=1)
    beta2: float = setting(0.99, "AdamW: memory of its square", least=0, below=1)
    epsilon: float = setting(1e-8, "AdamW: added to the denominator", above=0, most=1)
    max_grad_norm: float = setting(1.0, "largest norm of the gradient; 0: any", least=0)

    def __post_init__(self):
        super().__post_init__()
        if self.schedule == "warmup-stable-decay" and self.warmup + self.decay > 1:
            raise InputError(
                f"--warmup {self.warmup} and --decay {self.decay} exceed 1 together; lower one"
            )


def learning_rate(step: int, steps: int, settings: Optimization) -> float:
    """The rate of step ``step`` (from 0) of ``steps``; a pure function, so there is no state.

    It rises linearly over the first ``warmup * steps`` steps, then falls to ``min_lr_ratio`` times
    the highest at the last step: from then on, or (``warmup-stable-decay``, linearly) over the last
    ``decay * steps`` steps, or never (``constant``).
    """
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    top = warmup  # the last step at the highest rate
    if settings.schedule == "warmup-stable-decay":
        top = max(warmup, steps - 1 - round(settings.decay * steps))
    done = max(0, step - top) / max(1, steps - 1 - top)  # 0 to 1
    left = (1 + math.cos(math.pi * done)) / 2 if settings.schedule == "cosine" else 1 - done
    return settings.learning_rate * (settings.min_lr_ratio + (1 - settings.min_lr_ratio) * left)


def make_optimizer(model: nn.Module, settings: Optimization) -> AdamW:
    """AdamW over the parameters that learn (tied ones once); only matrices decay."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    matrices = [each for each in parameters if each.dim() >= 2]
    vectors = [each for each in parameters if each.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return AdamW(
        groups,
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )
