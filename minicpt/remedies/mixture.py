"""Two streams of passages become one: what replay and self-replay share.

Of the first n passages floor(n F + 1/2) are old ones, where F is the fraction as it is written in
decimals. So the number of old passages is never off by more than half a passage, they are spread
evenly, and the position alone decides which passages are old. The position in the data stays one
integer, and steps are cut into micro-batches as always. Each of the two streams keeps its own
order, drawn from seed and epoch. The old text begins anew when it is used up. F is a share of
passages, not of tokens.

Batches have more padding than without old text: an old passage is not as long as the new ones
around it.
"""

import math
from fractions import Fraction

from minicpt.common.randomness import generator
from minicpt.data.order import Draw


def replayed(count: int, fraction: Fraction) -> int:
    """How many of the first ``count`` passages are old ones.

    >>> [replayed(count, Fraction("0.3")) for count in range(11)]
    [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    """
    return math.floor(count * fraction + Fraction(1, 2))


class Mixture:
    """The stream of new passages with old ones between them.

    The old stream is one of the same kind over ``corpus``, with an order of its own.
    """

    def __init__(self, new, corpus, fraction: float):
        seed = int(generator("replay", new.seed).initial_seed())
        self.new, self.old = new, type(new)(new.objective, corpus, seed)
        self.fraction = Fraction(str(fraction))  # 0.05 is 1/20, not the nearest binary number

    def passages(self, position: int, count: int) -> tuple[list, list[Draw]]:
        """Passages ``position``, ``position + 1``, … and each one's draw."""
        before = [replayed(place, self.fraction) for place in range(position, position + count + 1)]
        first, some = before[0], before[-1] - before[0]
        old = zip(*self.old.passages(first, some), strict=True)
        new = zip(*self.new.passages(position - first, count - some), strict=True)
        steps = zip(before, before[1:], strict=False)
        chosen = [next(old if after > before else new) for before, after in steps]
        return [passage for passage, _ in chosen], [draw for _, draw in chosen]

    def epoch_length(self, epoch: int) -> int:
        """How many passages it takes to see the new text once more, the old ones with them."""
        for each in range(epoch + 1):
            self.new.epoch_length(each)
        begin, end = self.new.begins[epoch : epoch + 2]
        return self.place(end) - self.place(begin)

    def place(self, count: int) -> int:
        """The fewest passages that hold ``count`` new ones."""
        # n - floor(n F + 1/2) >= count, solved for n
        return math.floor((count - Fraction(1, 2)) / (1 - self.fraction)) + 1 if count else 0
