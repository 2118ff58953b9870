"""A frozen matrix and a thin product beside it, in fewer passes: the same values as
``minicpt.remedies.lora``.

Written out, autograd adds two gradients with respect to the input, and keeps a result for each
factor. Here what the thin product gives is added while it is multiplied, in both directions.

tests/test_fast.py holds this form equal to the definition.

N positions, R columns of the thin matrices, (out, in) the shape of the frozen one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minicpt.fast.precision import product_dtype


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, first, second, scale) -> Tensor:
        thin = x @ first.t()  # (N, R)
        ctx.save_for_backward(x, weight, first, second, thin)
        ctx.scale = scale
        return F.linear(x, weight, bias).addmm_(thin, second, alpha=scale)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight, first, second, thin = ctx.saved_tensors
        for_x = for_bias = None
        for_thin = (gradient @ second.t()).mul_(ctx.scale)  # (N, R)
        if ctx.needs_input_grad[0]:
            for_x = (gradient @ weight).addmm_(for_thin, first)
        if ctx.needs_input_grad[2]:
            for_bias = gradient.sum(dim=0)
        for_second = (thin.t() @ gradient).mul_(ctx.scale)
        return for_x, None, for_bias, for_thin.t() @ x, for_second, None


def low_rank(
    x: Tensor, weight: Tensor, bias: Tensor | None, first: Tensor, second: Tensor, scale: float
) -> Tensor:
    """``F.linear(x, weight, bias) + scale * (x @ first.t() @ second)``, (N, out).

    x (N, in), weight (out, in), first (R, in), second (R, out). The weight does not learn.
    """
    inputs = (x, weight, bias, first, second)
    dtype = product_dtype(x)
    return _LowRank.apply(*(each if each is None else each.to(dtype) for each in inputs), scale)
