"""What a model may offer beside hidden states and heads, and what holds for the others.

B batch, T positions, D width.
"""

import torch
from torch import Tensor, nn

from minicpt.common.errors import InputError


class Abilities:
    """Objectives with parts use ``block`` and ``smaller``; text is written with ``step``."""

    def block(self) -> nn.Module:
        """One more layer of its kind, initialised anew: (x (B, T, D), mask) -> (B, T, D).

        mask  (B, 1, T, T) bool: what each position may look at
        """
        raise InputError(f"{type(self).__name__} has no layer to add; use another --model")

    def smaller(self, width: int) -> nn.Module:
        """A narrow sister that reads with the tables of this model: see ``narrow.Narrow``."""
        raise InputError(f"{type(self).__name__} has no narrow sister; use another --model")

    def cache(self, rows: int, window: int):
        """Decoders: what ``step`` keeps of ``rows`` texts of at most ``window`` tokens.

        Its ``place`` (B,) says how many tokens of each row were read. Set one to 0, and that row
        begins a text anew.
        """
        self._must_write()
        return Reread(rows, window, next(self.parameters()).device)

    def step(self, tokens: Tensor, cache) -> Tensor:
        """Decoders: reads the next tokens (B, T) of each row; their hidden states (B, T, D).

        What ``forward`` gives for the whole text so far, up to rounding. By default ``forward``
        reads that text anew. A model with a key-value cache (``cache.Steps``) reads the new tokens
        alone.
        """
        self._must_write()
        return cache.read(self, tokens)

    def _must_write(self) -> None:
        if self.ROLE != "decoder":
            raise InputError(f"{type(self).__name__} does not write text token by token")


class Reread:
    """The cache of a decoder that has none: it keeps the texts, and reads them anew."""

    def __init__(self, rows: int, window: int, device: torch.device) -> None:
        self.place = torch.zeros(rows, dtype=torch.int64, device=device)
        self.tokens = torch.zeros(rows, window, dtype=torch.int64, device=device)

    def read(self, model: nn.Module, tokens: Tensor) -> Tensor:
        positions = self.place[:, None] + torch.arange(tokens.size(1), device=tokens.device)
        self.tokens.scatter_(1, positions, tokens)  # (B, T)
        self.place = self.place + tokens.size(1)
        # A shorter row ends in tokens that nothing before them sees.
        hidden = model(tokens=self.tokens[:, : int(self.place.max())])
        return hidden.gather(1, positions[:, :, None].expand(-1, -1, hidden.size(2)))
