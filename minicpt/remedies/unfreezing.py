"""Unfreezing from the top: the lower a layer, the later it begins to learn.

Howard & Ruder 2018, arXiv 1801.06146, "gradual unfreezing"; they take one epoch a layer. At the
beginning only the highest level learns, and after every N steps one more from the top:

    k N    steps wait a weight with k levels above it that learn (the levels: see ``depth``)

Until then it keeps its bits, has no moments, and is no part of the gradient's norm. In a run that
is too short the lowest levels never learn. A head that is tied to the embeddings is one with them
and begins last: at first the final norm learns alone. With LoRA the products of the last layer are
the highest level. What an objective trains beside the model learns from the beginning. Gradients
of what waits are computed and dropped, so a step costs as much as any other.
"""

from dataclasses import dataclass

from torch import nn

from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Rate, Remedy
from minicpt.remedies.depth import levels_above


@dataclass(frozen=True)
class Settings(Checked):
    unfreezing: int = setting(
        0, "the highest layer learns first, and one more from the top every N steps; 0: off",
        least=0, most=2**40, metavar="N",
    )  # fmt: skip


class Unfreezing(Remedy):
    Settings = Settings
    measured = {"unfreezing": 25}
    swept = (5, 10, 25, 50)

    def rates(self, model: nn.Module) -> dict[str, Rate]:
        wait = self.settings.unfreezing
        return {name: Rate(begins=wait * above) for name, above in levels_above(model).items()}
