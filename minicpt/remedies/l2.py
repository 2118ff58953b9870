"""L2 distance to the base's weights: l2 / 2 times the sum of (w - w0)².

Li et al. 2018, arXiv 1802.01483 (L2-SP). The sum runs over the parameters that are trained, tied
ones once; its gradient is l2 * (w - w0). The usual decay toward zero is another setting,
``--weight-decay``.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy, Situation


@dataclass(frozen=True)
class Settings(Checked):
    l2: float = setting(0.0, "weight of half the squared distance to the base's weights", least=0)


class L2(Remedy):
    Settings = Settings
    needs = ("weights that move",)
    measured = {"l2": 0.01}
    swept = (0.001, 0.01, 0.1, 1.0)

    def begin(self, situation: Situation, state: dict | None = None) -> None:
        self.base = situation.base
        if state is not None:
            self.base.load_state_dict(state)

    def state(self, model: nn.Module) -> dict:
        return self.base.state_dict()

    def on_weights(self, model: nn.Module) -> Tensor:
        pairs = zip(model.parameters(), self.base.parameters(), strict=True)
        squares = sum((now - then).square().sum() for now, then in pairs if now.requires_grad)
        return self.settings.l2 / 2 * squares
