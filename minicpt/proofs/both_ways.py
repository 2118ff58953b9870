"""The losses of a batch both ways: from one forward pass, and from one run for each target.

The equivalence proof and the demo compare the two here.

B batch, T positions, N targets of a head.
"""

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from minicpt.batch import IGNORE, Batch
from minicpt.loss import Loss, TargetLosses, per_token_losses
from minicpt.proofs.bounds import additions, gap, largest, nats, tolerance

Losses = Callable[[Batch], Mapping[str, TargetLosses]]
Visibility = Mapping[str, Mapping[str, Tensor]]  # head -> stream -> (B, T, length of the stream)


class BothWays:
    """The two computations of one batch, and how far they lie apart.

    together  head -> ``TargetLosses`` of the one pass; ``alone``: head -> (N,)
    seconds   what the one pass took, and what all the runs took
    """

    def __init__(self, module: nn.Module, losses: Losses, batch: Batch, visibility: Visibility):
        """``module``: what has the weights whose gradients are compared."""
        self.module, self.batch = module, batch
        begun = time.perf_counter()
        self.together = losses(batch)
        between = time.perf_counter()
        self.alone = per_token_losses(losses, batch, visibility)
        self.seconds = between - begun, time.perf_counter() - between
        self.tolerance = tolerance(additions(module, batch))

    def missing(self) -> str:
        """What is wrong with the numbers of losses; "" where each target has one of its own."""
        for head, count in self.batch.counts().items():
            found, counted = self.together[head], len(self.factors(head))
            if found.count != count or {len(found.losses), len(self.alone[head])} != {counted}:
                return f"head {head!r}: {len(found.losses)} losses of {count} targets"
        return ""

    def factors(self, head: str) -> Tensor:
        """(N,): by what each loss is multiplied, from the batch itself; without those of 0."""
        asked = self.batch.targets[head] != IGNORE
        weights = self.batch.weights.get(head, torch.ones_like(asked))[asked]
        return weights[weights > 0]

    def means(self) -> tuple[Tensor, Tensor]:
        """The loss of the batch from the one pass, and from the runs: the sum over heads."""
        counts = self.batch.counts()
        alone = [
            Loss((each * self.factors(head).to(each)).sum(), counts[head]).mean
            for head, each in self.alone.items()
        ]
        return sum(each.total().mean for each in self.together.values()), sum(alone)

    def losses_apart(self) -> tuple[float, str, int]:
        """The largest difference of a loss, relative to the largest one, its head and its place."""
        unit, worst = nats(*self.alone.values()), (0.0, "", 0)
        for head, each in self.alone.items():
            found = gap(self.together[head].losses, each, unit)
            if len(each) and not found < worst[0]:
                difference = (self.together[head].losses - each).detach().abs()
                worst = found, head, int(difference.argmax())
        return worst

    def gradients_apart(self, size: float = 0.0) -> tuple[float, str]:
        """The largest difference of a gradient of the mean, and the weights' name.

        size  of what is added, to which it is relative; 0: the largest gradient
        """
        one, other = (gradient(self.module, mean) for mean in self.means())
        size = size or largest(*one.values())
        apart = {
            name: gap(each, other.get(name, torch.zeros_like(each)), size)
            for name, each in one.items()
        }
        steepest = max(apart, key=apart.get)
        return apart[steepest], steepest


def gradient(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of each of the module's weights that the loss depends on, by name."""
    named = {name: each for name, each in module.named_parameters() if each.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {name: each for name, each in zip(named, found, strict=True) if each is not None}
