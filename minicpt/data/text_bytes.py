"""For how many bytes of the text each token stands, and which tokens hide text from the model.

An evaluation in bits per byte needs it. A training step does not.

L tokens of a corpus, N of them.
"""

from functools import cached_property

import torch
from torch import Tensor


class TextBytes:
    """What a corpus knows about the bytes of its text.

    bytes    (L + 1,) int32, the byte of the text (UTF-8, before any normalisation) at which each
             token begins, and where the last one ends. Counts modulo 2^32: read differences.
    unknown  ascending int64, the tokens that hide text: unknown tokens, and those beside which the
             tokenizer drops more than white space, accents and control characters
    """

    bytes: Tensor
    unknown: Tensor

    def sizes(self, tokens: Tensor) -> Tensor:
        """How many bytes of the text the tokens with these numbers (N,) stand for: (N,) int64."""
        return (self.bytes[tokens + 1] - self.bytes[tokens]).long()

    def hides(self, tokens: Tensor) -> Tensor:
        """Which of the tokens with these numbers hide text: (N,) bool."""
        before, up_to = (
            torch.searchsorted(self.unknown, tokens, right=right) for right in (False, True)
        )
        return before < up_to

    @cached_property
    def hidden(self) -> float:
        """The share of the text's bytes that unknown tokens hide."""
        whole = int((self.bytes[1:] - self.bytes[:-1]).sum(dtype=torch.int64))
        return int(self.sizes(self.unknown).sum()) / whole
