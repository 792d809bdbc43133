"""Verdicts and intervals over simulated experiments: a quick form of tests.simulations.verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulations.verdicts import DESIGNS, KINDS, rates

DRAWS = 400
# Three standard errors of a share of 6% (or 93%) in so many draws: what chance alone may add.
TOLERANCE = 3 * (0.06 * 0.94 / DRAWS) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("design", "margin"),
    [("8 × 40", 0.05), ("8 × 200", 0.02), ("12 × 20", 0.02), ("24 × 40", 0.05), ("96 × 10", 0.05)],
)
def test_few_verdicts_are_wrong_at_the_margin(design: str, margin: float, kind: str) -> None:
    """At most 6% of passes and of failures; intervals of 95% hold the truth in 93%."""
    found = rates(DESIGNS[design], margin, 0.1, kind, DRAWS)
    assert found.wrong_pass <= 0.06 + TOLERANCE
    assert found.wrong_fail <= 0.06 + TOLERANCE
    assert found.covered >= 0.93 - TOLERANCE


def test_streams_that_a_quick_run_can_draw() -> None:
    """One design of the table, for a quick run of the suite."""
    found = rates(DESIGNS["8 × 200"], 0.05, 0.1, "few bad streams", 150)
    assert found.wrong_pass <= 0.12
    assert found.covered >= 0.9


def test_the_table_of_the_docs_has_every_design() -> None:
    table = Path("docs/statistics.md").read_text(encoding="utf-8")
    for name in DESIGNS:
        (line,) = (line for line in table.splitlines() if line.startswith(f"| {name} |"))
        within_bar = [cell.split(" / ") for cell in line.split("|")[2:5]]
        for wrong_pass, wrong_fail, covered in within_bar:
            assert float(wrong_pass) <= 6
            assert float(wrong_fail) <= 6
            assert float(covered) >= 93


def test_unequal_streams_decide_nothing() -> None:
    """120, 9, 9 and 2 questions: streams - 1 degrees of freedom passed 12 to 31% wrongly."""
    found = rates(DESIGNS["120, 9, 9, 2"], 0.05, 0.1, "beta", 200)
    assert (found.wrong_pass, found.wrong_fail, found.covered) == (0, 0, 1)
