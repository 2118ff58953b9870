"""LiNeS: after the last step, what the lower layers have learnt is made smaller.

Wang et al. 2024, arXiv 2410.17146. The way of a weight from the base is multiplied by a factor that
grows with its level l, which is 0 for the embeddings and the number of layers + 1 for what follows
the last layer (see ``depth``):

    X + (1 - X) l / (the number of layers + 1)

So the embeddings keep the share X of what they have learnt, and the heads keep all. X = 1 gives the
bits of the continued model. A head that is tied to the embeddings is one with them. The paper
counts the blocks alone, and gives what lies outside of them its smallest factor; here embeddings
and heads count as layers, so that the factors differ in a model of one layer too.

Until the end the run is one without it, as with ``interpolation``.
"""

from dataclasses import dataclass

from torch import nn

from minicpt.common.settings import Checked, setting
from minicpt.remedies.base import Remedy
from minicpt.remedies.depth import layers_of, levels
from minicpt.remedies.ends import Scaled


@dataclass(frozen=True)
class Settings(Checked):
    lines: float | None = setting(
        None, "LiNeS: end with X of what the embeddings have learnt, and more in each layer above",
        least=0, most=1,
    )  # fmt: skip


class LiNeS(Scaled, Remedy):
    Settings = Settings
    measured = {"lines": 0.0}
    swept = (0.0, 0.25, 0.5, 0.75)

    @classmethod
    def asked(cls, settings: Settings) -> bool:
        return settings.lines is not None

    def factors(self, model: nn.Module) -> dict[str, float]:
        top = len(layers_of(model)) + 1
        # As X + (1 - X) l / top, and exactly 1 at the top.
        factor = [1 - (1 - self.settings.lines) * (top - each) / top for each in range(top + 1)]
        return {name: factor[level] for name, level in levels(model).items()}
