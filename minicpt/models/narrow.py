"""A narrow sister of a model: the same kind and depth, less width, the same tables.

Clark et al. 2020, arXiv 2003.10555: ELECTRA's generator shares the embeddings of its
discriminator.

B batch, T positions, D width of the model.
"""

import dataclasses

from torch import Tensor, nn

from minicpt.common.errors import InputError
from minicpt.models.initial import initialise
from minicpt.models.layers import Model


class Narrow(nn.Module):
    """Reads with the tables of another model, thinks in ``width``, and feeds that model's heads.

    What the tables give, (B, T, D), is projected to ``width``; what the layers give is projected
    back to D. The other model is no part of this one: it is handed over at each call. ``sizes``
    replace others of its config.
    """

    def __init__(self, model: Model, width: int, **sizes) -> None:
        super().__init__()
        config, wide = model.config, model.config.width
        heads = next(n for n in range(min(config.num_heads, width), 0, -1) if width % n == 0)
        sizes = {"width": width, "num_heads": heads, "feed_forward": 4 * width} | sizes
        self.inner = type(model)(dataclasses.replace(config, **sizes))
        for name in (*model.TABLES, "heads"):
            delattr(self.inner, name)
        self.narrow, self.widen = nn.Linear(wide, width), nn.Linear(width, wide)
        initialise(self.narrow, wide)
        initialise(self.widen, width)

    def forward(
        self, model: Model, tokens: Tensor, mask: Tensor | None = None, **places: Tensor
    ) -> Tensor:
        """Hidden states (B, T, D) for the heads of ``model``.

        ``places`` are the other inputs of ``model``: positions, segments.
        """
        x = self.narrow(model.embed(tokens, **places))  # (B, T, width)
        return self.widen(self.inner.run(x, mask))


def even_heads(model: str, width: int, most: int) -> int:
    """As many heads of even width as fit into ``width``, at most ``most``: what rotary positions
    need. InputError for an odd width."""
    if width % 2:
        raise InputError(f"{model}: a narrow sister needs an even width, not {width}")
    return next(n for n in range(min(most, width), 0, -1) if width % (2 * n) == 0)
