"""SiLU with a gate in fewer passes: the same values as ``F.silu(gate) * expanded``.

Gate and expanded states are the halves of one matrix, the result of one product. Both gradients are
written into the halves of one matrix too, and silu(gate) is not kept but computed again.

tests/test_fast.py holds this form equal to the definition.

Where the matrix behind it is frozen, nobody needs their product but that matrix: then both are
computed a few positions at a time. The product is never there as a whole, and stays in the
processor's cache.

N positions, D width, F width inside the feed-forward layer.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 256  # positions that are computed at a time


class _GatedSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        gate, expanded = both.chunk(2, dim=-1)
        return F.silu(gate).mul_(expanded)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (both,) = ctx.saved_tensors
        result = torch.empty_like(both)
        write_gradient(gradient, both, result)
        return result


class _GatedSiLUFrozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx, both: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(both, weight)
        result = both.new_empty(len(both), len(weight))
        for some, rows in zip(result.split(ROWS), both.split(ROWS), strict=True):
            gate, expanded = rows.chunk(2, dim=-1)
            torch.mm(F.silu(gate).mul_(expanded), weight.t(), out=some)
        return result

    @staticmethod
    def backward(ctx, gradient: Tensor):
        both, weight = ctx.saved_tensors
        result = torch.empty_like(both)
        parts = zip(gradient.split(ROWS), both.split(ROWS), result.split(ROWS), strict=True)
        for some, rows, to in parts:
            write_gradient(some @ weight, rows, to)
        return result, None


def write_gradient(gradient: Tensor, both: Tensor, result: Tensor) -> None:
    """Into ``result`` (..., 2 F), from the gradient with respect to the product (..., F)."""
    gate, expanded = both.chunk(2, dim=-1)
    for_gate, for_expanded = result.chunk(2, dim=-1)
    torch.mul(F.silu(gate), gradient, out=for_expanded)
    torch.ops.aten.silu_backward.grad_input(gradient * expanded, gate, grad_input=for_gate)


def gated_silu(both: Tensor) -> Tensor:
    """(..., F) from gate and expanded states side by side, (..., 2 F)."""
    return _GatedSiLU.apply(both)


def gated_silu_frozen(both: Tensor, weight: Tensor) -> Tensor:
    """``gated_silu(both) @ weight.t()``, (..., D), with a weight (D, F) that does not learn."""
    return _GatedSiLUFrozen.apply(both.flatten(0, -2), weight).unflatten(0, both.shape[:-1])
