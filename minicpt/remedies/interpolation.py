"""Interpolation: after the last step, the weights are (1 - A) base + A continued.

Wortsman et al. 2021, arXiv 2109.01903 (WiSE-FT); of language models Xiao et al. 2023, arXiv
2311.13534 (LM-Cocktail). A = 0 gives the base's bits, and A = 1 those of the continued model. Until
the end the run is one without it: evaluations and checkpoints before the last step show the
continued model, those of the last step the interpolated one.

One training serves all A: ``begin`` with the base, and ``at_end`` on a copy of the trained model.
What the objective trains beside the model has no base, and stays as it is.
"""

from dataclasses import dataclass

from torch import nn

from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy
from minicpt.remedies.ends import Scaled


@dataclass(frozen=True)
class Settings(Checked):
    interpolation: float | None = setting(
        None, "end at (1 - X) times the base's weights plus X times the trained ones",
        least=0, most=1,
    )  # fmt: skip


class Interpolation(Scaled, Remedy):
    Settings = Settings
    measured = {"interpolation": 0.5}
    swept = (0.1, 0.25, 0.5, 0.75, 0.9)

    @classmethod
    def asked(cls, settings: Settings) -> bool:
        return settings.interpolation is not None

    def factors(self, model: nn.Module) -> dict[str, float]:
        return {name: self.settings.interpolation for name, _ in model.named_parameters()}
