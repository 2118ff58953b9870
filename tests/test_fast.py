"""The forms in fewer passes: equal to their definitions, with the gradients of all inputs.

In three number formats, and where there is nothing: no rows, rows that may look at nothing. What
the forms of attention and loss promise beside that stands in test_attention.py and test_loss.py.
"""

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F

from minicpt.common.randomness import generator
from minicpt.fast import loss
from minicpt.fast.gate import gated_layer
from minicpt.fast.low_rank import low_rank
from minicpt.loss import head_losses
from minicpt.models.layers import attention, causal_mask
from minicpt.models.norm import RMSNorm
from minicpt.models.rotary import frequencies, rotate, rotation
from minicpt.models.t5 import biased_mask
from minicpt.proofs.bounds import gap, largest, tolerance
from minicpt.remedies.lora import products
from minicpt.terms import losses_with_terms

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
ROWS = pytest.mark.parametrize("rows", [0, 1, 5])


def numbers(*shape, dtype=torch.float64, key=0):
    found = torch.randn(shape, dtype=torch.float64, generator=generator("fast", key))
    return found.to(dtype).requires_grad_()


def same(forms, inputs, additions, format=None):
    """That both forms give the same values and gradients, in the same number format.

    In bfloat16 every operation of the plain form rounds, and what rounds less is no mistake.

    format  in which products are computed; None: that of the inputs
    """
    outcomes = []
    for form in forms:
        value = form(*inputs)
        weights = numbers(*value.shape, dtype=value.dtype, key=9).detach()
        found = torch.autograd.grad(value, inputs, weights, materialize_grads=True)
        outcomes.append((value, *found))
    for found, expected in zip(*outcomes, strict=True):
        assert found.shape == expected.shape and found.dtype == expected.dtype
        formats = found.dtype, format or inputs[0].dtype
        kind = max(formats, key=lambda each: torch.finfo(each).eps)
        found, expected = found.double(), expected.double()
        if found.numel():
            worst = gap(found, expected, max(largest(expected), 1.0))
            assert worst <= tolerance(additions, kind)


@DTYPES
@ROWS
def test_rms_norm(rows, dtype):
    norm, width = RMSNorm(12, 1e-5), 12
    x, weight = numbers(2, rows, width, dtype=dtype), numbers(width, dtype=dtype, key=1)

    def form(fused):
        def call(x, weight):
            norm.fused = fused
            return torch.func.functional_call(norm, {"weight": weight}, (x,))

        return call

    same([form(True), form(False)], (x, weight), width + 2 * rows)


def test_rms_norm_of_sixteen_bits_with_a_weight_of_thirty_two():
    norm, x = RMSNorm(12), numbers(2, 3, 12, dtype=torch.bfloat16)
    fused, (norm.fused, plain) = norm(x), (False, None)
    plain = norm(x)
    assert fused.dtype == plain.dtype == torch.float32
    assert gap(fused.double(), plain.double(), largest(plain)) <= tolerance(12, torch.bfloat16)


def test_rms_norm_of_zeros_is_zero_with_a_finite_gradient():
    norm, x = RMSNorm(4), torch.zeros(2, 4, requires_grad=True)
    norm(x).sum().backward()
    assert torch.equal(norm(x), torch.zeros(2, 4)) and torch.isfinite(x.grad).all()


@DTYPES
@ROWS
@pytest.mark.parametrize("positions", [torch.arange(5)[None], torch.tensor([[0, 1, 2, 0, 1]] * 2)])
def test_rotation(rows, dtype, positions):
    turns = rotation(positions[:, :rows], frequencies(8, 100.0, torch.float32))
    x = numbers(2, rows, 3, 8, dtype=dtype).transpose(1, 2)  # as the projections give it
    forms = [lambda x, fused=fused: rotate(x, turns, fused) for fused in (True, False)]
    same(forms, (x,), 4)


@DTYPES
@ROWS
@pytest.mark.parametrize("learning", ["x", "expand", "contract", "x expand contract"])
def test_gated_layer(rows, dtype, learning):
    each = {
        "x": numbers(2, rows, 6, dtype=dtype),
        "expand": numbers(14, 6, dtype=dtype, key=1),
        "contract": numbers(3, 7, dtype=dtype, key=2),
    }
    asked = learning.split()
    frozen = {name: value.detach() for name, value in each.items()}

    def layer(form):
        return lambda *found: form(**frozen | dict(zip(asked, found, strict=True)))

    def plain(x, expand, contract):
        gate, expanded = F.linear(x, expand).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * expanded, contract)

    inputs = [each[name] for name in asked]
    same([layer(gated_layer), layer(plain)], inputs, 8 + 6 * 7 + 14 + 2 * rows)


@DTYPES
@ROWS
@pytest.mark.parametrize("biased", [True, False])
def test_low_rank(rows, dtype, biased):
    weight = numbers(4, 6, dtype=dtype, key=1).detach()
    x, bias = numbers(rows, 6, dtype=dtype), numbers(4, dtype=dtype, key=2)
    factors = numbers(3, 6, dtype=dtype, key=3), numbers(3, 4, dtype=dtype, key=4)

    def form(call):
        return lambda x, first, second, bias=None: call(x, weight, bias, first, second, 1.5)

    inputs = (x, *factors, bias) if biased else (x, *factors)
    same([form(low_rank), form(products)], inputs, 4 * (6 + 3 * 6) + rows)


def test_products_under_autocast():
    """Autocast does not look into these forms: they take the format that it gives to products."""
    x, expand, contract = (numbers(*n, key=n[0]).float() for n in ((5, 6), (14, 6), (6, 7)))
    first, second = (numbers(3, 6, key=n).float() for n in (3, 4))
    weight = numbers(6, 6, key=5).float()
    inputs = [each.detach().requires_grad_() for each in (x, expand, contract, first, second)]

    def form(layer, beside):
        def call(x, expand, contract, first, second):
            with torch.autocast("cpu", torch.bfloat16):
                return beside(layer(x, expand, contract), weight, None, first, second, 1.5)

        return call

    def plain(x, expand, contract):
        gate, expanded = F.linear(x, expand).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * expanded, contract)

    forms = [form(gated_layer, low_rank), form(plain, products)]
    assert forms[0](*inputs).dtype == torch.bfloat16
    same(forms, inputs, 100, torch.bfloat16)


@DTYPES
@pytest.mark.parametrize("positions", [0, 1, 5])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_attention(dtype, positions, groups, biased, dropout):
    """Two heads of keys, each for ``groups`` heads of queries, and a row that sees nothing."""
    mask = causal_mask(positions).repeat(2, 1, 1, 1)
    mask[1, :, :1] = False
    shapes = (2, 2 * groups, positions, 8), *2 * [(2, 2, positions, 8)]
    inputs = [numbers(*shape, dtype=dtype, key=n) for n, shape in enumerate(shapes)]
    if biased:
        inputs.append(numbers(2 * groups, positions, positions, dtype=dtype, key=3))

    def form(fused):
        def call(query, key, value, bias=None):
            torch.manual_seed(0)
            seen = mask if bias is None else biased_mask(mask, bias)
            return attention(query, key, value, seen, dropout=dropout, fused=fused)

        return call

    same([form(True), form(False)], inputs, 3 * (5 + 8))


class Given(NamedTuple):
    """A head of weights that are given."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, hidden):
        return F.linear(hidden, self.weight, self.bias)


@DTYPES
@ROWS
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("alike", [False, True], ids=["factors", "mean"])
@pytest.mark.parametrize("terms", [{}, {"z-loss": 0.1, "label-smoothing": 0.2}], ids=["", "terms"])
def test_head_and_loss(rows, dtype, biased, alike, terms, monkeypatch):
    """A few rows at a time, with factors of the losses that are the same, and that are not."""
    monkeypatch.setattr(loss, "ROWS", 1)
    monkeypatch.setattr(loss, "LOGITS", 14)  # two rows of seven
    targets = torch.arange(rows) * 3 % 7

    def form(fused):
        def call(hidden, weight, bias=None):
            given = Given(weight, bias)
            if terms:
                found, _ = losses_with_terms(given, hidden, targets, terms, fused)
            else:
                found = head_losses(given, hidden, targets, fused)
            return found.sum() if alike else found

        return call

    inputs = [numbers(rows, 6, dtype=dtype), numbers(7, 6, dtype=dtype, key=5)]
    if biased:
        inputs.append(numbers(7, dtype=dtype, key=6))
    same([form(True), form(False)], inputs, 3 * (6 + 7) + rows)
