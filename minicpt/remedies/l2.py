"""L2 distance to the base's weights: l2 / 2 times the sum of (w - w0)².

Li et al. 2018, arXiv 1802.01483 (L2-SP). The sum runs over the parameters that are trained, tied
ones once; its gradient is l2 * (w - w0). Leaves out the usual weight decay toward zero, which
``--weight-decay`` sets.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from minicpt.common.settings import Checked, setting


@dataclass(frozen=True)
class Settings(Checked):
    l2: float = setting(0.0, "weight of half the squared distance to the base's weights", least=0)


class Regularizer(nn.Module):
    on = "weights"

    def __init__(self, settings: Settings, base: nn.Module) -> None:
        super().__init__()
        self.weight, self.base = settings.l2, base

    def forward(self, model: nn.Module) -> Tensor:
        pairs = zip(model.parameters(), self.base.parameters(), strict=True)
        squares = sum((now - then).square().sum() for now, then in pairs if now.requires_grad)
        return self.weight / 2 * squares
