"""Old passages between the new ones: what replay and self-replay share (``data.interleaving``).

The old text begins anew when it is used up. Batches have more padding than without old text: an old
passage is not as long as the new ones around it.
"""

import math
from fractions import Fraction

from minicpt.common.randomness import generator
from minicpt.data.interleaving import Interleaved


class Mixture(Interleaved):
    """The stream of new passages, the first one, with old ones between them.

    The old stream is one of the same kind over ``corpus``, with an order of its own.
    """

    def __init__(self, new, corpus, fraction: float):
        seed = int(generator("replay", new.seed).initial_seed())
        super().__init__(new, type(new)(new.objective, corpus, seed), fraction)

    def epoch_length(self, epoch: int) -> int:
        """How many passages it takes to see the new text once more, the old ones with them."""
        lengths = [self.first.epoch_length(each) for each in range(epoch + 1)]
        return self.place(sum(lengths)) - self.place(sum(lengths[:-1]))

    def place(self, count: int) -> int:
        """The fewest passages that hold ``count`` new ones."""
        # n - floor(n X + 1/2) >= count, solved for n
        return math.floor((count - Fraction(1, 2)) / (1 - self.share)) + 1 if count else 0
