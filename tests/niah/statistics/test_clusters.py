"""CR2 and Satterthwaite's freedom against the matrices they are defined by."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag, sqrtm
from scipy.stats import betabinom, binom

from niah.statistics.clusters import (
    CORRELATIONS,
    cr2_variance,
    design_effect,
    growth,
    likeliest_correlation,
    log_likelihoods,
    satterthwaite_freedom,
)

MILLION = [120, 9, 9, 2]


def by_matrices(values: np.ndarray, sizes: list[int]) -> tuple[float, float]:
    """CR2 variance of a regression on a constant and its freedom, as Pustejovsky & Tipton (2018)
    define them: residuals of a cluster times the inverse root of its block of I - H."""
    total = sum(sizes)
    ones = np.ones((total, 1))
    annihilator = np.eye(total) - ones @ ones.T / total
    edges = np.cumsum([0, *sizes])
    blocks = [annihilator[a:b, a:b] for a, b in pairwise(edges)]
    adjust = block_diag(*(np.linalg.inv(np.real(sqrtm(block))) for block in blocks))
    members = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    rows = (members.T @ adjust @ annihilator) / total  # variance = sum of (rows @ values)^2
    inner = rows @ rows.T
    return float(((rows @ values) ** 2).sum()), float(np.trace(inner) ** 2 / (inner**2).sum())


@pytest.mark.parametrize("sizes", [[5, 5, 5], [3, 9], MILLION, [1, 2, 3, 4, 20], [1] * 6, [40, 40]])
def test_closed_forms_are_those_of_the_matrices(sizes: list[int]) -> None:
    values = np.random.default_rng(len(sizes)).integers(-1, 2, sum(sizes)).astype(float)
    sums = np.add.reduceat(values, np.cumsum([0, *sizes[:-1]]))
    asked = np.array(sizes, dtype=float)
    variance, freedom = by_matrices(values, sizes)
    assert cr2_variance(sums, asked) == pytest.approx(variance, rel=1e-8)
    assert satterthwaite_freedom(asked) == pytest.approx(freedom, rel=1e-8)


def test_freedom_of_equal_and_unequal_streams() -> None:
    assert satterthwaite_freedom(np.full(12, 7.0)) == pytest.approx(11)
    assert satterthwaite_freedom(np.array(MILLION, dtype=float)) == pytest.approx(1.2, abs=0.01)
    assert satterthwaite_freedom(np.array([7.0])) == 0


@given(st.lists(st.integers(1, 300), min_size=2, max_size=30))
def test_freedom_is_from_one_to_streams_less_one(sizes: list[int]) -> None:
    freedom = satterthwaite_freedom(np.array(sizes, dtype=float))
    assert 1 - 1e-9 <= freedom <= len(sizes) - 1 + 1e-9


def test_design_effect_grows_with_what_streams_share() -> None:
    sizes = np.full(20, 30.0)
    rng = np.random.default_rng(2)
    alike = rng.random(20).repeat(30)
    apart = rng.random(600)
    effects = [
        design_effect(values.reshape(20, 30).sum(axis=1), sizes, float(values.var(ddof=1)))
        for values in (alike, apart)
    ]
    assert effects[0] > 20
    assert 1 <= effects[1] < 2
    assert design_effect(np.array([12.0]), np.array([30.0]), 0.2) == 30  # they count as one


def test_log_likelihoods_are_beta_binomial() -> None:
    """Without the binomial coefficient, which is that of one share as of another."""
    shares = np.array([0.01, 0.3])
    found = log_likelihoods(np.array([9, 9]), np.array([0, 4]), shares)
    for number, (count, ways) in enumerate(((0, 1), (4, 126))):
        spread = 1 / CORRELATIONS[-1] - 1
        most = betabinom.logpmf(count, 9, spread * shares, spread * (1 - shares)) - np.log(ways)
        plain = binom.logpmf(count, 9, shares) - np.log(ways)
        assert found[number, -1] == pytest.approx(most)
        assert found[number, 0] == pytest.approx(plain)


def test_the_likeliest_correlation_follows_the_streams() -> None:
    sizes = np.full(30, 40)
    even, uneven = np.full(30, 2), np.repeat([12, 0], [5, 25])
    share = np.array([0.05])
    assert likeliest_correlation(sizes, even, even, share) == 0
    assert likeliest_correlation(sizes, uneven, uneven, share) == 0.1
    none = np.zeros(30, dtype=int)  # no loss where 5% is supposed: it must sit in few streams
    assert likeliest_correlation(sizes, none, none, share) == 0.1


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=4
    ),
    st.floats(0.01, 0.6),
)
@settings(max_examples=40)
def test_no_assignment_is_likelier_with_a_larger_correlation(
    streams: list[tuple[int, int, int]], share: float
) -> None:
    """`low` to `high`: the bound is at least what every count between them gives."""
    sizes = np.array([size + low + more for size, low, more in streams])
    low = np.array([low for _, low, _ in streams])
    high = low + np.array([more for *_, more in streams])
    bound = likeliest_correlation(sizes, low, high, np.array([share]))[0]
    for counts in product(*(range(a, b + 1) for a, b in zip(low, high, strict=True))):
        found = np.array(counts)
        assert likeliest_correlation(sizes, found, found, np.array([share]))[0] <= bound


@pytest.mark.parametrize(("sizes", "more"), [([1, 1, 1], 0.0), ([3, 3], 2.0), ([1, 3], 1.5)])
def test_what_correlation_adds_to_the_variance_of_a_mean(sizes: list[int], more: float) -> None:
    """var(mean) = v / N (1 + correlation * growth), from the sum over pairs of one stream."""
    assert growth(np.array(sizes)) == pytest.approx(more)
