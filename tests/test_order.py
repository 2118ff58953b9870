"""The plan of an epoch: windows that hold every token once, like lengths together, full rows."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import fake

from minicpt.common.errors import InputError
from minicpt.common.randomness import generator
from minicpt.data import order as order_module
from minicpt.data.choosing import spread, typical
from minicpt.data.order import NEWEST, Plan, group_by_length, planned, windows
from minicpt.data.packing import pack

always = settings(derandomize=True, deadline=None)
some_lengths = st.lists(st.integers(1, 9), min_size=1, max_size=40)


def mixed(count: int) -> torch.Tensor:
    """Lengths as those of a text's paragraphs: many short, few long."""
    draws = torch.rand(count, generator=generator("lengths"))
    return (2 + 120 * draws**3).long()


def padded(lengths: torch.Tensor, size: int) -> float:
    """The share of padding in batches of ``size``, each as wide as its longest member."""
    batches = lengths.split(size)
    return 1 - int(lengths.sum()) / sum(int(each.max()) * len(each) for each in batches)


def test_a_plan_cuts_only_what_is_asked_for():
    asked = []
    plan = Plan(torch.tensor([[1, 2], [3, 4], [5, 6]]), lambda a, b: asked.append((a, b)) or a * b)
    assert len(plan) == 3 and not asked
    assert plan[1] == 12 and plan[-1] == 30 and asked == [(3, 4), (5, 6)]
    assert plan[1:] == [12, 30] and list(plan) == [2, 12, 30] and plan[5:] == []
    for place in (3, -4):
        with pytest.raises(IndexError):
            plan[place]


def test_a_corpus_remembers_its_newest_plans_and_goes_with_them():
    class Counting:
        def __init__(self):
            self.asked = []

        def plan(self, corpus, seed, epoch):
            self.asked.append((seed, epoch))
            return Plan(windows(corpus, 3, seed, epoch), corpus.passage)

    one, other, corpus = Counting(), Counting(), fake([5, 2, 7])
    first = planned(one, corpus, 0, 0)
    assert planned(one, corpus, 0, 0) is first and one.asked == [(0, 0)]
    assert planned(other, corpus, 0, 0) is not first and other.asked == [(0, 0)]
    assert planned(one, fake([5, 2, 7]), 0, 0) is not first and one.asked == [(0, 0)] * 2
    for epoch in (1, 0, 1, 0):
        expected = one.plan(corpus, 4, epoch)
        assert torch.equal(planned(one, corpus, 4, epoch).rows, expected.rows)
    assert one.asked[2:] == [(4, 1), (4, 1), (4, 0), (4, 0), (4, 1), (4, 0)]
    assert len(corpus.plans) == NEWEST and planned(one, corpus, 0, 0) is not first
    gone = weakref.ref(corpus)
    del corpus, first, expected
    gc.collect()
    assert gone() is None


def test_windows_by_hand():
    """Documents of 5, 2 and 7 tokens, windows of 3, one position before each document."""
    rows = sorted(windows(fake([5, 2, 7]), size=3, seed=0, epoch=0, lead=1).tolist())
    assert rows == [[0, 2], [2, 5], [5, 7], [7, 9], [9, 12], [12, 14]]
    rows = sorted(windows(fake([5, 2, 7]), size=3, seed=0, epoch=0).tolist())
    assert rows == [[0, 3], [3, 5], [5, 7], [7, 10], [10, 13], [13, 14]]


@always
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=12),
    st.integers(1, 12),
    st.integers(0, 11),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_windows_hold_every_token_once(lengths, size, lead, seed, epoch):
    corpus, lead = fake(lengths), lead % size
    rows = windows(corpus, size, seed, epoch, lead)
    assert rows.dtype == torch.int64 and rows.shape[1] == 2
    assert torch.equal(rows, windows(corpus, size, seed, epoch, lead))
    held = sorted(place for start, stop in rows.tolist() for place in range(start, stop))
    assert held == list(range(len(corpus.tokens)))
    short = 0
    for start, stop in rows.tolist():
        passage = corpus.passage(start, stop)  # refuses a window across documents
        assert stop - start <= size - lead * passage.first
        short += stop - start < size - lead * passage.first and not passage.last
    if epoch == 0:
        assert not short  # only the last window of a document is short
    # No more windows than the cuts need: a document that fits is whole.
    for index, length in enumerate(lengths):
        if length <= size - lead:
            assert list(corpus.document(index)) in rows.tolist()


def test_epochs_differ_in_their_cuts():
    corpus = fake([100] * 20)
    cuts = [windows(corpus, 10, seed, epoch).tolist() for seed in range(2) for epoch in range(3)]
    assert cuts[0] == cuts[3]  # epoch 0 has phase 0 whatever the seed
    assert len(set(map(str, cuts))) == 5
    assert all(each == sorted(each) for each in cuts)
    # Each document has a phase of its own, over all of the room.
    firsts = {stop - start for start, stop in cuts[1] if start % 100 == 0}
    assert len(firsts) > 5 and firsts <= set(range(1, 11))


def test_a_document_that_only_the_lead_makes_too_long_has_a_phase_too():
    rows = windows(fake([4] * 50), 4, seed=0, epoch=1, lead=1).tolist()
    assert {stop - start for start, stop in rows if start % 4 == 0} == {1, 2, 3}


@pytest.mark.parametrize("size, lead", [(0, 0), (1, 1), (3, 4), (-2, 0)])
def test_a_window_without_room_is_refused(size, lead):
    with pytest.raises(InputError, match="no room"):
        windows(fake([3]), size, 0, 0, lead)


def test_a_million_windows_are_made_at_once():
    rows = windows(fake([1000] * 10_000), 10, 0, 1, 1)
    assert 1_000_000 <= len(rows) <= 1_020_000
    assert int((rows[:, 1] - rows[:, 0]).sum()) == 10_000_000


# --- like lengths together -------------------------------------------------------------------


def test_grouping_by_hand(monkeypatch):
    """Runs of two out of one pool: the shortest two, the next two, in whatever order; one left."""
    monkeypatch.setattr(order_module, "RUN", 2)
    found = set()
    for draw in range(60):
        order = group_by_length(torch.tensor([10, 30, 20, 40]), generator(draw)).tolist()
        found.add(tuple(order))
        left = group_by_length(torch.tensor([7, 7, 7]), generator(draw))
        assert sorted(left.tolist()) == [0, 1, 2]
    assert found == {(0, 2, 1, 3), (1, 3, 0, 2)}


def test_pools_are_drawn_at_random(monkeypatch):
    """Two pools of two: any two may meet, and the shorter of a pool comes first."""
    monkeypatch.setattr(order_module, "RUN", 2)
    monkeypatch.setattr(order_module, "POOL", 2)
    lengths = torch.tensor([1, 2, 3, 4])
    found = {tuple(group_by_length(lengths, generator(draw)).tolist()[:2]) for draw in range(60)}
    assert found == {(a, b) for b in range(4) for a in range(b)}


@always
@given(st.lists(st.integers(1, 300), max_size=300), st.integers(0, 3))
def test_grouping_is_a_permutation_and_pure(lengths, seed):
    lengths = torch.tensor(lengths, dtype=torch.int64)
    order = group_by_length(lengths, generator(seed))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert torch.equal(order, group_by_length(lengths, generator(seed)))


@pytest.mark.parametrize("size", [8, 12, 16, 32])
def test_batches_are_padded_little_and_stay_random(size):
    lengths = mixed(5000)
    plan = Plan(torch.arange(5000)[:, None], lambda place: place, lengths)
    grouped = plan.grouped(0, 0)
    assert padded(lengths, size) > 0.5
    assert padded(grouped.lengths, size) < 0.06
    # The members of a batch meet others in the next epoch.
    where = torch.empty(5000, dtype=torch.int64)
    where[plan.grouped(0, 1).rows[:, 0]] = torch.arange(5000) // size
    spread_over = [len(where[batch].unique()) for batch in grouped.rows[:, 0].split(size)]
    assert sum(spread_over) / len(spread_over) > size / 4
    # Short and long come in turns: no part of the epoch has a length of its own.
    quarters = [float(part.double().mean()) for part in grouped.lengths.split(1250)]
    assert max(quarters) < 3 * min(quarters)


def test_the_typical_passage_has_middling_length():
    lengths = torch.tensor([9, 1, 5, 30, 2])
    assert typical(Plan(lengths[:, None], lambda length: length, lengths)) == 5


# --- rows shared -----------------------------------------------------------------------------


@always
@given(some_lengths, st.integers(9, 20), st.integers(0, 2))
def test_packed_rows(lengths, size, seed):
    lengths = torch.tensor(lengths)
    order, rows = pack(lengths, size, generator(seed))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    edges = rows.flatten().tolist()
    assert edges[0] == 0 and edges[-1] == len(lengths) and edges[1:-1:2] == edges[2::2]
    filled = sorted(int(lengths[order[start:stop]].sum()) for start, stop in rows.tolist())
    assert filled[-1] <= size
    # No two rows would fit into one.
    assert len(filled) == 1 or filled[0] + filled[1] > size


def test_short_passages_fill_their_rows():
    lengths = mixed(5000)
    _, rows = pack(lengths, 128, generator(0))
    assert int(lengths.sum()) / (128 * len(rows)) > 0.99
    assert len({str(pack(lengths, 128, generator(draw))[0].tolist()) for draw in range(3)}) == 3


# --- what an evaluation takes ----------------------------------------------------------------


@always
@given(st.integers(1, 500), st.integers(1, 500))
def test_places_of_an_evaluation(total, count):
    count = min(count, total)
    plan = Plan(torch.arange(total)[:, None], lambda place: place, mixed(total)).grouped(0, 0)
    places = spread(plan, count)
    assert len(set(places)) == count and 0 <= min(places) <= max(places) < total
    gaps = {b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)}
    assert gaps <= {total // count, -(-total // count)}
    assert plan.lengths[places].tolist() == sorted(plan.lengths[places].tolist())


def test_an_evaluation_sees_all_lengths():
    plan = Plan(torch.arange(5000)[:, None], lambda place: place, mixed(5000)).grouped(0, 0)
    few = plan.lengths[spread(plan, 250)].double()
    assert abs(float(few.mean()) / float(plan.lengths.double().mean()) - 1) < 0.1
    assert padded(few.long(), 16) < 0.12 < padded(plan.lengths[:250], 250)


def test_passages_that_fill_their_windows_are_not_grouped():
    lengths = torch.full((2000,), 128)
    lengths[::20] = 8  # one in twenty is short: the mean is 122, above 0.75 * 128
    plan = Plan(torch.arange(2000)[:, None], lambda place: place, lengths).grouped(0, 0)
    assert sorted(plan[:]) == list(range(2000)) and plan[:20] != list(range(20))
    short = (plan.lengths.view(-1, 16) == 8).sum(dim=1)  # in each of 125 batches, 0.8 expected
    assert 0 < int(short.max()) < 8  # grouped, six batches would hold nothing else
    alone = Plan(plan.rows, plan.cut, lengths // 2 + 64 * (torch.arange(2000) % 2)).grouped(0, 0)
    assert float(alone.lengths[:16].double().std()) < 30  # half of them are half as long: grouped
