"""Clipping by the optimizer, in no pass of its own.

    definition    every gradient is divided by max(1, norm / most), then the optimizer steps
    here          the fused AdamW divides while it walks through the gradients anyway
"""

import torch


def clipped_step(optimizer: torch.optim.Optimizer, norm: torch.Tensor, most: float) -> None:
    """A step with the gradient, of this norm, shortened to ``most``; 0: as it is.

    The fused AdamW divides a gradient by ``grad_scale`` while it walks through it anyway. That is a
    float32: gradients of 64 bits get a pass of their own.
    """
    scale = ((norm + 1e-6) / most).clamp(min=1.0) if most else None
    if scale is not None and not (norm.dtype == torch.float32 and optimizer.defaults.get("fused")):
        for group in optimizer.param_groups:
            torch._foreach_div_([p.grad for p in group["params"] if p.grad is not None], scale)
        scale = None
    optimizer.grad_scale = scale
    optimizer.step()
