"""Intervals hold what they promise: fixed cases by hand, and simulations with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from niah.statistics.intervals import (
    Tax,
    estimate_recall,
    estimate_tax,
    holm,
    wilson,
)


def simulated_tax(
    rng: np.random.Generator, streams: int, each: int, lost: float, gained: float, spread: float
) -> Tax:
    """One experiment: every stream draws its own chance of a loss, Beta with mean `lost`."""
    chance = rng.beta(lost / spread, (1 - lost) / spread, streams).repeat(each)
    draw = rng.random(streams * each)
    is_lost = draw < chance
    is_gained = (draw >= chance) & (draw < chance + gained)
    baseline = is_lost | (~is_gained & (rng.random(len(draw)) < 0.95))
    compressed = np.where(is_lost, False, np.where(is_gained, True, baseline))
    return estimate_tax(baseline & ~is_gained, compressed, np.arange(streams).repeat(each))


def test_wilson_of_ten_out_of_ten_is_the_published_value() -> None:
    assert wilson(10, 10).low == pytest.approx(0.722, abs=1e-3)
    assert wilson(1, 1).low == pytest.approx(0.207, abs=1e-3)


def test_recall_of_nothing_is_an_error_and_not_zero() -> None:
    with pytest.raises(ValueError, match="no questions"):
        estimate_recall(np.array([], dtype=bool))


def test_recall_interval_widens_when_streams_fail_together() -> None:
    together = np.repeat([True, True, True, False], 25)
    streams = np.repeat(np.arange(4), 25)
    apart = estimate_recall(together)
    clustered = estimate_recall(together, streams)
    assert clustered.value == apart.value == 0.75
    assert clustered.interval.low < apart.interval.low - 0.1


@pytest.mark.parametrize(
    ("streams", "each", "icc", "least"),
    [(4, 44, 0.05, 0.93), (8, 40, 0.1, 0.93), (24, 40, 0.1, 0.92), (60, 1, 0.05, 0.92)],
)
def test_recall_interval_coverage(streams: int, each: int, icc: float, least: float) -> None:
    """95% intervals hold the truth as often, with few streams too and with a question a stream."""
    rng = np.random.default_rng(streams)
    share = 1 / icc - 1
    hits = []
    for _ in range(400):
        chance = rng.beta(0.9 * share, 0.1 * share, streams).repeat(each)
        recalled = rng.random(streams * each) < chance
        low, high = estimate_recall(recalled, np.arange(streams).repeat(each)).interval
        hits.append(low <= 0.9 <= high)
    assert np.mean(hits) >= least


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (3, 1), (2, 9), (12, 12), (30, 7)])
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int) -> None:
    baseline = np.array([True] * lost + [False] * gained + [True] * 20)
    compressed = np.array([False] * lost + [True] * (gained + 20))
    tax = estimate_tax(baseline, compressed, np.arange(len(baseline)))
    exact = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert tax.p_mcnemar == pytest.approx(exact)


def test_tax_counts_by_hand() -> None:
    baseline = np.array([1, 1, 1, 1, 0, 0, 1, 1], dtype=bool)
    compressed = np.array([1, 0, 0, 1, 1, 0, 1, 1], dtype=bool)
    tax = estimate_tax(baseline, compressed, np.arange(8))
    assert (tax.lost, tax.gained, tax.pairs, tax.streams) == (2, 1, 8, 8)
    assert tax.value == pytest.approx(1 / 8)
    assert tax.baseline - tax.compressed == pytest.approx(tax.value)
    assert tax.defined


def test_no_disagreement_is_not_certainty() -> None:
    tax = estimate_tax(np.ones(44, bool), np.ones(44, bool), np.arange(44) % 4)
    assert tax.value == 0
    assert tax.interval.low < -0.03
    assert tax.interval.high > 0.03


def test_low_baseline_leaves_the_tax_undefined() -> None:
    assert not estimate_tax(np.arange(10) < 3, np.zeros(10, bool), np.arange(10)).defined


def test_unequal_arms_are_refused() -> None:
    with pytest.raises(ValueError, match="do not pair"):
        estimate_tax(np.ones(3, bool), np.ones(2, bool), np.arange(3))


def test_tests_and_intervals_agree() -> None:
    tax = simulated_tax(np.random.default_rng(1), 10, 40, 0.1, 0.02, 0.05)
    low, high = tax.interval_at(0.9)
    assert tax.p_at_most(high) == pytest.approx(0.05, rel=0.01)
    assert tax.p_above(low) == pytest.approx(0.05, rel=0.01)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 4)), min_size=1))
def test_swapping_the_arms_mirrors_the_tax(answers: list[tuple[bool, bool, int]]) -> None:
    one, two, streams = (np.array(column) for column in zip(*answers, strict=True))
    tax, mirror = estimate_tax(one, two, streams), estimate_tax(two, one, streams)
    assert tax.value == pytest.approx(-mirror.value)
    assert tax.interval.low == pytest.approx(-mirror.interval.high)
    assert tax.interval.low <= tax.value <= tax.interval.high


def test_ignoring_streams_would_not_cover() -> None:
    """The same simulation with every pair as its own stream: what the clustering is for."""
    rng = np.random.default_rng(5)
    hits = []
    for _ in range(300):
        chance = rng.beta(0.06 / 0.08, 0.94 / 0.08, 8).repeat(40)
        lost = rng.random(320) < chance
        low, high = estimate_tax(np.ones(320, bool), ~lost, np.arange(320)).interval
        hits.append(low <= 0.06 <= high)
    assert np.mean(hits) < 0.9


def test_holm_adjusts_for_the_number_of_looks() -> None:
    assert holm({"a": 0.01, "b": 0.04}) == pytest.approx({"a": 0.02, "b": 0.04})
    assert holm({}) == {}


def test_no_disagreement_has_the_closed_form() -> None:
    """Without a discordant pair the score interval ends at z^2 / (n + z^2) (Tango 1998)."""
    n = 20_000  # so many that Student's quantile is the normal one
    none = estimate_tax(np.ones(n, bool), np.ones(n, bool), np.arange(n))
    assert none.interval.high == pytest.approx(1.96**2 / (n + 1.96**2), rel=1e-3)
    assert none.interval.low == pytest.approx(-none.interval.high)
