"""How many streams a pass takes, against the gate's own test."""

from __future__ import annotations

import numpy as np
import pytest

from niah.statistics.intervals import tax_of_counts
from niah.statistics.power import can_pass, copies_to_pass


@pytest.mark.parametrize("sizes", [[1], [40], [8, 8], [120, 9, 9, 2]])
def test_as_many_streams_pass_and_fewer_do_not(sizes: list[int]) -> None:
    times = copies_to_pass(sizes, 0.05)
    assert can_pass(sizes * times, 0.05)
    assert not can_pass(sizes * (times - 1), 0.05) if times > 1 else True


def test_few_streams_cannot_pass_however_many_questions_they_hold() -> None:
    assert not can_pass([10_000] * 4, 0.02)
    assert not can_pass([10_000, 10], 0.5)
    assert can_pass([40] * 60, 0.02)


def test_a_narrow_margin_and_discordance_take_more_streams() -> None:
    wide, narrow = copies_to_pass([20], 0.1), copies_to_pass([20], 0.01)
    assert wide < narrow
    assert copies_to_pass([20], 0.02) < copies_to_pass([20], 0.02, discordance=0.2)


@pytest.mark.parametrize(
    ("each", "discordance", "margin"), [(12, 0.1, 0.05), (20, 0.03, 0.02), (40, 0.03, 0.05)]
)
def test_planned_power_is_reached(each: int, discordance: float, margin: float) -> None:
    """With as many streams as planned, about four of five runs without a tax pass, or more."""
    rng = np.random.default_rng(8)
    streams = copies_to_pass([each], margin, discordance)
    sizes = np.full(streams, each)
    passed = []
    for _ in range(300):
        lost = rng.binomial(sizes, discordance / 2)
        gained = rng.binomial(sizes - lost, discordance / 2)
        passed.append(tax_of_counts(sizes, lost, gained).p_at_most(margin) < 0.05)
    assert 0.73 <= np.mean(passed) <= 0.97


@pytest.mark.parametrize(
    ("arguments", "message"), [((0.0,), "margin is 0.0"), ((0.05, 1.5), "discordance is 1.5")]
)
def test_impossible_plans_are_refused(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        copies_to_pass([20], *arguments)
