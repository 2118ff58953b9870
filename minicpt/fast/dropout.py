"""Dropout (Srivastava et al. 2014): in training, each number is set to 0 with a probability, and
the others are divided by the probability of staying, so that the mean stays.

On a CPU a tenth of a training step and more goes into torch's own, most of it into one random
number after another. Here an element takes 16 of the bits of a 64-bit draw: drawing costs a
seventh, and all of dropout about half. So the probability is one of 65,536 steps: 0.1 becomes
6554 / 65536 = 0.100006. Below 1/1024 and above 1023/1024 such a step is coarse, and an element
takes a draw of its own: a step is 2^-64 there. What stays is divided by the share that the step
really leaves, so the mean is exact in both. Elsewhere, and in compiled models, torch's own is used,
which is fused there.

The draws come from torch's generator.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COARSE = 1 / 1024  # from here to 1 - COARSE, 16 bits are within 1/128 of p and of 1 - p


def dropout(x: Tensor, probability: float) -> Tensor:
    """``x`` with each number dropped with that probability, which is 0 to 1; 1 drops all."""
    if probability == 0:
        return x
    if not x.is_cpu or torch.compiler.is_compiling() or not 0 < probability < 1:
        return F.dropout(x, probability)  # raises ValueError for what is no probability
    kind = torch.int16 if COARSE <= probability <= 1 - COARSE else torch.int64
    steps = 1 << 8 * kind.itemsize
    dropped = round(probability * steps)
    # From the lowest int64 on, without an upper end: all 64 bits are random.
    draws = torch.empty(-(-x.numel() * kind.itemsize // 8), dtype=torch.int64)
    draws.random_(-(1 << 63), None)
    bits = draws.view(kind)[: x.numel()].view(x.shape)
    lowest = torch.iinfo(kind).min
    stays = torch.ge(bits, lowest + dropped, out=torch.empty_like(x, requires_grad=False))
    return x * stays.mul_(steps / (steps - dropped))


class Dropout(nn.Module):
    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.probability if self.training else 0.0)
