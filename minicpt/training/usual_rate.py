"""The highest learning rate where none is given: a rule with the width of the model.

The wider a layer, the more its outputs change when AdamW changes each weight by as much. So the
best rate falls as 1 / width (Yang et al. 2022, arXiv 2203.03466). The numbers are measured by
benchmarks/defaults.py.
"""

from dataclasses import replace

RATE = 0.256  # of a new model, times its width
NARROW = 64  # below this width the rate does not rise
CONTINUED = 0.5  # of it, for a model that was trained before
RULE = (
    f"{RATE} / width, with --init half of it; for a large model that was trained elsewhere 1e-5 to"
    " 1e-4 is usual"
)


def usual(width: int, continued: bool = False) -> float:
    """The highest rate for a model of this width.

    >>> [usual(width) for width in (32, 128, 256)], usual(128, continued=True)
    ([0.004, 0.002, 0.001], 0.001)
    """
    return RATE / max(width, NARROW) * (CONTINUED if continued else 1)


def settled(settings, width: int, continued: bool = False):
    """The same settings with a learning rate: the given one, or the usual one."""
    if settings.learning_rate is not None:
        return settings
    return replace(settings, learning_rate=usual(width, continued))
