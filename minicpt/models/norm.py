"""The norm of T5 and of Llama's family (Zhang and Sennrich 2019, arXiv 1910.07467)."""

import torch
from torch import Tensor, nn

from minicpt.fast import norm as fast


class RMSNorm(nn.Module):
    """Divides by the root of the mean square, and multiplies by a weight: (..., D) -> (..., D).

    No mean is taken off, and there is no bias. Squares and mean are computed in float32 at least:
    bfloat16 keeps eight bits of them.
    """

    def __init__(self, width: int, epsilon: float = 1e-6, fused: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon, self.fused = epsilon, fused

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return fast.rms_norm(x, self.weight, self.epsilon)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return self.weight * wide.to(x.dtype)
