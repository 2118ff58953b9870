"""The loss: cross-entropy at every position that has a target, from one forward pass.

    hidden (B, T, D) - keep positions with a target -> (N, D) - head -> logits (N, V) -> sum, count

Every objective uses this one function. Objectives differ only in what the model reads and in which
positions have a target. Below stands the computation that it replaces: one target at a time, the
model run on nothing but what that target may see. Both give the same numbers when the model keeps
to what the objective declares (``minicpt verify`` proves it).

B batch, T positions of the targets' stream, D width, V classes of the head, N targets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch, seen_by
from minicpt.fast import loss as fast
from minicpt.possible import pooled, without
from minicpt.terms import losses_with_terms


@dataclass(frozen=True)
class Loss:
    """A sum of cross-entropies in nats and the number of targets it runs over.

    Losses add, as sums and counts. The one division is ``mean``. A mean of means would be another
    number: (x1/n1 + x2/n2)/2 is not (x1+x2)/(n1+n2).

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
    """The losses of a head's targets, one by one.

    losses     (N,) in nats, before their weights, with the batch's ``terms``
    targets    (N,) int64
    rows       (N,) int64: where each target stands, and ``positions`` likewise
    weights    (N,): what each loss is multiplied by
    count      the targets, those of weight 0 included: they are not among the N
    hidden     (N, D): the model's hidden states at these positions
    inputs     what the model read to give them; {}: a part of the objective read in its place
    terms      name -> (N,): what each term has added to ``losses``, as plain numbers
    """

    losses: Tensor
    targets: Tensor
    rows: Tensor
    positions: Tensor
    weights: Tensor
    count: int
    hidden: Tensor
    inputs: Mapping[str, Tensor]
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    def total(self) -> Loss:
        return Loss((self.losses * self.weights).sum(), self.count)


def target_losses(
    model: nn.Module,
    batch: Batch,
    fused: bool = True,
    never: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, TargetLosses]:
    """Each target's cross-entropy by head, from one forward pass over the whole sequence.

    fused  False: with all logits held at once, as it is written out in ``head_losses``
    never  head -> its classes that are never predicted: their logits are taken out
    """
    hidden = model(**batch.inputs)  # (B, T, D)
    never = never or {}
    heads = {name: without(model.heads[name], never.get(name, ())) for name in batch.targets}
    return {name: losses_of_head(name, hidden, heads[name], batch, fused) for name in heads}


def whole_sequence_loss(model: nn.Module, batch: Batch, fused: bool = True) -> dict[str, Loss]:
    """The batch's loss by head, from one forward pass over the whole sequence."""
    return {name: each.total() for name, each in target_losses(model, batch, fused).items()}


def losses_of_head(
    name: str, hidden: Tensor, head: nn.Module, batch: Batch, fused: bool = True
) -> TargetLosses:
    """One head's part of ``target_losses``, from the hidden states (B, T, D)."""
    target = batch.targets[name]  # (B, T)
    asked = target != IGNORE
    weights = batch.weights.get(name)
    places = (asked if weights is None else asked & (weights > 0)).flatten().nonzero()[:, 0]  # (N,)
    chosen = target.flatten()[places]  # (N,)
    kept = pooled(head, hidden, batch.inputs).flatten(0, 1).index_select(0, places)  # (N, D)
    if batch.terms:
        losses, terms = losses_with_terms(head, kept, chosen, batch.terms, fused)
    else:
        losses, terms = head_losses(head, kept, chosen, fused), {}  # (N,)
    factors = torch.ones_like(losses) if weights is None else weights.flatten()[places].to(losses)
    rows = places.div(target.shape[1], rounding_mode="floor")
    count = len(places) if weights is None else int(asked.sum())
    return TargetLosses(
        losses, chosen, rows, places % target.shape[1], factors, count, kept, batch.inputs, terms
    )


def head_losses(head: nn.Module, hidden: Tensor, targets: Tensor, fused: bool = True) -> Tensor:
    """The cross-entropy of each hidden state (N, D) with its target (N,), in nats: (N,)."""
    if fused:
        return fast.head_losses(head, hidden, targets)
    logits = head(hidden)  # (N, D) -> (N, V)
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    return F.cross_entropy(logits, targets, reduction="none")


def objective_loss(
    losses: Mapping[str, Loss],
    counts: Mapping[str, int],
    head_weights: Mapping[str, float] | None = None,
) -> Tensor:
    """What is minimised: the sum over heads of head weight times sum/count, in nats.

    counts  of the whole step: so the parts of a step add up to one number, however it is split
    """
    factors = head_weights or {}
    return sum(
        factors.get(name, 1.0) * Loss(loss.sum, counts[name]).mean for name, loss in losses.items()
    )


# --- the computation it replaces -------------------------------------------------------------


def per_token_losses(
    losses: Callable[[Batch], Mapping[str, TargetLosses]],
    batch: Batch,
    visibility: Mapping[str, Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """Each target's cross-entropy (N,) by head, the model run once for each target.

    losses      the losses of a batch by head, from one forward pass
    visibility  head -> input stream ("tokens", "decoder_tokens") -> (B, T, length of the stream)
                bool: which positions of the stream a target at (row, position) may use, as the
                objective declares it

    Each run reads nothing but what its target may see. So a decoder reads the prefix alone, and no
    mask can hide a leak. The order of the N is that of ``target_losses``.
    """
    result = {}
    for head, target in batch.targets.items():
        alone = [
            losses(seen_by(batch, head, row, position, visibility[head]))[head].losses
            for row, position in (target != IGNORE).nonzero().tolist()
        ]
        result[head] = torch.cat(alone) if alone else torch.zeros(0, device=target.device)
    return result
