"""Two streams of passages become one, by their position alone.

Of the first n passages floor(n X + 1/2) come from the second stream, where X is its share as it is
written in decimals. So their number is never off by more than half a passage, they are spread
evenly, and the position in the data stays one integer. Each of the two streams keeps its own order,
drawn from seed and epoch. X is a share of passages, not of tokens.
"""

import math
from fractions import Fraction

from minicpt.data.order import Draw


def of_second(count: int, share: Fraction) -> int:
    """How many of the first ``count`` passages come from the second stream.

    >>> [of_second(count, Fraction("0.3")) for count in range(11)]
    [0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    """
    return math.floor(count * share + Fraction(1, 2))


class Interleaved:
    """Two streams as one; ``share`` of the passages come from the second."""

    def __init__(self, first, second, share: float):
        self.first, self.second = first, second
        self.share = Fraction(str(share))  # 0.05 is 1/20, not the nearest binary number

    def passages(self, position: int, count: int) -> tuple[list, list[Draw]]:
        """Passages ``position``, ``position + 1``, … and each one's draw."""
        before = [of_second(place, self.share) for place in range(position, position + count + 1)]
        begin, some = before[0], before[-1] - before[0]
        second = zip(*self.second.passages(begin, some), strict=True)
        first = zip(*self.first.passages(position - begin, count - some), strict=True)
        steps = zip(before, before[1:], strict=False)
        chosen = [next(second if after > before else first) for before, after in steps]
        return [passage for passage, _ in chosen], [draw for _, draw in chosen]
