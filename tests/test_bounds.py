"""The tolerances for rounding, against exact sums, and on machines that round otherwise."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from minicpt.batch import Batch
from minicpt.common.randomness import generator
from minicpt.proofs import suite
from minicpt.proofs.bounds import additions, gap, largest, nats, tolerance
from minicpt.proofs.equivalence import equivalence
from minicpt.proofs.padding import padding
from minicpt.proofs.partition import partition

SUBJECTS = {each.name: each for each in suite.subjects()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_sums_lie_within_the_bound_in_whatever_order(dtype, shift):
    """Against exact sums of fractions. Without a shift the summands nearly cancel."""
    x = torch.randn(3000, dtype=dtype, generator=generator("summands")) + shift
    exact = sum(map(Fraction, x.tolist()))
    size = float(x.double().abs().sum())
    one_by_one = x.new_zeros(())
    for each in x:
        one_by_one += each
    sums = [x.sum(), x.flip(0).sum(), x.sort().values.sum(), one_by_one, x @ torch.ones_like(x)]
    for found in sums:
        assert abs(Fraction(float(found)) - exact) <= tolerance(len(x), dtype) / 2 * Fraction(size)
        assert gap(found, sums[0], size) <= tolerance(len(x), dtype)
    assert gap(sums[0], torch.tensor(float(exact)) + 1e-3 * size, size) > tolerance(len(x), dtype)


def test_the_bound_is_reached_within_a_factor_of_three():
    """By summands that are each rounded away: 1 and n times u. The exact sum is 1 + n u."""
    u, n = 2.0**-53, 1000
    found = 1.0
    for _ in range(n):
        found += u
    assert found == 1.0
    error = n * u / (1 + n * u)
    assert tolerance(n) / 3 < error <= tolerance(n) / 2


def test_more_additions_than_a_format_can_take_have_no_bound():
    with pytest.raises(ValueError, match="have no bound"):
        tolerance(300, torch.bfloat16)


def test_the_additions_of_a_network_counted_by_hand():
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2, bias=False))
    batch = Batch({"tokens": torch.zeros(4, 7, dtype=torch.int64)}, {})
    path = (3 + 5 + 7) + (5 + 7) + (5 + 2 + 7)  # each parameter: its sides, and the positions
    assert additions(model, batch) == path + 4 * 7
    assert additions(model, batch, rows=100) == path + 100 * 7


def test_what_is_not_a_number_is_infinitely_far():
    one, other = torch.tensor([1.0, 2.0]), torch.tensor([1.0, math.nan])
    assert gap(one, other, 1.0) == gap(one, one + 1, math.nan) == gap(one, one + 1, 0.0) == math.inf
    assert gap(one, one, 0.0) == gap(one[:0], one[:0], 1.0) == 0.0
    assert largest(one, -3 * one, one[:0]) == 6.0 and nats(one) == 2.0 and nats(one / 4) == 1.0


class Otherwise(TorchDispatchMode):
    """A machine that rounds otherwise: every product and sum is off by up to ``units`` of its last
    digit, other numbers in every call, as other lengths are cut otherwise by other kernels."""

    SUMS = {
        "mm", "bmm", "addmm", "baddbmm", "sum", "mean", "exp_", "rsqrt", "_softmax",
        "_softmax_backward_data", "native_layer_norm", "native_layer_norm_backward",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    }  # fmt: skip

    def __init__(self, units):
        super().__init__()
        self.units, self.draws, self.touched = units, generator("another machine"), 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        found = function(*arguments, **(keywords or {}))
        first = found[0] if isinstance(found, tuple) else found
        name = function.overloadpacket.__name__
        if name in self.SUMS and first.dtype == torch.float64 and first.numel():
            error = torch.rand(first.shape, generator=self.draws, dtype=torch.float64) * 2 - 1
            first.mul_(1 + self.units * torch.finfo(torch.float64).eps * error)
            self.touched += 1
        return found


@pytest.mark.parametrize("proof", [equivalence, partition, padding])
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_proofs_hold_on_a_machine_that_rounds_otherwise(name, proof):
    with Otherwise(units=1) as machine:
        found = proof(SUBJECTS[name])
    assert machine.touched > 100
    assert found.passed, found.message


@pytest.mark.parametrize("proof", [equivalence, partition, padding])
def test_what_is_larger_than_rounding_is_no_rounding(proof):
    """The check above can fail: on a machine that loses a third of its digits."""
    with Otherwise(units=1e5):
        assert not proof(SUBJECTS["reconstruction"]).passed
