"""Rows that would be miscounted are refused by name, not read as something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from niah.errors import NiahError
from niah.runs.tables import load_run
from tests.synthetic_rows import Synthetic, write_run

MADE = Synthetic((1024,), (0.5,), repeats=2)


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        ("correct", "maybe", "true, false, or null"),
        ("correct", 1, "true, false, or null"),
        ("role", "candidate", "one of baseline, compressed"),
        ("length", "1K", "a whole number from 1"),
        ("length", 1024.5, "a whole number from 1"),
        ("depth", 50, "a number from 0 to 1"),
        ("depth", "half", "a number from 0 to 1"),
        ("arm", None, "text"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(
    tmp_path: Path, field: str, value: object, right: str
) -> None:
    run = write_run(tmp_path / "run", MADE)
    first, *rest = (run / "rows.jsonl").read_text().splitlines()
    row = json.loads(first) | {field: value}
    (run / "rows.jsonl").write_text("\n".join([json.dumps(row), *rest, ""]))
    with pytest.raises(NiahError) as refused:
        load_run(run)
    assert f"row {row['key']}: {field} is {value!r}, should be {right}" in str(refused.value)


def test_a_field_that_is_missing_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    first, *rest = (run / "rows.jsonl").read_text().splitlines()
    row = json.loads(first)
    del row["depth"]
    (run / "rows.jsonl").write_text("\n".join([json.dumps(row), *rest, ""]))
    with pytest.raises(NiahError, match="lacks depth"):
        load_run(run)


@pytest.mark.parametrize(
    ("line", "reason"),
    [("{", "line 1 is no JSON: "), ("[]", "line 1 is not a row"), ("{}", "it has no 'key'")],
)
def test_a_line_that_is_no_row_says_why(tmp_path: Path, line: str, reason: str) -> None:
    run = write_run(tmp_path / "run", MADE)
    (run / "rows.jsonl").write_text(f"{line}\n")
    with pytest.raises(NiahError, match=reason):
        load_run(run)


def test_no_folder_and_no_rows_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NiahError, match="there is no such folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(NiahError, match=r"rows\.jsonl: No such file"):
        load_run(tmp_path)
