"""The tests of many drawn runs at once are those of each run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niah.statistics.intervals import tax_of_counts
from niah.statistics.simulated import draw, robusts, scores, shown

SHARES = st.floats(0, 0.4)


@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=12),
    st.floats(-0.4, 0.4),
    SHARES,
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.sampled_from([0.0, 0.02, 0.3, -0.1]),
)
def test_each_run_is_judged_as_alone(
    sizes: list[int], tax: float, discordance: float, correlation: float, margin: float
) -> None:
    runs = draw(sizes, tax, discordance, correlation, runs=4)
    found = shown(runs, margin, 0.05)
    each = zip(runs.lost, runs.gained, scores(runs, margin), robusts(runs, margin), strict=True)
    for number, (lost, gained, score, robust) in enumerate(each):
        alone = tax_of_counts(sizes, lost, gained)
        assert alone.statistics(margin) == pytest.approx((score, robust), rel=1e-9, abs=1e-9)
        assert found.below[number] == (alone.p_at_most(margin) < 0.05)
        assert found.above[number] == (alone.p_above(margin) < 0.05)


@pytest.mark.parametrize("correlation", [0.0, 0.2])
def test_runs_have_the_shares_and_the_correlation_asked_for(correlation: float) -> None:
    runs = draw([10] * 40, 0.1, 0.3, correlation, runs=400)
    assert runs.lost.mean() / 10 == pytest.approx(0.2, abs=0.005)
    assert runs.gained.mean() / 10 == pytest.approx(0.1, abs=0.005)
    grown = runs.lost.var() / (10 * 0.2 * 0.8)
    assert grown == pytest.approx(1 + 9 * correlation, rel=0.05)


def test_the_same_arguments_give_the_same_runs() -> None:
    first, again = (draw([5, 9], 0.1, 0.2, 0.1) for _ in range(2))
    assert np.array_equal(first.lost, again.lost)
    assert not np.array_equal(first.lost, first.gained)
