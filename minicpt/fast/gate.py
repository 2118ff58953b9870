"""A feed-forward layer of SiLU with a gate, in fewer passes: the same values as

    gate, expanded = F.linear(x, expand).chunk(2, dim=-1)
    F.linear(F.silu(gate) * expanded, contract)

Gate and expanded states are the halves of one matrix, the result of one product. It is all that is
kept: silu(gate) and its product with the expanded states are computed again in the backward pass.
Both gradients are written into the halves of one matrix too.

tests/test_fast.py holds this form equal to the definition.

N positions, D width, F width inside the feed-forward layer.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minicpt.fast.precision import product_dtype


class _GatedLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, expand: Tensor, contract: Tensor) -> Tensor:
        both = x @ expand.t()  # (N, 2 F)
        ctx.save_for_backward(x, expand, contract, both)
        gate, expanded = both.chunk(2, dim=-1)
        return F.silu(gate).mul_(expanded) @ contract.t()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, expand, contract, both = ctx.saved_tensors
        gate, expanded = both.chunk(2, dim=-1)
        for_both = torch.empty_like(both)
        for_gate, for_expanded = for_both.chunk(2, dim=-1)
        product, for_product = F.silu(gate), gradient @ contract  # (N, F) each
        torch.mul(product, for_product, out=for_expanded)
        product.mul_(expanded), for_product.mul_(expanded)  # what is at hand is in the caches
        torch.ops.aten.silu_backward.grad_input(for_product, gate, grad_input=for_gate)
        forms = lambda: for_both @ expand, lambda: for_both.t() @ x, lambda: gradient.t() @ product
        asked = zip(forms, ctx.needs_input_grad, strict=True)
        return tuple(form() if needed else None for form, needed in asked)


def gated_layer(x: Tensor, expand: Tensor, contract: Tensor) -> Tensor:
    """The layer's (..., D) from x (..., D), expand (2 F, D) and contract (D, F).

    A matrix that is frozen costs no product in the backward pass.
    """
    dtype = product_dtype(x)
    inputs = (each.to(dtype) for each in (x.flatten(0, -2), expand, contract))
    return _GatedLayer.apply(*inputs).unflatten(0, x.shape[:-1])
