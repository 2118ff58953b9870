"""Elastic weight consolidation: ewc / 2 times the sum of F (w - w0)².

Kirkpatrick et al. 2017, arXiv 1612.00796. F says how much the old text's likelihood depends on a
weight: the diagonal of the Fisher information, estimated as the mean over passages of the squared
gradient of the passage's log-likelihood (summed over its targets), at the base, without dropout.
The gradient of each passage is squared by itself. The gradient of a whole batch would be nearly
zero at the end of a training, however much a weight matters.

This is the empirical Fisher: its targets are those of the text. The true Fisher draws the targets
from the model. For text that takes more than one pass, because each drawn token is the next input.
The two agree for a base that fits its text (Kunstner et al. 2019, arXiv 1905.12558, show where they
do not).
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minicpt.batch import Batch
from minicpt.common.parts import take_over
from minicpt.common.randomness import generator, seeded
from minicpt.common.settings import Checked, setting
from minicpt.data.choosing import spread
from minicpt.data.order import Draw, planned
from minicpt.remedies.base import Remedy, Situation


@dataclass(frozen=True)
class Settings(Checked):
    ewc: float = setting(0.0, "weight of that distance in which old text's weights count", least=0)
    ewc_passages: int = setting(
        256, "passages of old text that tell how much each weight counts", least=1
    )


class EWC(Remedy):
    Settings = Settings
    reads_old = True
    needs = ("weights that move",)
    measured = {"ewc": 1.0}
    swept = (0.1, 1.0, 10.0, 100.0)

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        """Estimates the Fisher diagonal from passages of old text, each by itself."""
        self.base = situation.base
        self.fisher = copy.deepcopy(self.base)  # one number for each of the base's, in its place
        if state is not None:
            self.base.load_state_dict(state["base"])
            self.fisher.load_state_dict(state["fisher"])
            return
        totals = list(self.fisher.parameters())
        for total in totals:
            total.zero_()
        count, objective = 0, situation.objective
        with seeded("parts", situation.seed):
            parts = objective.parts(self.base).to(totals[0].device)
        take_over(parts, situation.parts)
        for batch in old_batches(situation, self.settings.ewc_passages):
            count += 1
            found = score(self.base, objective, parts, batch)
            for total, gradient in zip(totals, found, strict=True):
                total += gradient.square()
        for total in totals:
            total /= max(count, 1)

    def state(self, model: nn.Module) -> dict:
        return {"base": self.base.state_dict(), "fisher": self.fisher.state_dict()}

    def on_weights(self, model: nn.Module) -> Tensor:
        kinds = model, self.base, self.fisher
        triples = zip(*(each.parameters() for each in kinds), strict=True)
        squares = sum(
            (fisher * (now - then).square()).sum()
            for now, then, fisher in triples
            if now.requires_grad
        )
        return self.settings.ewc / 2 * squares


def old_batches(situation: Situation, count: int) -> Iterator[Batch]:
    """At most ``count`` passages of old text, each as a batch of its own.

    They are spread over the plan, whose first passages would be all of one length.
    """
    corpus, objective = situation.old_text(()), situation.objective
    plan = planned(objective, corpus, situation.seed, 0)
    device = next(situation.model.parameters()).device
    for place in situation.progress(spread(plan, min(count, len(plan))), "ewc: old text"):
        draw = Draw(place, generator("old text", situation.seed, place))
        yield objective.batch([plan[place]], [draw]).to(device)


def score(base: nn.Module, objective, parts: nn.ModuleDict, batch: Batch) -> list[Tensor]:
    """The gradient of the batch's log-likelihood by each of the base's parameters."""
    parameters = list(base.parameters())
    base.requires_grad_(True)
    try:
        found = objective.losses(base, parts, batch)
        likelihood = -sum(each.total().sum for each in found.values())
        gradients = torch.autograd.grad(likelihood, parameters, allow_unused=True)
    finally:
        base.requires_grad_(False)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
