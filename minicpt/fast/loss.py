"""Head and cross-entropy in one sweep: the same values as ``minicpt.loss.head_losses``.

The logits of all targets are never held. A few rows of them are computed in a buffer, and the next
rows use the same buffer. While a row's logits are there, its part of the gradients (of hidden
states, weight and bias) is added up. So memory does not grow with N times V.

tests/test_loss.py holds this form equal to the definition.

D width, V classes of the head, N targets.
"""

import functools
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.fast.precision import product_dtype

# Logits that are held at once: so many, 64 MiB in float32, or as many rows of them. With fewer rows
# the products are slow: each walks through all of the head's matrix, and of its gradient. A matrix
# without a gradient does with half of them. benchmarks/README.md has the times.
LOGITS, ROWS = 1 << 24, 512


def head_losses(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of each hidden state (N, D) with its target (N,), in nats: (N,)."""

    def cross_entropy(logits: Tensor, rows: slice, again: Callable[[], Tensor]) -> Tensor:
        place = targets[rows, None]  # (n, 1)
        # One pass in place of two: log-softmax, and exp for the gradient.
        torch.softmax(logits, dim=1, out=logits)
        losses = -logits.gather(1, place).log_()
        if (losses > -math.log(torch.finfo(losses.dtype).tiny)).any():
            # A probability with few digits, or 0: its logarithm is not what the logits give.
            losses = -torch.log_softmax(again(), dim=1).gather(1, place)
        # The gradient: the probabilities, less 1 at the target.
        logits.scatter_add_(1, place, torch.full_like(losses, -1.0))
        return losses[:, 0]

    return swept_losses(head, hidden, cross_entropy)


def losses_with_terms(
    head: nn.Module, hidden: Tensor, targets: Tensor, terms: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """``minicpt.terms.losses_with_terms``: the same in one sweep.

    terms  name -> its strength: "z-loss", "label-smoothing"
    """
    square, share = terms.get("z-loss", 0.0), terms.get("label-smoothing", 0.0)
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    added = {name: hidden.new_empty(len(hidden), dtype=dtype) for name in terms}
    bias = targets.new_zeros(1) if head.bias is None else head.bias.detach()
    never = (bias == -math.inf).nonzero()[:, 0]  # the classes that get no share
    classes = len(head.weight) - len(never)

    def with_terms(logits: Tensor, rows: slice, again: Callable[[], Tensor]) -> Tensor:
        place = targets[rows, None]  # (n, 1)
        highest = logits.amax(dim=1, keepdim=True)
        picked = logits.gather(1, place) - highest
        even = picked
        if share:
            even = logits.index_fill_(1, never, 0).sum(dim=1, keepdim=True) / classes - highest
            logits.index_fill_(1, never, -math.inf)
        total = logits.sub_(highest).exp_().sum(dim=1, keepdim=True)
        losses, log = total.log() - picked, total.log() + highest
        # Of log Z the gradient is p, the probabilities; so that of its square is 2 p log Z.
        logits.mul_((1 + 2 * square * log) / total)
        if share:
            logits.sub_(share / classes).index_fill_(1, never, 0)
        logits.scatter_add_(1, place, torch.full_like(total, share - 1))
        values = {"z-loss": square * log.square(), "label-smoothing": share * (picked - even)}
        for name in terms:
            added[name][rows] = values[name][:, 0]
            losses = losses + values[name]
        return losses[:, 0]

    return swept_losses(head, hidden, with_terms), added


def swept_losses(
    head: nn.Module, hidden: Tensor, losses_of: Callable[[Tensor, slice, Callable], Tensor]
) -> Tensor:
    """A loss of each row of logits, (N,), from hidden states (N, D), some of them at a time.

    losses_of  called with some rows of logits (n, V), with the slice of the N rows that they are,
               and with a function that computes the logits again. It returns their losses (n,) and
               overwrites the logits with the gradient of each loss with respect to them.
    """
    weight, bias = head.weight, head.bias
    if hasattr(head, "transform"):  # a plain nn.Linear has nothing before its projection
        hidden = head.transform(hidden)
    learns = tuple(
        torch.is_grad_enabled() and each is not None and each.requires_grad
        for each in (hidden, weight, bias)
    )
    return _Sweep.apply(hidden, weight, bias, losses_of, product_dtype(hidden), learns)


class _Sweep(torch.autograd.Function):
    """Computes the gradient of the sum of the losses with the losses themselves.

    The backward pass gets one factor for each loss. Nearly always they are the same (1 / count):
    then the gradient that is there is multiplied by it. With different factors (weighted targets),
    or in a second backward pass, the sweep is computed again.

    The gradient has no graph of its own, so a second derivative through it would be zero. Raises
    InputError where one is prepared (``create_graph=True``).
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, losses_of, dtype, learns) -> Tensor:
        ctx.save_for_backward(hidden, weight, bias)
        ctx.losses_of, ctx.dtype = losses_of, dtype
        losses, *ctx.gradients = sweep(hidden, weight, bias, losses_of, dtype, learns)
        return losses

    @staticmethod
    def backward(ctx, factors: Tensor):
        # Not ``once_differentiable``: it is silent where the factors are constants, as of a mean.
        if torch.is_grad_enabled():
            raise InputError(
                "create_graph=True: the fused loss and the KL term have no second derivative; for"
                " the loss use the plain form: fused=False, or --no-fused-loss"
            )
        learns = ctx.needs_input_grad[:3]
        again = functools.partial(sweep, *ctx.saved_tensors, ctx.losses_of, ctx.dtype, learns)
        gradients, ctx.gradients = ctx.gradients, None
        if len(factors) and bool((factors == factors[0]).all()):
            gradients = gradients or again()[1:]
            gradients = [each if each is None else each.mul_(factors[0]) for each in gradients]
        else:
            gradients = again(factors)[1:]
        return *gradients, None, None, None


def rows_at_once(count: int, classes: int, learns: bool = True) -> int:
    """Rows of a sweep's buffer: all parts of ``count`` rows have about as many.

    learns  whether the head's matrix gets a gradient
    """
    most = max(ROWS, LOGITS // classes)
    most = most if learns else -(-most // 2)
    parts = max(1, min(count, math.ceil(count / most)))
    return math.ceil(count / parts)


def held_at_once(count: int, classes: int, learns: bool = True) -> int:
    """How many logits a sweep over ``count`` rows holds."""
    return rows_at_once(count, classes, learns) * classes if classes else 0


@torch.no_grad()
def sweep(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    losses_of: Callable[[Tensor, slice, Callable], Tensor],
    dtype: torch.dtype,
    learns: tuple[bool, bool, bool],
    factors: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The losses (N,) and the gradients of hidden states, weight and bias, those that are wanted.

    learns   which of the three gradients are wanted; a frozen weight costs no product
    dtype    of the matrix products; losses and derivatives are at least float32
    factors  (N,), what the gradient of each loss is multiplied by; None: 1
    """
    count, classes = len(hidden), len(weight)
    rows = rows_at_once(count, classes, learns[1])
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    logits = hidden.new_empty(rows, classes)
    losses = hidden.new_empty(count, dtype=torch.promote_types(dtype, torch.float32))
    for_hidden = torch.empty_like(hidden) if learns[0] else None
    for_weight = torch.empty_like(weight, dtype=losses.dtype) if learns[1] else None
    if for_weight is not None and (not count or dtype != for_weight.dtype):
        for_weight.zero_()
    for_bias = losses.new_zeros(classes) if learns[2] else None

    def multiply(part: slice, out: Tensor | None = None) -> Tensor:
        """The logits of some rows, in the type of the losses."""
        if bias is None:
            found = torch.mm(hidden[part], weight.t(), out=out)
        else:
            found = torch.addmm(bias.to(dtype), hidden[part], weight.t(), out=out)
        return found.to(losses.dtype)  # itself, but for half precision

    for begin in range(0, count, max(1, rows)):
        part = slice(begin, min(begin + rows, count))
        derivatives = multiply(part, logits[: part.stop - begin])
        losses[part] = losses_of(derivatives, part, functools.partial(multiply, part))
        if not any(learns):
            continue
        if factors is not None:
            derivatives *= factors[part, None]
        if for_bias is not None:
            for_bias += derivatives.sum(dim=0)
        products = derivatives.to(dtype)
        if for_hidden is not None:
            torch.mm(products, weight, out=for_hidden[part])
        if for_weight is None:
            continue
        if dtype == for_weight.dtype:
            for_weight.addmm_(products.t(), hidden[part], beta=int(begin > 0))
        else:  # added up in float32
            for_weight += products.t() @ hidden[part]
    return losses, for_hidden, for_weight, for_bias
