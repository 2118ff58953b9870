"""Elastic weight consolidation: ewc / 2 times the sum of F (w - w0)².

Kirkpatrick et al. 2017, arXiv 1612.00796. F says how much the old text's likelihood depends on a
weight: the diagonal of the Fisher information, estimated as the mean over passages of the squared
gradient of the passage's log-likelihood (summed over its targets), at the base, without dropout.
Each passage is squared by itself: the gradient of a whole batch is nearly zero where training has
ended, whatever a weight is worth.

This is the empirical Fisher: the targets are those of the text. The other kind draws them from the
model; for text a single pass cannot do that, because the next input would be another one, and a
base that fits its text makes them agree (where they part: Kunstner et al. 2019, arXiv 1905.12558).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minicpt.batch import Batch
from minicpt.common.settings import Checked, setting
from minicpt.loss import whole_sequence_loss
from minicpt.remedies import frozen


@dataclass(frozen=True)
class Settings(Checked):
    ewc: float = setting(0.0, "weight of that distance in which old text's weights count", least=0)
    ewc_passages: int = setting(
        256, "passages of old text that tell how much each weight counts", least=1
    )


class Regularizer(nn.Module):
    on = "weights"

    def __init__(self, settings: Settings, base: nn.Module) -> None:
        super().__init__()
        self.weight, self.passages, self.base = settings.ewc, settings.ewc_passages, base
        self.fisher = frozen(base)  # one number for each of the base's, in the same places
        for each in self.fisher.parameters():
            each.zero_()

    def learn(self, old: Callable[[int], Iterable[Batch]]) -> None:
        """Estimates the Fisher diagonal from batches of one passage each."""
        totals = list(self.fisher.parameters())
        count = 0
        for batch in old(self.passages):
            count += 1
            for total, gradient in zip(totals, score(self.base, batch), strict=True):
                total += gradient.square()
        for total in totals:
            total /= max(count, 1)

    def forward(self, model: nn.Module) -> Tensor:
        kinds = model, self.base, self.fisher
        triples = zip(*(each.parameters() for each in kinds), strict=True)
        squares = sum(
            (fisher * (now - then).square()).sum()
            for now, then, fisher in triples
            if now.requires_grad
        )
        return self.weight / 2 * squares


def score(base: nn.Module, batch: Batch) -> list[Tensor]:
    """The gradient of the batch's log-likelihood by each of the base's parameters."""
    parameters = list(base.parameters())
    base.requires_grad_(True)
    try:
        losses = whole_sequence_loss(base, batch)
        likelihood = -sum(loss.sum for loss in losses.values())
        found = torch.autograd.grad(likelihood, parameters, allow_unused=True)
    finally:
        base.requires_grad_(False)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, found, strict=True)
    ]
