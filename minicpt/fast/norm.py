"""The RMS norm in fewer passes: the same values as ``minicpt.models.norm``.

Written out, autograd keeps and walks through an intermediate result for each operation. Here the
root of the mean square is kept, one number a position. With s = x / rms(x), y = w s and g the
gradient with respect to y, that with respect to x is

    (w g - s mean(w g s)) / rms(x)

torch computes (w g - mean(w g) - s mean(w g s)) / rms(x) in one pass: the gradient of a layer norm,
here with the mean of x taken as 0. Its second term is added again.

tests/test_fast.py holds this form equal to the definition.

N positions, D width.
"""

import torch
from torch import Tensor

from minicpt.common.errors import InputError


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.size(-1)).add_(epsilon).rsqrt_()  # (N, 1)
        ctx.save_for_backward(x, weight, inverse)
        scaled = (wide * inverse).to(x.dtype)
        if scaled.dtype == torch.result_type(scaled, weight):
            return scaled.mul_(weight)
        return scaled * weight

    @staticmethod
    def backward(ctx, gradient: Tensor):
        if torch.is_grad_enabled():  # ``inverse`` would be a constant in it
            raise InputError("create_graph=True: the fused norm has none; build with fused=False")
        x, weight, inverse = ctx.saved_tensors
        dtype = inverse.dtype
        wide = [each.to(dtype) for each in (gradient, x, weight)]
        asked = [*ctx.needs_input_grad[:2], False]
        for_x, for_weight, _ = torch.ops.aten.native_layer_norm_backward(
            wide[0], wide[1], weight.shape, torch.zeros_like(inverse), inverse, wide[2], None, asked
        )
        if for_x is not None:
            mean = (wide[0] @ wide[2])[..., None] / x.size(-1)
            for_x = for_x.addcmul_(mean, inverse).to(x.dtype)
        return for_x, None if for_weight is None else for_weight.to(weight.dtype), None


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """(..., D) from x (..., D) and weight (D,)."""
    return _RMSNorm.apply(x, weight, epsilon)
