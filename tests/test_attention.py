"""Attention against answers worked by hand, and its fused form against the written-out one."""

import math

import pytest
import torch
from making import close

from minicpt.models.layers import attention, causal_mask, padding_mask
from minicpt.models.t5 import biased_mask

FORMS = pytest.mark.parametrize("fused", [False, True], ids=["written-out", "fused"])
# Additions from query to gradient: scores over a width of 8, softmax and mix over at most 7 keys,
# all of it once more on the way back, and for a bias the sum over 2 rows.
WAY = 2 * (8 + 7 + 7) + 2
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def heads(*rows):
    """Vectors as one batch of one head: (1, 1, len(rows), width)."""
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def random_case(dtype=torch.float64, queries=5, keys=7):
    noise = torch.Generator().manual_seed(0)
    shapes = [(2, 3, queries, 8), (2, 3, keys, 8), (2, 3, keys, 8), (3, queries, keys)]
    tensors = [torch.randn(s, dtype=dtype, generator=noise).requires_grad_() for s in shapes]
    mask = torch.rand((2, 1, queries, keys), generator=noise) < 0.6
    mask[..., 0] = True
    return *tensors, mask


def test_causal_mask_is_the_lower_triangle_with_the_diagonal():
    assert causal_mask(4).tolist() == [[key <= query for key in range(4)] for query in range(4)]
    assert causal_mask(1).tolist() == [[True]]


def test_padding_mask_broadcasts_over_heads_and_queries():
    rows = torch.tensor([[True, False], [True, True]])
    assert padding_mask(rows).shape == (2, 1, 1, 2)
    assert torch.equal(padding_mask(rows)[:, 0, 0], rows)
    pattern = torch.rand(2, 3, 3) < 0.5
    assert padding_mask(pattern).shape == (2, 1, 3, 3)
    assert torch.equal(padding_mask(pattern)[:, 0], pattern)


@FORMS
def test_hand_worked_answer(fused):
    # Scores 0 and ln 3: weights 1/4 and 3/4. The third key would win, and must not be seen.
    query, key = heads([1.0, 0.0]), heads([0.0, 9.0], [math.log(3), 9.0], [50.0, 0.0])
    value = heads([4.0, 0.0], [0.0, 8.0], [1000.0, 1000.0])
    mask = torch.tensor([True, True, False])
    mixed = attention(query, key, value, mask[None, None, None], scale=1.0, fused=fused)
    torch.testing.assert_close(mixed, heads([1.0, 6.0]))


@FORMS
def test_the_scale_is_one_over_the_root_of_the_width_of_a_head(fused):
    # Width 4, so scores are halved: 2 ln 3 becomes ln 3.
    query, key = heads([2.0, 0, 0, 0]), heads([0.0, 0, 0, 0], [math.log(3), 0, 0, 0])
    mixed = attention(query, key, heads([4.0], [0.0]), torch.ones(1, 1, 1, 2).bool(), fused=fused)
    torch.testing.assert_close(mixed, heads([1.0]))


@FORMS
def test_a_bias_is_added_to_the_scores_and_the_mask_stays(fused):
    query, key, value = heads([0.0]), heads([1.0], [1.0], [1.0]), heads([4.0], [0.0], [1000.0])
    bias = torch.tensor([[[0.0, math.log(3), 99.0]]], dtype=torch.float64)  # (H, T, S)
    mask = biased_mask(torch.tensor([[[[True, True, False]]]]), bias)
    mixed = attention(query, key, value, mask, scale=1.0, fused=fused)
    torch.testing.assert_close(mixed, heads([1.0]))


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_fused_equals_written_out_in_value_and_gradient(biased, scale):
    query, key, value, bias, mask = random_case()
    wanted = [query, key, value, *([bias] if biased else [])]
    results = []
    for fused in (False, True):
        seen = biased_mask(mask, bias) if biased else mask
        mixed = attention(query, key, value, seen, scale=scale, fused=fused)
        results.append([mixed, *torch.autograd.grad(mixed.square().sum(), wanted)])
    for written, kernel in zip(*results, strict=True):
        close(written, kernel, WAY)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_fused_drops_the_same_weights_as_written_out(biased, scale):
    query, key, value, bias, mask = random_case()
    wanted = [query, key, value, *([bias] if biased else [])]
    results = []
    for fused in (False, True):
        torch.manual_seed(3)
        seen = biased_mask(mask, bias) if biased else mask
        mixed = attention(query, key, value, seen, scale=scale, dropout=0.3, fused=fused)
        results.append([mixed, *torch.autograd.grad(mixed.square().sum(), wanted)])
    for written, kernel in zip(*results, strict=True):
        close(written, kernel, WAY)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_second_derivative_is_never_silently_wrong(biased, dropout):
    """That of the written-out form is that of finite differences; torch's kernel may refuse it."""
    query, key, value, bias, mask = random_case(queries=2, keys=3)
    wanted = (query, key, value, *([bias] if biased else []))

    def mixed(fused):
        torch.manual_seed(3)
        seen = biased_mask(mask, bias) if biased else mask
        return attention(query, key, value, seen, dropout=dropout, fused=fused)

    assert torch.autograd.gradgradcheck(lambda *_: mixed(False), wanted)
    results = []
    for fused in (False, True):
        first = torch.autograd.grad(mixed(fused).square().sum(), wanted, create_graph=True)
        try:
            results.append(torch.autograd.grad(sum(g.square().sum() for g in first), wanted))
        except RuntimeError as refused:
            assert fused and "is not implemented" in str(refused)
            return
    for written, kernel in zip(*results, strict=True):
        close(written, kernel, 2 * WAY)


@FORMS
@TYPES
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("size", [5, 64])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_query_that_may_look_at_nothing_gives_zeros(fused, dtype, biased, size, dropout):
    query, key, value, bias, mask = random_case(dtype, size, size)
    mask[0, :, 1] = False
    seen = biased_mask(mask, bias) if biased else mask
    mixed = attention(query, key, value, seen, dropout=dropout, fused=fused)
    assert mixed.isfinite().all()
    assert not mixed[0, :, 1].any()
    assert mixed[0, :, 2].any()
    mixed.square().sum().backward()
    for tensor in (query, key, value, *([bias] if biased else [])):
        assert tensor.grad.isfinite().all()
    assert not query.grad[0, :, 1].any()
    assert query.grad[0, :, 2].any()


@FORMS
def test_what_may_not_be_seen_has_no_influence(fused):
    query, key, value, _, mask = random_case()
    before = attention(query, key, value, mask, fused=fused)
    hidden = ~mask[0, 0].any(0)
    hidden[3] = True
    mask = mask & ~hidden
    before = attention(query, key, value, mask, fused=fused)
    loud = torch.where(hidden[:, None], 1e3, 0.0)
    after = attention(query, key + loud, value - loud, mask, fused=fused)
    assert torch.equal(before, after)


@FORMS
def test_dropout_keeps_the_mean_and_drops_weights(fused):
    torch.manual_seed(0)
    query, key = torch.zeros(1, 1, 4000, 2), torch.zeros(1, 1, 10, 2)
    value, mask = torch.ones(1, 1, 10, 1), torch.ones(1, 1, 1, 10, dtype=torch.bool)
    mixed = attention(query, key, value, mask, dropout=0.5, fused=fused)
    assert abs(mixed.mean().item() - 1.0) < 0.05
    assert mixed.std() > 0.1
