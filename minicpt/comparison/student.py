"""Student's t with whole degrees of freedom, by the standard library alone.

The distribution of a mean of n normal numbers, divided by its own standard error, with n - 1
degrees of freedom (Student 1908). The sums are those of Abramowitz and Stegun, 26.7.3 and 26.7.4.
Leaves out degrees of freedom between whole numbers, which would need the incomplete beta function.
"""

import math
from functools import lru_cache


def within(t: float, df: int) -> float:
    """The probability of a value between -t and t.

    >>> round(within(1.0, 1), 6), round(within(4.302653, 2), 6)
    (0.5, 0.95)
    """
    angle = math.atan(t / math.sqrt(df))
    square = math.cos(angle) ** 2
    term, total = math.cos(angle) if df % 2 else 1.0, 0.0
    for step in range(1 + df % 2, df, 2):
        total += term
        term *= square * step / (step + 1)
    if df % 2:
        return (angle + math.sin(angle) * total) * 2 / math.pi
    return math.sin(angle) * total


@lru_cache(maxsize=1 << 16)
def quantile(outside: float, df: int) -> float:
    """The t that a value leaves, on either side, with the probability ``outside``.

    >>> round(quantile(0.05, 2), 4), round(quantile(0.05, 4), 4)
    (4.3027, 2.7764)
    """
    low, high = 0.0, 1.0
    while within(high, df) < 1 - outside:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        if within(middle, df) < 1 - outside:
            low = middle
        else:
            high = middle
    return high
