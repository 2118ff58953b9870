"""Averaging: the run ends with the mean of its last weights.

    --averaging 4 --averaging-every 10    of a run of 100 steps: the mean of the weights after steps
                                          70, 80, 90 and 100

Weights far apart in time go round the same valley; their mean lies nearer to its middle, and costs
no more to use than one of them. Of the last step's weights and of those before it that stand at
whole multiples of ``--averaging-every``, the K latest count alike; where the run is too short for
K, as many as there are, the base never. They are held in memory: K - 1 more models, which each
checkpoint holds too. Until the last step evaluations and checkpoints show the weights that are
trained. What is frozen is not held.

Izmailov et al. 2018, arXiv 1803.05407 (SWA); Kaddour 2022, arXiv 2209.14981 (LAWA, the mean of the
latest checkpoints). What an objective trains beside the model is not averaged.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy, Situation
from minicpt.remedies.ends import as_spread, as_whole


@dataclass(frozen=True)
class Settings(Checked):
    averaging: int | None = setting(
        None, "end with the mean of the weights at the last K of some steps", least=2, metavar="K",
        most=100,
    )  # fmt: skip
    averaging_every: int = setting(10, "how many steps lie between two of them", least=1)


class Averaging(Remedy):
    Settings = Settings
    claims = ("the weights at the end",)
    needs = ("weights that move",)
    measured = {"averaging": 4}
    swept = (2, 4, 8)

    @classmethod
    def asked(cls, settings: Settings) -> bool:
        return settings.averaging is not None

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        """``kept``: by name, the weights after some steps, the oldest first."""
        self.steps = state["steps"] if state else 0
        if type(self.steps) is not int:
            raise InputError(f"averaging: {self.steps!r:.20} is no number of steps")
        self.kept: list[dict[str, Tensor]] = []
        for each in state["kept"] if state else ():
            device = next(situation.model.parameters()).device
            self.kept.append({name: value.to(device) for name, value in each.items()})

    def state(self, model: nn.Module) -> dict:
        return {"steps": self.steps, "kept": self.kept}

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        self.steps += 1
        if self.steps % self.settings.averaging_every == 0:
            self.kept = [*self.kept, self.learning(model)][-self.settings.averaging :]

    @torch.no_grad()
    def at_end(self, model: nn.Module) -> None:
        if self.steps % self.settings.averaging_every:  # the last step is none of them yet
            self.kept = [*self.kept, self.learning(model)][-self.settings.averaging :]
        for name in self.kept[-1]:
            now = model.get_parameter(name)
            mean = torch.stack([each[name] for each in self.kept]).mean(0)
            now.copy_(as_spread(mean, now))

    def learning(self, model: nn.Module) -> dict[str, Tensor]:
        """A copy of the weights that learn, by name."""
        return {
            name: as_whole(each.detach()).clone()
            for name, each in model.named_parameters()
            if each.requires_grad
        }
