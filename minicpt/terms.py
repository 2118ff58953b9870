"""What training may add to the loss of each target: z-loss and label smoothing.

    z-loss           X (log Z)^2, Z = the sum over classes of exp(logit). It keeps log Z near 0.
    label-smoothing  X (logit[target] - the mean over classes of the logits). With the cross-entropy
                     it makes (1 - X) of the target and X / V of every class, as torch does it.
                     A class whose logit is -inf is none: it gets no share.

A batch carries the strength X of each of its terms (``Batch.terms``). So every objective computes
them in the pass that gives its loss, and evaluations, whose batches carry none, do not.
``fast.loss`` has the fused form.

Chowdhery et al. 2022, arXiv 2204.02311 (PaLM: z-loss, X = 1e-4); Szegedy et al. 2015, arXiv
1512.00567 (label smoothing).

D width, V classes of the head, N targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minicpt.common.settings import Checked, setting
from minicpt.fast import loss as fast

if TYPE_CHECKING:
    from minicpt.loss import Loss, TargetLosses


@dataclass(frozen=True)
class Terms(Checked):
    z_loss: float = setting(
        0.0, "weight of (log of the sum of exp(logits))^2 at each target; 1e-4 is usual", least=0
    )
    label_smoothing: float = setting(
        0.0,
        "share of each target that is spread evenly over all classes; evaluations stay plain",
        least=0,
        below=1,
    )

    def strengths(self) -> dict[str, float]:
        """Those that are asked for, by the names that tables show: for ``Batch.terms``."""
        found = {name.replace("_", "-"): value for name, value in vars(self).items()}
        return {name: value for name, value in found.items() if value}


def losses_with_terms(
    head: nn.Module,
    hidden: Tensor,
    targets: Tensor,
    terms: Mapping[str, float],
    fused: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What is minimised at each target (N,), and what each term has added to it (N,), by name.

    hidden (N, D), targets (N,); all in nats. No gradient flows through what is returned by name.
    """
    if fused:
        return fast.losses_with_terms(head, hidden, targets, terms)
    logits = head(hidden)  # (N, D) -> (N, V)
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    possible = logits > -torch.inf  # (N, V)
    even = logits.where(possible, 0).sum(dim=1) / possible.sum(dim=1)
    found = {
        "z-loss": logits.logsumexp(dim=1).square(),
        "label-smoothing": logits.gather(1, targets[:, None])[:, 0] - even,
    }
    added = {name: strength * found[name] for name, strength in terms.items()}
    losses = F.cross_entropy(logits, targets, reduction="none") + sum(added.values())
    return losses, {name: each.detach() for name, each in added.items()}


def apart(found: Mapping[str, TargetLosses]) -> dict[str, dict[str, Loss]]:
    """The losses by head without the terms, under the name "", and each term under its own.

    The terms have no gradient here, and the losses still have that of all that is minimised. The
    weight of a head (``objective_loss``) multiplies its terms too; they are shown without it.
    """
    result: dict[str, dict[str, Loss]] = {"": {}}
    for head, each in found.items():
        loss = each.total()
        for name, values in each.terms.items():
            term = dataclasses.replace(loss, sum=(values * each.weights).sum())
            result.setdefault(name, {})[head] = term
            loss = dataclasses.replace(loss, sum=loss.sum - term.sum)
        result[""][head] = loss
    return result
