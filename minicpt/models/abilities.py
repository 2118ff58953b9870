"""What a model may offer beside hidden states and heads, and how the others say no.

B batch, T positions, D width.
"""

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
        """Decoders: what ``step`` keeps of ``rows`` texts of at most ``window`` tokens."""
        raise InputError(f"{type(self).__name__} does not write text token by token")

    def step(self, tokens: Tensor, cache) -> Tensor:
        """Decoders: reads the next tokens (B, T) of each row; their hidden states (B, T, D).

        What ``forward`` gives for the whole text so far, up to rounding, at the cost of the new
        tokens alone: ``cache`` keeps keys and values.
        """
        raise InputError(f"{type(self).__name__} does not write text token by token")
