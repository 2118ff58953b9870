"""Evaluation: the loss on text held out from training, in nats per target and bits per byte.

Sums and counts run over all passages and are divided once, so the result depends neither on the
batch size nor on how the last batch is filled. Dropout is off, the noise is the same at every
evaluation, and torch's own generator is left untouched.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minicpt.data.plan import planned
from minicpt.generation import evaluating
from minicpt.loss import Loss, target_losses
from minicpt.randomness import generator

SEED = 0  # of the order and noise of every evaluation, whatever the seed of the training


@dataclass(frozen=True)
class Evaluation:
    """The loss by head, and what is needed to see it in bits per byte.

    text_nats   the nats of the targets that stand for text (end-of-text left out)
    text_bytes  the bytes of those targets; 0 where the objective does not predict the whole text
    """

    losses: dict[str, Loss]
    text_nats: float
    text_bytes: int

    @property
    def total(self) -> float:
        """What training minimises: the sum over heads of nats per target."""
        return float(sum(loss.mean for loss in self.losses.values()))

    @property
    def bits_per_byte(self) -> float | None:
        if not self.text_bytes:
            return None
        return self.text_nats / math.log(2) / self.text_bytes

    def summary(self) -> dict:
        """Plain numbers, for a file or ``--json``."""
        return {
            "nats_per_target": {name: float(loss.mean) for name, loss in self.losses.items()},
            "targets": {name: loss.count for name, loss in self.losses.items()},
            "total": self.total,
            "bits_per_byte": self.bits_per_byte,
        }


@torch.no_grad()
def evaluate(
    model: nn.Module,
    objective,
    corpus,
    passages: int | None = None,
    batch_size: int = 16,
    progress=lambda iterable: iterable,
    each=lambda passages, losses: None,
) -> Evaluation:
    """The loss of ``passages`` passages, evenly spread over the corpus' plan (default: of all).

    each  called for every batch with its passages and their ``TargetLosses`` by head
    """
    plan = planned(objective, corpus, SEED, 0)
    places = spread(plan, min(len(plan), passages or len(plan)))
    device = next(model.parameters()).device
    losses: dict[str, Loss] = {}
    nats, size = 0.0, 0
    with evaluating(model):
        begins: Iterable[int] = range(0, len(places), batch_size)
        for begin in progress(begins):
            some = places[begin : begin + batch_size]
            noise = [generator("evaluation", SEED, place) for place in some]
            together = [plan[place] for place in some]
            found = target_losses(model, objective.batch(together, noise).to(device))
            each(together, found)
            for name, of_head in found.items():
                nats_each = of_head.losses.cpu().double()  # (N,); some devices have no float64
                loss = Loss(nats_each.sum(), len(nats_each))
                losses[name] = losses[name] + loss if name in losses else loss
                if objective.whole_text:
                    text = text_bytes(objective, of_head.targets.cpu())
                    nats += float(nats_each[text > 0].sum())
                    size += int(text.sum())
    return Evaluation(losses, nats, size)


def spread(plan, count: int) -> list[int]:
    """``count`` places evenly spread over a plan, and so over its lengths; the shortest first.

    A plan's first passages would be all of a length; in this order batches are padded little.
    """
    places = torch.arange(count) * len(plan) // count
    return places[plan.lengths[places].argsort(stable=True)].tolist()


def text_bytes(objective, targets: Tensor) -> Tensor:
    """How many bytes of text each target stands for; 0 for end-of-text."""
    return objective.tokenizer.token_bytes[targets]
