"""EMA: the run ends with a running mean of its weights, in which older ones count less and less.

After each step    mean = X mean + (1 - X) weights,    and the mean begins at the base

So after n steps the base itself still counts X^n: a mean over more steps than the run has stays
near the base, which is what spares the old text. There is no correction for the beginning, as
Adam's moments have one. The mean of what learns is held in memory, in float32, beside the weights;
what is frozen is not in it. After the last step it takes the place of the weights: until then
evaluations and checkpoints show the weights that are trained.

Polyak & Juditsky 1992 (averaging); Izmailov et al. 2018, arXiv 1803.05407; Morales-Brotons et al.
2024, arXiv 2411.18704 (EMA of weights). What an objective trains beside the model has no mean.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy, Situation
from minicpt.remedies.ends import as_spread, as_whole


@dataclass(frozen=True)
class Settings(Checked):
    ema: float | None = setting(
        None, "end with a running mean of the weights: after each step X of the old mean stays",
        least=0, below=1,
    )  # fmt: skip


class EMA(Remedy):
    Settings = Settings
    claims = ("the weights at the end",)
    needs = ("weights that move",)
    measured = {"ema": 0.99}
    swept = (0.9, 0.97, 0.99, 0.997)

    @classmethod
    def asked(cls, settings: Settings) -> bool:
        return settings.ema is not None

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        """The mean of each weight that learns, by its name."""
        self.means: dict[str, Tensor] = {
            name: (state[name] if state else each.detach().clone()).to(each.device)
            for name, each in situation.model.named_parameters()
            if each.requires_grad
        }

    def state(self, model: nn.Module) -> dict:
        return self.means

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        for name, mean in self.means.items():
            mean.lerp_(as_whole(model.get_parameter(name)), 1 - self.settings.ema)

    @torch.no_grad()
    def at_end(self, model: nn.Module) -> None:
        for name, mean in self.means.items():
            now = model.get_parameter(name)
            now.copy_(as_spread(mean, now))
