"""Regularizers: terms beside the objective that keep the model near its base. One file each.

A module of this package is a regularizer when it has two names:

Settings     a frozen dataclass of its own settings, each of which becomes a flag; the field of the
             module's name is the weight of the term, and 0 leaves the term out
Regularizer  an ``nn.Module`` built from ``(settings, base)``; what it has to keep for a resumed run
             is its state_dict (the base is a part of it, so that a run does not need the base's
             folder again). Called, it gives the term, its weight included:

    on = "weights"   (model) -> (): a function of the weights alone, counted once a step
    on = "targets"   (model, batch, hidden) -> {head: Loss}: a loss at each target beside the
                     cross-entropy, from the hidden states of the step's one forward pass; added up
                     over micro-batches and divided as the cross-entropy is
    learn(old)       only where there is something to learn from text that the base knows: reads
                     ``old(count)``, at most that many batches, each of one passage

What every regularizer keeps to, and the tests hold it to:

settings    the first field is the weight, at least 0 and 0 by default; the names of the others
            begin with the module's name and an underscore; each has a help text
docstring   names the paper with its arXiv number
the base    is kept, frozen, as ``base``
the term    grows in proportion to its weight. It is zero in value and gradient at the base with
            dropout off (to rounding for T5, whose attention runs another kernel when its position
            table learns), and is not zero elsewhere; on "weights", it is not divided when a step is
            split. In bfloat16 it is a float32 near that of float32
everywhere  neither model nor batch is changed, no random number is drawn, the base does not learn

Nothing else knows the names of the regularizers.
"""

import copy

from torch import nn


def frozen(model: nn.Module) -> nn.Module:
    """The base: a copy of the model as it is now, in evaluation mode, that does not learn."""
    return copy.deepcopy(model).eval().requires_grad_(False)
