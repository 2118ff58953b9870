"""The weights that a model begins with: as GPT-2 and BERT were, and larger in narrow models."""

import math

from torch import nn


def deviation(width: int) -> float:
    """The standard deviation of a new weight: 0.02, as published for a width of 768 and more.

    A sum of ``width`` products has a deviation as large as the root of their number. A narrow model
    takes larger weights, so that its layers give what the published ones give: with 0.02 at width
    128 a decoder stays at the loss of pairs of tokens for hundreds of steps.

    >>> deviation(1024), deviation(192)
    (0.02, 0.04)
    """
    return 0.02 * math.sqrt(max(1, 768 / width))


def initialise(module: nn.Module, width: int) -> nn.Module:
    """Matrices normal with ``deviation(width)``, biases zero, in all of the module; returns it."""
    for each in module.modules():
        if isinstance(each, nn.Linear | nn.Embedding):
            nn.init.normal_(each.weight, std=deviation(width))
        if isinstance(each, nn.Linear) and each.bias is not None:
            nn.init.zeros_(each.bias)
    return module
