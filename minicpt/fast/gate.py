"""SiLU with a gate in fewer passes: the same values as ``F.silu(gate) * expanded``, and as the
whole feed-forward layer around it.

Gate and expanded states are the halves of one matrix, the result of one product. Both gradients are
written into the halves of one matrix too. Of all that is computed on the way, that one matrix is
kept: silu(gate) and the product with it are computed again in the backward pass.

The layer is computed some positions at a time: what one product writes lies in the processor's
cache when the next operation reads it.

tests/test_fast.py holds these forms equal to the definition.

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


class _GatedLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, expand: Tensor, contract: Tensor) -> Tensor:
        both, result = x.new_empty(len(x), len(expand)), x.new_empty(len(x), len(contract))
        for rows, some, to in zip(x.split(ROWS), both.split(ROWS), result.split(ROWS), strict=True):
            gate, expanded = torch.mm(rows, expand.t(), out=some).chunk(2, dim=-1)
            torch.mm(F.silu(gate).mul_(expanded), contract.t(), out=to)
        ctx.save_for_backward(x, expand, contract, both)
        return result

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, expand, contract, both = ctx.saved_tensors
        asks_x, asks_expand, asks_contract = ctx.needs_input_grad
        for_x = torch.empty_like(x) if asks_x else None
        product = x.new_empty(len(x), contract.size(1)) if asks_contract else None
        for_both = torch.empty_like(both) if asks_expand else torch.empty_like(both[:ROWS])
        for at in range(0, len(x), ROWS):
            part = slice(at, at + ROWS)
            some, rows = gradient[part], both[part]
            to = for_both[part] if asks_expand else for_both[: len(rows)]
            write_gradient(some @ contract, rows, to, product[part] if asks_contract else None)
            if asks_x:
                torch.mm(to, expand, out=for_x[part])
        return (
            for_x,
            for_both.t() @ x if asks_expand else None,
            gradient.t() @ product if asks_contract else None,
        )


def write_gradient(
    gradient: Tensor, both: Tensor, result: Tensor, product: Tensor | None = None
) -> None:
    """Into ``result`` (..., 2 F), from the gradient with respect to the product (..., F).

    product  (..., F): where the product itself is written, if it is wanted
    """
    gate, expanded = both.chunk(2, dim=-1)
    for_gate, for_expanded = result.chunk(2, dim=-1)
    activated = F.silu(gate)
    torch.mul(activated, gradient, out=for_expanded)
    if product is not None:
        torch.mul(activated, expanded, out=product)
    torch.ops.aten.silu_backward.grad_input(gradient * expanded, gate, grad_input=for_gate)


def gated_silu(both: Tensor) -> Tensor:
    """(..., F) from gate and expanded states side by side, (..., 2 F)."""
    return _GatedSiLU.apply(both)


def gated_layer(x: Tensor, expand: Tensor, contract: Tensor) -> Tensor:
    """``gated_silu(x @ expand.t()) @ contract.t()``, (..., D).

    x (..., D), expand (2 F, D), contract (D, F), all of one type. A matrix that is frozen costs no
    product in the backward pass.
    """
    return _GatedLayer.apply(x.flatten(0, -2), expand, contract).unflatten(0, x.shape[:-1])
