"""torch's AdamW, ready sooner, and with clipping in no pass of its own: the same updates.

Its methods import ``torch._dynamo`` when they are first called, to tell ``torch.compile`` to leave
them alone. That takes as long as half of torch's own import. Only the model is ever compiled here,
so the methods stand here without it.

tests/test_training.py holds the updates equal to those of ``torch.optim.AdamW``.
"""

import inspect

import torch
from torch import Tensor


class AdamW(torch.optim.AdamW):
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def clipped_step(optimizer: torch.optim.Optimizer, norm: Tensor, most: float) -> None:
    """A step with the gradient, of this norm, shortened to ``most``; 0: as it is.

    The fused AdamW divides a gradient by ``grad_scale`` while it walks through it anyway. That is a
    float32: gradients of 64 bits, and other optimizers, get a pass of their own.
    """
    scale = ((norm + 1e-6) / most).clamp(min=1.0) if most else None
    if scale is not None and not (norm.dtype == torch.float32 and optimizer.defaults.get("fused")):
        for group in optimizer.param_groups:
            if gradients := [p.grad for p in group["params"] if p.grad is not None]:
                torch._foreach_div_(gradients, scale)
        scale = None
    optimizer.grad_scale = scale
    optimizer.step()
