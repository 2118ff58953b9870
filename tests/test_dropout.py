"""Dropout: how often, how strongly, and from which generator."""

import math

import pytest
import torch

from minicpt.fast.dropout import Dropout, dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9, 1 / 1024, 1023 / 1024])
def test_the_share_that_is_dropped_and_the_scale_of_the_rest(probability):
    torch.manual_seed(0)
    count = 4_000_001  # not a multiple of the four that share a draw
    x = dropout(torch.ones(count, dtype=torch.float64), probability)
    dropped = int((x == 0).sum())
    deviation = math.sqrt(count * probability * (1 - probability))
    assert abs(dropped - count * probability) < 5 * deviation + count / 131072
    kept = x[x != 0].unique().tolist()
    assert kept == pytest.approx([1 / (1 - probability)], rel=1 / 128)
    assert abs(float(x.mean()) - 1) < 5 * deviation / count * kept[0]


# Around what 16 bits tell apart, 2^-16, and far beyond it, on both sides.
RARE = [1e-4, 2**-16, 2**-17, 1e-6, 1e-7, 1e-12]


@pytest.mark.parametrize("rare", RARE)
@pytest.mark.parametrize("side", ["rarely dropped", "rarely kept"])
def test_a_probability_next_to_0_or_1_is_met_as_any_other(side, rare):
    torch.manual_seed(0)
    count = 4_000_001
    probability = rare if side == "rarely dropped" else 1 - rare
    x = dropout(torch.ones(count, dtype=torch.float64), probability)
    dropped = int((x == 0).sum())
    seldom = dropped if side == "rarely dropped" else count - dropped
    share = rare if side == "rarely dropped" else 1 - probability  # as float64 holds it
    low, high = binomial(count, share)
    assert low <= seldom <= high, (low, seldom, high)
    kept = x[x != 0].unique().tolist()
    assert kept == pytest.approx([1 / (1 - probability)] * len(kept)) and len(kept) <= 1


def binomial(count, probability, beyond=1e-7):
    """The bounds below and above which a count falls with a probability of ``beyond`` each."""
    term, total, k = math.exp(count * math.log1p(-probability)), 0.0, 0
    low = None
    while True:
        total += term
        low = k if low is None and total > beyond else low
        if total >= 1 - beyond:
            return low, k
        term *= (count - k) / (k + 1) * probability / (1 - probability)
        k += 1
        assert k <= count


def test_all_is_dropped_at_1_and_what_is_no_probability_is_refused():
    x = torch.ones(9, requires_grad=True)
    assert not dropout(x, 1.0).any()
    assert not torch.autograd.grad(dropout(x, 1.0).sum(), x)[0].any()
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="dropout probability"):
            dropout(x, wrong)


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
