"""The loss: cross-entropy at every position that has a target, from one forward pass.

    hidden (B, T, D) - keep positions with a target -> (N, D) - head -> logits (N, V) -> sum, count

Every objective uses this one function; what differs between objectives is only what the model
reads and which positions have a target. Beside it stands the computation that it replaces: one
target at a time, the model run on just what that target's position may see. Both give the same
numbers when the model keeps to what the objective declares (``minicpt verify`` proves it).

Head and cross-entropy exist twice: written out, which is the definition, and fused, which never
holds the logits of all targets. The test that holds them together is tests/test_loss.py.

Leaves out: the shift by one (made with the batch), and the model (reached through ``forward`` and
its heads alone).

B batch, T positions of the targets' stream, D width, V classes of the head, N targets.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch
from minicpt.common.errors import InputError

LOGITS = 1 << 22  # that the fused form holds at once: 16 MiB in float32


@dataclass(frozen=True)
class Loss:
    """A sum of cross-entropies in nats and the number of targets it runs over.

    Losses add, as sums and counts; the one division is ``mean``. Averaging means instead would
    weigh a target by how few others share its batch: (x1/n1 + x2/n2)/2 is not (x1+x2)/(n1+n2).

    >>> (Loss(torch.tensor(6.0), 3) + Loss(torch.tensor(2.0), 1)).mean
    tensor(2.)
    """

    sum: Tensor
    count: int

    def __add__(self, other: "Loss") -> "Loss":
        return Loss(self.sum + other.sum, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        """Nats per target; 0 where there is no target."""
        return self.sum / max(self.count, 1)

    def detach(self) -> "Loss":
        return Loss(self.sum.detach(), self.count)


@dataclass(frozen=True)
class TargetLosses:
    """Each target's own loss in nats, and where the target stands; all of shape (N,)."""

    losses: Tensor
    targets: Tensor
    rows: Tensor
    positions: Tensor

    def total(self) -> Loss:
        return Loss(self.losses.sum(), len(self.losses))


def target_losses(
    model: nn.Module, batch: Batch, fused: bool = True, hidden: Tensor | None = None
) -> dict[str, TargetLosses]:
    """Each target's cross-entropy by head, from one forward pass over the whole sequence.

    hidden  (B, T, D), the result of that pass where the caller has made it already
    """
    hidden = model(**batch.inputs) if hidden is None else hidden
    result = {}
    for name, target in batch.targets.items():
        places = places_of(target)  # (N,)
        chosen = target.flatten()[places]  # (N,)
        kept = hidden.flatten(0, 1).index_select(0, places)  # (B, T, D) -> (N, D)
        losses = head_losses(model.heads[name], kept, chosen, fused)  # (N,)
        rows = places.div(target.shape[1], rounding_mode="floor")
        result[name] = TargetLosses(losses, chosen, rows, places % target.shape[1])
    return result


def places_of(target: Tensor) -> Tensor:
    """Where the flattened ``target`` (B, T) has targets: (N,)."""
    return (target != IGNORE).flatten().nonzero()[:, 0]


def whole_sequence_loss(
    model: nn.Module, batch: Batch, fused: bool = True, hidden: Tensor | None = None
) -> dict[str, Loss]:
    """The batch's loss by head, from one forward pass over the whole sequence."""
    found = target_losses(model, batch, fused, hidden)
    return {name: each.total() for name, each in found.items()}


def head_losses(head: nn.Module, hidden: Tensor, targets: Tensor, fused: bool = True) -> Tensor:
    """The cross-entropy of each hidden state (N, D) with its target (N,), in nats: (N,)."""
    if not fused:
        logits = head(hidden)  # (N, D) -> (N, V)
        logits = logits.float() if logits.dtype.itemsize < 4 else logits
        return F.cross_entropy(logits, targets, reduction="none")

    def cross_entropy(logits: Tensor, rows: slice) -> Tensor:
        place = targets[rows, None]  # (n, 1)
        highest = logits.amax(dim=1, keepdim=True)
        picked = logits.gather(1, place) - highest
        total = logits.sub_(highest).exp_().sum(dim=1, keepdim=True)
        # The gradient: the probabilities, less 1 at the target.
        logits.div_(total).scatter_add_(1, place, torch.full_like(total, -1.0))
        return (total.log() - picked)[:, 0]

    return swept_losses(head, hidden, cross_entropy)


def objective_loss(losses: Mapping[str, Loss], counts: Mapping[str, int]) -> Tensor:
    """What is minimised: the sum over heads of sum/count, in nats.

    ``counts`` are those of the whole step, so that the parts into which a step is split add up to
    the same number however it is split.
    """
    return sum(Loss(loss.sum, counts[name]).mean for name, loss in losses.items())


# --- the fused form: head, loss and gradient in one sweep over a few rows at a time ----------


def swept_losses(
    head: nn.Module, hidden: Tensor, losses_of: Callable[[Tensor, slice], Tensor]
) -> Tensor:
    """A loss of each row of logits, (N,), from hidden states (N, D), ``LOGITS`` logits at a time.

    losses_of  called with some rows of logits (n, V) and which of the N they are. It returns
               their losses (n,) and leaves in the logits' place the derivatives of these by them.

    The logits of a few rows are made in a buffer that the next rows use again, and what the
    backward pass needs of them, the gradients of hidden states, weight and bias, is added up while
    they are there. So memory does not grow with N times V, and little of it is ever touched.
    """
    weight, bias = head.weight, head.bias
    if hasattr(head, "transform"):  # a plain nn.Linear has nothing before its projection
        hidden = head.transform(hidden)
    learns = tuple(
        torch.is_grad_enabled() and each is not None and each.requires_grad
        for each in (hidden, weight, bias)
    )
    kind = hidden.device.type
    autocast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if autocast else hidden.dtype
    return _Sweep.apply(hidden, weight, bias, losses_of, dtype, learns)


class _Sweep(torch.autograd.Function):
    """Computes the gradient of the sum of the losses with the losses themselves.

    What comes back is nearly always the same number for every loss (1 / count): then that
    gradient is multiplied by it and handed over. With other numbers, or when a backward pass is
    asked for again, the sweep is made again.

    The gradient carries no graph, so a second derivative through it would be zero. Raises
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


@torch.no_grad()
def sweep(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    losses_of: Callable[[Tensor, slice], Tensor],
    dtype: torch.dtype,
    learns: tuple[bool, bool, bool],
    factors: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """The losses (N,) and the gradients of hidden states, weight and bias, those that are wanted.

    learns   which of the three; a weight that is frozen costs no product
    dtype    of the matrix products; losses and derivatives are at least float32
    factors  (N,), what the gradient of each loss is multiplied by; None: 1
    """
    count, classes = len(hidden), len(weight)
    parts = max(1, min(count, math.ceil(count * classes / LOGITS)))
    rows = math.ceil(count / parts)
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    logits = hidden.new_empty(rows, classes)
    losses = hidden.new_empty(count, dtype=torch.promote_types(dtype, torch.float32))
    for_hidden = torch.empty_like(hidden) if learns[0] else None
    for_weight = losses.new_zeros(weight.shape) if learns[1] else None
    for_bias = losses.new_zeros(classes) if learns[2] else None
    for begin in range(0, count, max(1, rows)):
        part = slice(begin, min(begin + rows, count))
        some = logits[: part.stop - begin]
        if bias is None:
            torch.mm(hidden[part], weight.t(), out=some)
        else:
            torch.addmm(bias.to(dtype), hidden[part], weight.t(), out=some)
        derivatives = some.to(losses.dtype)  # itself, but for half precision
        losses[part] = losses_of(derivatives, part)
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
            for_weight.addmm_(products.t(), hidden[part])
        else:  # added up in float32
            for_weight += products.t() @ hidden[part]
    return losses, for_hidden, for_weight, for_bias


# --- the computation it replaces -------------------------------------------------------------


def per_token_losses(
    model: nn.Module, batch: Batch, visibility: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, TargetLosses]:
    """Each target's cross-entropy, the model run once for each target on what that may see.

    visibility  head name -> input stream ("tokens", "decoder_tokens") -> (B, T, length of the
                stream) bool: which positions of the stream a target at (row, position) may use,
                as the objective declares it. Its own position must be among them.

    A decoder is run on the prefix alone, so no mask can hide a leak. The logits of one target have
    shape (1, V), as in (batch, classes).
    """
    result = {}
    for name, target in batch.targets.items():
        rows, positions = (target != IGNORE).nonzero(as_tuple=True)  # (N,), (N,)
        losses = []
        for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
            seen = {stream: may[row, position] for stream, may in visibility[name].items()}
            hidden = model(**only(batch.inputs, row, seen))  # (1, visible, D)
            # The target's own place among the positions that are left of its stream.
            place = int(seen[target_stream(batch)][:position].sum())
            logits = model.heads[name](hidden[:, place])  # (1, D) -> (1, V)
            losses.append(F.cross_entropy(logits, target[row, position].view(1), reduction="none"))
        each = torch.cat(losses) if losses else torch.zeros(0, device=target.device)
        result[name] = TargetLosses(each, target[rows, positions], rows, positions)
    return result


def target_stream(batch: Batch) -> str:
    """The input stream along which the model's hidden states and the targets lie."""
    return "decoder_tokens" if "decoder_tokens" in batch.inputs else "tokens"


def only(inputs: Mapping[str, Tensor], row: int, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of one row, cut down to the positions of each stream that may be seen.

    What a stream's tokens lose, its mask, positions and segments lose with them; a mask that is a
    pattern (B, T, T) loses rows and columns.
    """
    result = {}
    for name, value in inputs.items():
        kept = seen["decoder_tokens" if name.startswith("decoder_") else "tokens"]
        part = value[row, kept]
        result[name] = (part[:, kept] if value.dim() == 3 else part)[None]
    return result
