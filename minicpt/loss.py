"""The loss: cross-entropy at every position that has a target, from one forward pass.

    hidden (B, T, D) - keep positions with a target -> (N, D) - head -> logits (N, V) -> sum, count

Every objective uses this one function; what differs between objectives is only what the model
reads and which positions have a target. Beside it stands the computation that it replaces: one
target at a time, the model run on just what that target's position may see. Both give the same
numbers when the model keeps to what the objective declares (``minicpt verify`` proves it).

Leaves out: the shift by one (made with the batch), and the model (reached through ``forward`` and
its heads alone).

B batch, T positions of the targets' stream, D width, V classes of the head, N targets.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch


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


def target_losses(model: nn.Module, batch: Batch) -> dict[str, TargetLosses]:
    """Each target's cross-entropy by head, from one forward pass over the whole sequence."""
    hidden = model(**batch.inputs)  # (B, T, D)
    result = {}
    for name, target in batch.targets.items():
        rows, positions = (target != IGNORE).nonzero(as_tuple=True)  # (N,), (N,)
        chosen = target[rows, positions]  # (N,)
        logits = model.heads[name](hidden[rows, positions])  # (N, D) -> (N, V)
        losses = F.cross_entropy(
            logits.float() if logits.dtype.itemsize < 4 else logits, chosen, reduction="none"
        )  # (N,)
        result[name] = TargetLosses(losses, chosen, rows, positions)
    return result


def whole_sequence_loss(model: nn.Module, batch: Batch) -> dict[str, Loss]:
    """The batch's loss by head, from one forward pass over the whole sequence."""
    return {name: each.total() for name, each in target_losses(model, batch).items()}


def objective_loss(losses: Mapping[str, Loss], counts: Mapping[str, int]) -> Tensor:
    """What is minimised: the sum over heads of sum/count, in nats.

    ``counts`` are those of the whole step, so that the parts into which a step is split add up to
    the same number however it is split.
    """
    return sum(Loss(loss.sum, counts[name]).mean for name, loss in losses.items())


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
