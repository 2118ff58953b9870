"""Intervals miss a known truth as seldom as they say; corrections; choice on half of the text."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from test_comparison import results

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import coverage  # noqa: E402

from minicpt.comparison.parts import Part  # noqa: E402
from minicpt.comparison.statistics import (  # noqa: E402
    Figures,
    estimate,
    holm,
    interval,
)
from minicpt.comparison.student import quantile, within  # noqa: E402
from minicpt.comparison.summary import best, front, halves, rows  # noqa: E402
from minicpt.comparison.table import sentences  # noqa: E402

DOUBLE = torch.float64


# --- Student's t


@pytest.mark.parametrize(
    "df, t", [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (99, 1.9842)]
)
def test_quantiles_are_those_of_the_printed_table(df, t):
    assert quantile(0.05, df) == pytest.approx(t, abs=5e-5)
    assert within(quantile(0.05, df), df) == pytest.approx(0.95, abs=1e-12)


@pytest.mark.parametrize("df", [1, 2, 5, 30, 255])
def test_t_is_that_of_scipy(df):
    stats = pytest.importorskip("scipy.stats")
    for outside in (0.5, 0.01, 1e-6):
        assert quantile(outside, df) == pytest.approx(stats.t.isf(outside / 2, df), rel=1e-6)


# --- the interval


def test_an_interval_by_hand():
    """Seeds and units both vary, without any part of both: each level is a textbook's."""
    seeds, units = torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[-3.0, 3.0] * 10])
    found = estimate([Figures((5 + seeds + units).double(), torch.ones(3, 20, dtype=DOUBLE))])
    by_seed, by_unit = found.levels
    assert by_seed.below == pytest.approx(1 / math.sqrt(3)) and by_seed.df == 2
    assert by_unit.df == 19  # units are as far apart as can be: never narrower than Student's t
    assert by_unit.below >= (1 - 1e-9) * math.sqrt(20 * 9 / 19 / 20)
    half = math.hypot(4.302653 * by_seed.below, 2.093024 * by_unit.below)
    assert found.interval.low == pytest.approx(5 - half, rel=1e-6)


def test_what_seeds_and_units_do_together_counts_once():
    noise = torch.Generator().manual_seed(3)
    mixed = torch.randn(5, 4000, generator=noise, dtype=DOUBLE)
    by_seed, by_unit = estimate([Figures(mixed, torch.ones_like(mixed))]).levels
    assert by_unit.below < 0.3 / math.sqrt(5 * 4000)  # without the subtraction: 1


@pytest.mark.parametrize("value", [0.5, 2.0, -3.0])
def test_p_is_where_the_interval_touches_zero(value):
    seeds = value + torch.tensor([[-1.0], [0.0], [1.0]], dtype=DOUBLE)
    found = estimate([Figures(seeds.expand(3, 20), torch.ones(3, 20, dtype=DOUBLE))])
    t = abs(value) * math.sqrt(3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-3)  # closed form, 2 df
    assert (found.p < 0.05) == bool(found.interval.sign)


def test_a_few_large_losses_widen_the_side_where_more_of_them_would_lie():
    losses = torch.tensor([[0.0] * 15 + [1.0, 1.0, 2.0, 4.0, 9.0]], dtype=DOUBLE)
    (level,) = estimate([Figures(losses, torch.ones_like(losses))]).levels
    error = float(losses.std()) / math.sqrt(20)
    assert level.above > 1.5 * error and level.below == pytest.approx(error)


def test_one_seed_speaks_of_text_alone():
    (level,) = estimate([Figures(torch.ones(1, 20, dtype=DOUBLE), torch.ones(1, 20))]).levels
    assert level.df == 19


def test_one_unit_and_a_unit_without_targets_do_no_harm():
    ones = torch.ones(2, 1, dtype=DOUBLE)
    assert interval([Figures(ones, ones)]).sign == 1
    sums, sizes = torch.tensor([[1.0, 0.0, 2.0]] * 2), torch.tensor([[1.0, 0.0, 2.0]] * 2)
    found = interval([Figures(sums.double(), sizes.double())])
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "case, seeds, units",
    [("seeds", 2, 20), ("seeds", 3, 20), ("seeds", 5, 20), ("units", 3, 20), ("ratios", 3, 100),
     ("texts", 3, 20)],
)  # fmt: skip
def test_the_truth_is_missed_in_five_percent(case, seeds, units):
    trials = 300
    bound = 0.05 + 4 * coverage.error(0.05, trials)
    missed, _ = coverage.misses(interval, case, seeds, units, trials)
    assert missed <= bound
    if case == "seeds" and seeds < 5:  # and the test can tell
        assert coverage.misses(coverage.percentile, case, seeds, units, trials)[0] > bound


# --- many comparisons


def test_holm_by_his_procedure():
    """Rejected one after the other, against 0.05 / m, 0.05 / (m - 1), ... until one fails."""
    values = [0.001, 0.4, 0.012, 0.02, 0.03]
    assert holm(values) == pytest.approx([0.005, 0.4, 0.048, 0.06, 0.06])
    rejected = set()
    for rank, value in enumerate(sorted(values)):
        if value > 0.05 / (len(values) - rank):
            break
        rejected.add(value)
    assert rejected == {v for v, a in zip(values, holm(values), strict=True) if a <= 0.05}
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def noisy(seeds, units=24, **changes):
    """Results whose losses are off by -0.015, 0, 0.015, ... in each seed, without a remedy by 0."""
    found = results(**changes)
    base = next(iter(found))

    def shifted(result, by):
        losses = {
            side: {**each, "units": each["units"][:units], "heads": {
                "tokens": [[v + 3 * by for v in each["heads"]["tokens"][0][:units]],
                           each["heads"]["tokens"][1][:units]]}}
            for side, each in result["losses"]["causal-lm"].items()
        }  # fmt: skip
        return {**result, "losses": {"causal-lm": losses}}

    made = {base: shifted(found[base], 0.0)}
    for arm in changes:
        for seed in range(seeds):
            by = 0.015 * (seed - 1) * (arm != "nothing")
            part = found[Part("decoder", 0, "causal-lm", arm, 0)]
            made[Part("decoder", 0, "causal-lm", arm, seed)] = shifted(part, by)
    return made


def test_a_remedy_shows_only_after_the_correction():
    arms = dict(nothing=(1, 0.5), replay=(1, 0.2), kl=(1, 0.44), l2=(1, 0.46), lora=(1, 0.47))
    found = {row.arm: row for row in rows(noisy(3, **arms))}
    alone = {arm for arm, row in found.items() if row.spared and row.spared.sign}
    family = [each for row in found.values() if row.adjusted for each in row.adjusted.values()]
    assert len(family) == 8 and found["nothing"].adjusted is None
    lines = sentences(list(found.values()), str)
    shown = {arm for arm in arms if any(f", {arm}: forgets less" in line for line in lines)}
    assert alone == {"replay", "kl", "l2"} and shown == {"replay"}
    t = 0.06 / (0.015 / math.sqrt(3))  # of kl, the second smallest p of eight; 2 degrees of freedom
    assert found["kl"].adjusted["spared"] == pytest.approx(
        7 * (1 - t / math.sqrt(2 + t * t)), rel=1e-3
    )
    assert any("8 of causal-lm; Holm" in line and "exploratory" in line for line in lines)
    assert json.loads(json.dumps(found["kl"].plain()))["adjusted"] == found["kl"].adjusted


def test_a_sweep_is_in_no_family():
    found = {row.arm: row for row in rows(noisy(3, **{
        "nothing": (1, 0.5), "kl": (1, 0.3), "kl=0.1": (1, 0.4)}))}  # fmt: skip
    assert set(found["kl"].adjusted) == {"spared", "lost"} and found["kl=0.1"].adjusted is None


# --- one half chooses, the other reports


def test_halves_are_a_function_of_the_names():
    names = [f"document {number}" for number in range(31)]
    first, second = halves(names)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(31))
    assert abs(len(first) - len(second)) <= 1
    again, _ = halves(names[::-1])
    assert {names[::-1][place] for place in again} == {names[place] for place in first}


def test_the_best_is_chosen_on_one_half_and_reported_on_the_other():
    """kl is best on the half that chooses, and useless on the other; l2 is second on both."""
    found = results(nothing=(1, 0.5), kl=(1, 0.5), l2=(1, 0.25))
    for part, result in found.items():
        if part.arm == "kl":
            old = result["losses"]["causal-lm"]["old"]
            first, _ = halves(old["units"])
            for unit in first.tolist():
                old["heads"]["tokens"][0][unit] = 3 * 2.0  # nothing forgotten
    made = rows(found)
    kl = best(made)
    assert kl.arm == "kl" and kl.first_half["forgotten"] == 0
    assert kl.second_half["forgotten"].value == 0.5 and kl.forgotten.value == 0.25
    assert kl.plain()["second_half"]["net"]["value"] == 0.5
    assert [row.arm for row in front(made)] == ["kl"]  # on all units, l2 is as good
    last = sentences(made, str)[-1]
    assert "one half of the held-out text, kl is best" in last
    assert "On the other half, it gained +1.000 bits/byte" in last
    assert "it keeps 100% of the gain and spares 0% of the forgetting" in last
    assert "its lead over nothing is within noise" in last and "behind l2 by -0.250" in last


def test_the_best_strength_of_a_remedy_competes():
    made = rows(results(**{"nothing": (1, 0.5), "kl": (1, 0.3), "kl=0.1": (1, 0.125)}))
    assert best(made).arm == "kl=0.1"


def test_too_few_units_choose_nothing():
    made = rows(noisy(2, units=15, nothing=(1, 0.5), kl=(1, 0.25)))
    assert best(made) is None and made[0].first_half is made[0].second_half is None
    last = sentences(made, str)[-1]
    assert "takes 16 units of each text, and here are 15" in last
    assert [row.arm for row in front(made)]  # on all units
