"""Toy piece: its term at the base, and away from it, worked out by hand."""

import torch
from torch import nn

from minicpt import remedies
from minicpt.remedies.base import Situation


def test_the_term_is_the_squared_distance():
    kind = remedies.known()["toy-piece"]
    remedy, model = kind(kind.Settings(toy_piece=3.0)), nn.Linear(2, 3)
    remedy.begin(Situation(model, objective=None))
    assert remedy.on_weights(model).item() == 0
    with torch.no_grad():
        model.weight += 0.5  # of six weights
    torch.testing.assert_close(remedy.on_weights(model).item(), 3.0 * 6 * 0.25)
