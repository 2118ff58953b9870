"""Dropout (Srivastava et al. 2014): in training, each number is set to 0 with a probability, and
the others are divided by the probability of staying, so that the mean stays.

On a CPU a third of a training step can go into torch's own, most of it into one random number
after another. Here each element takes 16 of the bits of a 64-bit draw, which costs a seventh. So a
probability is one of 65,536 steps: 0.1 becomes 6554 / 65536 = 0.100006, and what stays is divided
by what that leaves. Elsewhere, and in compiled models, torch's own is used, which is fused there.

The draws come from torch's generator.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 1 << 16  # what 16 bits tell apart
LOWEST = -(1 << 15)  # of int16
LANES = 4  # int16 in an int64


def dropout(x: Tensor, probability: float) -> Tensor:
    """``x`` with each number dropped with that probability."""
    if probability == 0:
        return x
    if not x.is_cpu or torch.compiler.is_compiling():
        return F.dropout(x, probability)
    dropped = round(probability * STEPS)
    # From the lowest int64 on, without an upper end: all 64 bits are random.
    draws = torch.empty(-(-x.numel() // LANES), dtype=torch.int64).random_(-(1 << 63), None)
    bits = draws.view(torch.int16)[: x.numel()].view(x.shape)
    stays = torch.ge(bits, LOWEST + dropped, out=torch.empty_like(x, requires_grad=False))
    return x * stays.mul_(STEPS / max(1, STEPS - dropped))


class Dropout(nn.Module):
    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.probability if self.training else 0.0)
