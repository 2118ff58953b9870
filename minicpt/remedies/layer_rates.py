"""Rates by layer: the lower a layer, the slower it learns.

Howard & Ruder 2018, arXiv 1801.06146, "discriminative fine-tuning", who use F = 1/2.6. The highest
level that learns has the full rate, and each other one F times that of the level above it:

    F^k    for a weight with k levels above it that learn (the levels: see ``depth``)

F = 1 gives the bits of a run without it. A head that is tied to the embeddings is one with them and
learns as slowly as they do. What an objective trains beside the model learns at the full rate. The
decay of a weight is in proportion to its rate, as always in AdamW.
"""

from dataclasses import dataclass

from torch import nn

from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Rate, Remedy
from minicpt.remedies.depth import levels_above


@dataclass(frozen=True)
class Settings(Checked):
    layer_rates: float | None = setting(
        None, "each layer learns at F times the rate of the layer above it",
        above=0, most=1, metavar="F",
    )  # fmt: skip


class LayerRates(Remedy):
    Settings = Settings
    measured = {"layer_rates": 0.6}
    swept = (0.1, 0.3, 0.6, 0.9)

    def rates(self, model: nn.Module) -> dict[str, Rate]:
        factor = self.settings.layer_rates
        return {name: Rate(factor**above) for name, above in levels_above(model).items()}
