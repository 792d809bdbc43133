"""What a sweep can show, and how many streams a verdict takes, against the gate's own test."""

from __future__ import annotations

import numpy as np
import pytest

from niah.statistics.intervals import Tax, tax_of_counts
from niah.statistics.power import (
    MOST_SIMULATED,
    can_pass,
    copies_to_pass,
    correlation_of,
    more_samples,
    smallest_detectable_tax,
    streams_to_decide,
)


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
    """With as many streams as planned, about four of five runs without a tax pass; more, where the
    streams that a pass takes at all give more."""
    streams = copies_to_pass([each], margin, discordance)
    passed = [
        tax.p_at_most(margin) < 0.05 for tax in drawn([each] * streams, 0.0, discordance, 300)
    ]
    assert 0.73 <= np.mean(passed) <= 0.97


@pytest.mark.parametrize(
    "sizes",
    [[100] * 3, [96] * 6, [40] * 12, [20] * 24, [10] * 96, [5] * 300, [1] * 400, [90, 70, 60, 50]],
)
def test_a_detectable_tax_is_shown_in_four_of_five_runs(sizes: list[int]) -> None:
    smallest = smallest_detectable_tax(sizes, 0.03)
    assert smallest is not None
    for tax, least, most in ((smallest, 0.73, 0.9), (0.7 * smallest, 0.0, 0.72)):
        found = [each.p_above(0.0) < 0.05 for each in drawn(sizes, tax, 0.03, 300)]
        assert least <= np.mean(found) <= most


def test_few_streams_detect_less_and_fewest_nothing() -> None:
    found = [smallest_detectable_tax([480 // n] * n, 0.03) for n in (4, 12, 60)]
    assert found == sorted(found, key=lambda tax: -(tax or 0))
    assert smallest_detectable_tax([1000, 1000], 0.03) is None
    assert smallest_detectable_tax([1000, 1, 1], 0.03) is None
    assert smallest_detectable_tax([10**6, *[1] * MOST_SIMULATED], 0.03) is None


def test_questions_that_go_together_detect_less() -> None:
    alone, together = (smallest_detectable_tax([20] * 24, 0.1, each) for each in (0.0, 0.3))
    assert alone is not None
    assert together is not None
    assert together > 1.5 * alone


def test_the_closed_form_goes_on_where_simulation_ends() -> None:
    """Two points lost at 3% discordance, one-sided 5%, power 80%: about 460 independent pairs."""
    assert smallest_detectable_tax([1] * 460, 0.03) == pytest.approx(0.02, abs=2e-4)
    last, next_ = (smallest_detectable_tax([5] * (MOST_SIMULATED + n), 0.03) for n in (0, 1))
    assert last == pytest.approx(next_, rel=0.06)


def test_more_streams_like_those_seen_detect_less() -> None:
    tax = tax_of_counts([20] * 8, [4, 0, 0, 3, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0])
    found = more_samples(tax)
    assert list(found) == [160, 320, 640, 1600]
    assert list(found.values()) == sorted(found.values(), key=lambda smallest: -(smallest or 0))
    assert correlation_of(tax) > 0
    assert found[160] > (smallest_detectable_tax([20] * 8, tax.discordance) or 0)


@pytest.mark.parametrize(
    ("lost", "gained", "margin"), [(2, 1, 0.02), (1, 0, 0.02), (4, 0, 0.05), (9, 3, 0.05)]
)
def test_as_many_streams_as_advised_decide_in_four_of_five_runs(
    lost: int, gained: int, margin: float
) -> None:
    spread = np.arange(6)
    seen = tax_of_counts([48] * 6, lost // 6 + (spread < lost % 6), (spread < gained).astype(int))
    advised = streams_to_decide(seen, margin)
    assert advised is not None
    decided = [
        each.p_at_most(margin) < 0.05 or each.p_above(margin) < 0.05
        for each in drawn(advised, seen.value, seen.discordance, 300)
    ]
    assert 0.73 <= np.mean(decided) <= 0.93  # a single lost pair fewer or more is a large step


def test_what_lies_on_the_margin_is_never_decided() -> None:
    assert streams_to_decide(tax_of_counts([10] * 4, [1, 1, 0, 0], [0] * 4), 0.05) is None
    assert streams_to_decide(tax_of_counts([10] * 2, [1, 1], [0] * 2), 0.01) is None


def drawn(sizes: list[int], tax: float, discordance: float, runs: int) -> list[Tax]:
    """Of runs in which questions are independent."""
    rng = np.random.default_rng(8)
    differ = max(discordance, tax)
    chances = [(differ + tax) / 2, (differ - tax) / 2, 1 - differ]
    found = rng.multinomial(sizes, chances, size=(runs, len(sizes)))
    return [tax_of_counts(sizes, run[:, 0], run[:, 1]) for run in found]


@pytest.mark.parametrize(
    ("arguments", "message"), [((0.0,), "margin is 0.0"), ((0.05, 1.5), "discordance is 1.5")]
)
def test_impossible_plans_are_refused(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        copies_to_pass([20], *arguments)


@pytest.mark.parametrize(
    ("sizes", "discordance", "message"),
    [([], 0.03, "at least one pair"), ([20], -0.1, "discordance is -0.1")],
)
def test_impossible_sweeps_are_refused(sizes: list[int], discordance: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smallest_detectable_tax(sizes, discordance)
