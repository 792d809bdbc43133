"""Bounds over errors and missing answers, against every assignment of small experiments."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niah.gate.verdict import decide
from niah.runs.tables import QUESTION
from niah.statistics.assignments import bounds_within, coarse_score_range, ranges_of, score_range
from niah.statistics.clusters import growth
from niah.statistics.comparisons import Comparison
from niah.statistics.score import gained_share, standardised

MARGIN = 0.1


def comparison_of(table: pd.DataFrame, floor: float = 0.5) -> Comparison:
    """Columns: stream, family, baseline, compressed and whether each failed."""
    pairs = pd.DataFrame(dict.fromkeys(QUESTION, 0.0), index=range(len(table)))
    return Comparison("v4 against dense", "dense", "v4", pairs.assign(**table), floor)


def assigned(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The table with its failed answers taken as right or wrong, in every way."""
    sides = ("baseline", "compressed")
    places = [(row, side) for side in sides for row in np.flatnonzero(table[f"{side}_failed"])]
    found = []
    for values in product((False, True), repeat=len(places)):
        whole = table.assign(baseline_failed=False, compressed_failed=False, incomplete=False)
        for (row, side), value in zip(places, values, strict=True):
            whole.loc[row, side] = value
        found.append(whole)
    return found


def table_of(
    rng: np.random.Generator,
    sizes: list[int],
    failed: int,
    lost: float,
    sides: tuple[str, ...] = ("baseline", "compressed"),
) -> pd.DataFrame:
    """Streams in two families; `failed` answers of one of `sides` are errors."""
    total = sum(sizes)
    baseline = rng.random(total) < 0.95
    table = pd.DataFrame(
        {
            "stream_id": np.repeat([f"s{number}" for number in range(len(sizes))], sizes),
            "family": rng.permutation(np.arange(total) % 2).astype(str),
            "baseline": baseline,
            "compressed": baseline & (rng.random(total) >= lost),
            "baseline_failed": False,
            "compressed_failed": False,
            "incomplete": False,
        }
    )
    for row in rng.choice(total, failed, replace=False):
        side = sides[rng.integers(0, len(sides))]
        table.loc[row, side], table.loc[row, f"{side}_failed"] = False, True
    return table


@pytest.mark.parametrize("seed", range(24))
def test_no_assignment_turns_a_verdict(seed: int) -> None:
    """Whole verdicts, with slices: a pass passes and a failure fails however errors turn out."""
    rng = np.random.default_rng(seed)
    lost = (0.0, 0.02, 0.5)[seed % 3]
    sizes = rng.integers(4, 14, size=rng.integers(8, 14)).tolist()
    table = table_of(rng, sizes, failed=int(rng.integers(1, 6)), lost=lost)
    arguments = (("family",), (MARGIN, MARGIN), 0.05)
    found = decide([comparison_of(table)], *arguments)
    every = [decide([comparison_of(whole)], *arguments) for whole in assigned(table)]
    verdicts = {run_verdict(checks) for checks in every}
    if run_verdict(found) in ("pass", "fail"):
        assert verdicts == {run_verdict(found)}
    for number, check in enumerate(found):
        if check.verdict in ("pass", "fail"):
            assert {checks[number].verdict for checks in every} == {check.verdict}


def run_verdict(checks: tuple) -> str:  # type: ignore[type-arg]
    from niah.gate.verdict import GateResult

    return GateResult("run", None, MARGIN, 0.05, checks).verdict


@pytest.mark.parametrize("seed", range(12))
def test_bounds_hold_for_every_assignment(seed: int) -> None:
    """The largest p-values are bounds, and not far from the largest ones that there are."""
    rng = np.random.default_rng(100 + seed)
    sizes = rng.integers(4, 14, size=rng.integers(8, 14)).tolist()
    table = table_of(rng, sizes, failed=4, lost=(0.0, 0.05, 0.4)[seed % 3])
    bounds = bounds_within(comparison := comparison_of(table, 0.0), comparison.pairs, MARGIN)
    taxes = [comparison_of(whole, 0.0).tax for whole in assigned(table)]
    at_most = [tax.p_at_most(MARGIN) for tax in taxes if tax]
    above = [tax.p_above(MARGIN) for tax in taxes if tax]
    assert max(at_most) <= bounds.p_at_most + 1e-9
    assert max(above) <= bounds.p_above + 1e-9
    assert bounds.least_p_above <= min(above) + 1e-9
    if bounds.p_at_most < 0.5:
        assert bounds.p_at_most <= max(at_most) + 0.06
    if bounds.p_above < 0.5:
        assert bounds.p_above <= max(above) + 0.06


def test_a_mixed_assignment_is_the_worst() -> None:
    """All errors lost: a failure at 5%. None lost: the same. One way in between: none."""
    rng = np.random.default_rng(38)
    sizes = [8] * int(rng.integers(4, 9))
    failed, lost = int(rng.integers(2, 6)), float(rng.choice([0.1, 0.2, 0.3, 0.5]))
    table = table_of(rng, sizes, failed, lost, sides=("compressed",))
    comparison, margin = comparison_of(table), 0.05
    taxes = [comparison_of(whole).tax for whole in assigned(table)]
    above = [tax.p_above(margin) for tax in taxes if tax]
    assert max(above[0], above[-1]) < 0.05 < max(above)
    assert bounds_within(comparison, comparison.pairs, margin).p_above >= max(above)
    (check,) = decide([comparison], (), (margin, margin), 0.05)
    assert check.verdict == "inconclusive"
    assert check.reason == f"{failed} errors or missing answers could turn the verdict"


def test_a_group_near_the_floor_is_once_in_and_once_out() -> None:
    table = table_of(np.random.default_rng(3), [6] * 12, failed=0, lost=0.0)
    second = np.flatnonzero(table["family"] == "1")
    table.loc[second, ["baseline", "compressed"]] = False
    table.loc[second[: len(second) // 2], ["baseline", "compressed"]] = True
    table.loc[second[-1], "baseline_failed"] = True
    comparison = comparison_of(table, 0.51)
    assert len(comparison.surely_answerable) < len(comparison.perhaps_answerable)
    bounds = bounds_within(comparison, comparison.pairs, MARGIN)
    every = [comparison_of(whole, 0.51).tax for whole in assigned(table)]
    assert bounds.p_at_most >= max(tax.p_at_most(MARGIN) for tax in every if tax) - 1e-9


def test_many_missing_answers_take_the_coarse_bound() -> None:
    """Hundreds of missing answers: the coarse bound is at least the fine one, and in time."""
    table = table_of(np.random.default_rng(5), [40] * 20, failed=60, lost=0.6)
    ranges = ranges_of(table)
    fine = score_range(ranges, MARGIN)
    ends = [int(part.sum()) for part in ranges[1:5]]
    coarse = coarse_score_range(int(ranges.sizes.sum()), ends, growth(ranges.sizes), MARGIN)
    assert coarse[0] <= fine[0]
    assert coarse[0] > 2  # 60 points lost of a margin of 10 are a failure still


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60), st.floats(0.0, 0.9))
@settings(max_examples=300)
def test_the_plain_score_grows_with_losses_and_falls_with_gains(
    pairs: int, lost: int, gained: int, tax: float
) -> None:
    if lost + gained >= pairs:
        return
    scores = []
    for more_lost, more_gained in ((0, 0), (1, 0), (0, 1)):
        share = gained_share(pairs, lost + more_lost, gained + more_gained, tax)
        scores.append(
            float(standardised(pairs, lost + more_lost, gained + more_gained, tax, share))
        )
    assert scores[1] >= scores[0] - 1e-6 * abs(scores[0])
    assert scores[2] <= scores[0] + 1e-6 * abs(scores[0])
