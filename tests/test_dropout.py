"""Dropout: how often, how strongly, and from which generator."""

import math

import pytest
import torch

from minicpt.dropout import Dropout, dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9, 1 / 65536])
def test_the_share_that_is_dropped_and_the_scale_of_the_rest(probability):
    torch.manual_seed(0)
    count = 4_000_001  # not a multiple of the four that share a draw
    x = dropout(torch.ones(count, dtype=torch.float64), probability)
    dropped = int((x == 0).sum())
    deviation = math.sqrt(count * probability * (1 - probability))
    assert abs(dropped - count * probability) < 5 * deviation + count / 131072
    kept = x[x != 0].unique().tolist()
    assert kept == pytest.approx([1 / (1 - probability)], rel=1e-4)
    assert abs(float(x.mean()) - 1) < 5 * deviation / count / (1 - probability) + 1e-6


def test_the_elements_that_share_a_draw_are_dropped_independently_and_alike():
    torch.manual_seed(0)
    lanes = (dropout(torch.ones(400_000), 0.5) == 0).view(-1, 4).double()
    assert (lanes.mean(0) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(len(lanes))
    together = torch.corrcoef(lanes.T) - torch.eye(4)
    assert together.abs().max() < 5 / math.sqrt(len(lanes))


def test_the_gradient_is_dropped_where_the_value_is():
    torch.manual_seed(0)
    x = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)
    y = dropout(x, 0.25)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach() / x.detach())


def test_draws_come_from_torchs_generator_and_only_in_training():
    x, layer = torch.ones(1000), Dropout(0.3)
    torch.manual_seed(5)
    first = layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first) and not torch.equal(layer(x), first)
    state = torch.get_rng_state()
    assert layer.eval()(x) is x and dropout(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), state)
