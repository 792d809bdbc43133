"""The graded signal: paired means as plain arithmetic has them, and nothing where not measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from niah.gate.formats import as_json, as_markdown, as_text
from niah.gate.verdict import run_gate
from niah.runs.tables import load_run
from niah.statistics.comparisons import load_comparisons
from niah.statistics.graded import (
    first_difference,
    graded_by,
    graded_of,
    parting_by,
    parting_of,
)
from tests.synthetic_rows import Synthetic, write_run

tokens = st.lists(st.integers(0, 3), max_size=6)


def pairs_of(baseline: list[float], compressed: list[float], streams: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {"baseline_logprob": baseline, "compressed_logprob": compressed, "stream_id": streams}
    )


def test_with_a_question_a_stream_it_is_the_paired_t_test() -> None:
    one, two = [-0.1, -0.4, -2.0, -0.3, -0.9], [-0.2, -1.4, -2.5, -0.2, -1.9]
    found = graded_of(pairs_of(one, two, [0, 1, 2, 3, 4]))
    assert found is not None
    expected = stats.ttest_rel(two, one).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.difference == pytest.approx(np.mean(two) - np.mean(one))
    assert (found.pairs, found.streams) == (5, 5)
    assert found.freedom == pytest.approx(4)


def test_pairs_of_equal_streams_count_as_their_means() -> None:
    one, two = np.zeros(12), np.repeat([-1.0, -2.0, -4.0], 4) + np.tile([-0.5, 0.5, 0.1, -0.1], 3)
    streams = [0] * 4 + [1] * 4 + [2] * 4
    found = graded_of(pairs_of(list(one), list(two), streams))
    assert found is not None
    means = two.reshape(3, 4).mean(axis=1)
    expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_one_stream_says_nothing_of_the_spread() -> None:
    found = graded_of(pairs_of([-1.0, -2.0], [-1.5, -3.0], [0, 0]))
    assert found is not None
    assert np.isnan(found.interval).all()
    assert not found.decidable


def test_pairs_that_are_not_measured_in_both_arms_are_left_out() -> None:
    nan = float("nan")
    found = graded_of(pairs_of([-1.0, nan, -3.0], [-2.0, -9.0, nan], [0, 1, 2]))
    assert found is not None
    assert (found.pairs, found.difference) == (1, -1.0)
    assert graded_of(pairs_of([nan], [-1.0], [0])) is None


@given(tokens, tokens)
def test_the_first_difference_is_where_the_common_beginning_ends(
    one: list[int], other: list[int]
) -> None:
    at = first_difference(one, other)
    if at is None:
        assert one == other
    else:
        assert one[:at] == other[:at]
        assert one[at : at + 1] != other[at : at + 1]


def test_where_answers_part_is_counted() -> None:
    pairs = pd.DataFrame(
        {
            "baseline_ids": [(1, 2, 3), (1, 2), (4,), None, (5, 6)],
            "compressed_ids": [(1, 2, 3), (1, 2, 9), (5,), (7,), (5, 7)],
        }
    )
    assert parting_of(pairs) == (4, 1, 1)
    assert parting_of(pairs.iloc[3:4]) is None
    assert parting_of(pairs.iloc[:1]) == (1, 1, None)


def test_a_run_tells_both_by_length(tmp_path: Path) -> None:
    """Made-up rows: -0.25 for a right answer, -4 for a wrong one, and 0.125 less if compressed."""
    run = load_run(write_run(tmp_path / "run", Synthetic((1024, 65536), repeats=4)))
    (comparison,) = load_comparisons([run])[1]
    sides = {arm: run.rows[run.rows["arm"] == arm].set_index("pair") for arm in ("dense", "v4")}
    by_length, parted = graded_by(comparison, "at_length"), parting_by(comparison, "at_length")
    assert set(by_length) == set(parted) == {1024, 65536}
    for length, found in by_length.items():
        dense = sides["dense"][sides["dense"]["length"] == length]
        v4 = sides["v4"].loc[dense.index]
        lost = (dense["recalled"] & ~v4["recalled"]).sum()
        assert found.difference == pytest.approx(-0.125 - 3.75 * lost / len(dense))
        assert parted[length].same == (dense["answer"] == v4["answer"]).sum()


def test_answers_with_text_and_no_tokens_are_not_known(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Synthetic((1024,), repeats=3))
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {"answer_ids": [], "gold_logprob": None}
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (comparison,) = load_comparisons([load_run(folder)])[1]
    assert graded_of(comparison.complete) is None
    assert parting_of(comparison.complete) is None


def test_the_gate_tells_it_and_does_not_decide_by_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Synthetic((1024, 4096), repeats=8))
    result = run_gate(folder, None, 0.05)
    (title, found), *_ = result.graded
    written = json.loads(as_json(result))["graded"]
    assert written[0]["comparison"] == title == "v4 against dense"
    assert written[0]["difference"] == pytest.approx(found.difference)
    assert written[0]["interval"] == list(found.interval)
    for text in (as_text(result), as_markdown(result)):
        assert "gold log-probability, v4 against dense: −0." in text
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row["gold_logprob"] = None
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    without = run_gate(folder, None, 0.05)
    assert without.graded == ()
    assert "gold log-probability" not in as_text(without)
    assert without.checks == result.checks
