"""The reference run: small, enough for the gate, and never worse without being told."""

from dataclasses import replace
from pathlib import Path

import pytest

from niah.errors import NiahError
from niah.gate.accept import accept
from niah.gate.reference_files import holds_more
from niah.gate.verdict import run_gate
from niah.runs.store import read_rows
from tests.synthetic_rows import Synthetic, write_run

MADE = Synthetic(lengths=(1024, 4096), depths=(0.0, 0.5, 1.0), repeats=8)
WORSE = replace(MADE, arms={"dense": MADE.arms["dense"], "v4": lambda *_: 0.3}, weights="weights-2")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_reference_is_small_and_pairs_with_its_run(tmp_path: Path) -> None:
    run, reference = write_run(tmp_path / "run", MADE), tmp_path / "kept" / "reference"
    assert accept(run, reference) == [f"{reference}: there was none; it is {run} now"]
    assert not any(map(holds_more, read_rows(reference)))
    assert any(map(holds_more, read_rows(run)))
    sizes = [(folder / "rows.jsonl").stat().st_size for folder in (reference, run)]
    assert sizes[0] < sizes[1] / 2
    result = run_gate(run, reference, 0.15)
    assert result.verdict == "pass"
    assert {check.tax.lost for check in result.checks} == {0}
    assert [path.name for path in reference.parent.iterdir()] == ["reference"]


def test_what_changes_is_told(tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    accept(write_run(tmp_path / "run", MADE), reference)
    better = replace(MADE, arms={**MADE.arms, "v4": lambda *_: 1.0}, weights="weights-2")
    lines = accept(write_run(tmp_path / "later", better, note="another"), reference)
    said = "\n".join(lines)
    assert 'asked: note = "synthetic test data; no model answered", now "another"' in said
    assert 'v4: fingerprint = "weights-1", now "weights-2"' in said
    assert "v4: recall" in said
    assert "0 lost" in said
    assert len(read_rows(reference)) == len(read_rows(tmp_path / "later"))


def test_arms_that_came_and_went_are_told(tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    accept(write_run(tmp_path / "run", MADE), reference)
    dense, v4 = MADE.arms.values()
    other = replace(MADE, arms={"dense": dense, "fp8": v4})
    lines = accept(write_run(tmp_path / "later", other), reference)
    assert lines[-2:] == ["v4: no longer asked", "fp8: new"]


def test_a_fallen_recall_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    accept(write_run(tmp_path / "run", MADE), reference)
    before = contents(reference)
    worse = write_run(tmp_path / "worse", WORSE)
    with pytest.raises(NiahError, match=r"recall of v4 has fallen.*--despite-regression"):
        accept(worse, reference)
    assert contents(reference) == before
    accept(worse, reference, despite_regression=True)
    assert contents(reference) != before


def test_a_run_with_errors_is_no_reference(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", replace(MADE, error_every=7))
    with pytest.raises(NiahError, match="ended in an error"):
        accept(run, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


def test_other_questions_are_told_apart(tmp_path: Path) -> None:
    reference = tmp_path / "reference"
    accept(write_run(tmp_path / "run", MADE), reference)
    lines = accept(write_run(tmp_path / "other", replace(MADE, seed=5)), reference)
    assert sum("no question in common" in line for line in lines) == 2


def test_an_interrupted_run_is_no_reference(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    lines = (run / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "rows.jsonl").write_text("".join(lines[:-2]), encoding="utf-8")
    with pytest.raises(NiahError, match=r"is incomplete \(dense answered 47 of 48 questions, "):
        accept(run, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


@pytest.mark.parametrize(("repeats", "seed"), [(1, 0), (2, 0), (4, 9)])
def test_a_fall_that_nothing_can_show_is_refused_too(
    tmp_path: Path, repeats: int, seed: int
) -> None:
    """Too few streams, or no question in common."""
    right = replace(MADE, repeats=repeats, arms=dict.fromkeys(MADE.arms, lambda *_: 1.0))
    wrong = replace(right, arms={**right.arms, "v4": lambda *_: 0.0}, seed=seed)
    reference = tmp_path / "reference"
    accept(write_run(tmp_path / "run", right), reference)
    before, worse = contents(reference), write_run(tmp_path / "worse", wrong)
    with pytest.raises(NiahError, match="recall of v4 has fallen"):
        accept(worse, reference)
    assert contents(reference) == before
    accept(worse, reference, despite_regression=True)
