"""Rotary positions in fewer passes: the same values as ``minicpt.models.rotary.rotate``.

Written out, each half of a head is multiplied twice, and the two are put together in a copy. Here
both are written to their place. The backward pass is the rotation back, by the negative angle.

tests/test_fast.py holds this form equal to the definition.
"""

import torch
from torch import Tensor


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turned(x, cos, sin)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        cos, sin = ctx.saved_tensors
        return rotate(gradient, cos, -sin), None, None


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, cos.dtype))
    result = torch.empty_like(wide)
    first, second = wide.chunk(2, dim=-1)  # (B, H, T, K/2) each
    to_first, to_second = result.chunk(2, dim=-1)
    torch.mul(first, cos, out=to_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=to_second).addcmul_(first, sin)
    return result.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(B, H, T, K) from x (B, H, T, K), cosine and sine (B, 1, T, K/2)."""
    return _Rotate.apply(x, cos, sin)
