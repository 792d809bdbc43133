"""Slices at the ceiling or the floor of every arm are flagged, and no others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from niah.gate.formats import as_text
from niah.gate.verdict import run_gate
from niah.runs.tables import load_run
from niah.statistics.saturation import saturated
from tests.synthetic_rows import Synthetic, write_run


def easy_and_hard(length: int, depth: float, family: str) -> float:
    return {"easy": 1.0, "hard": 0.0}.get(family, 0.8)


MADE = Synthetic(
    lengths=(1024, 4096),
    families=("easy", "hard", "middle"),
    repeats=4,
    arms={"dense": easy_and_hard, "v4": lambda *_: 1.0},
)


def test_a_family_at_the_ceiling_and_one_at_the_floor_are_flagged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    found = saturated(load_run(run).rows)
    assert [(one.value, one.at, one.asked) for one in found] == [
        ("easy", "ceiling", 88),
        ("hard", "floor", 88),
    ]
    assert found[0].text == (
        "Needle family easy cannot tell arms apart: every arm is right in all of 88 questions"
    )
    assert "note: Needle family hard cannot tell arms apart" in as_text(run_gate(run, None, 0.05))


def test_one_wrong_answer_of_one_arm_is_enough(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    next(row for row in rows if row["family"] == "easy" and row["arm"] == "v4")["correct"] = False
    next(row for row in rows if row["family"] == "hard")["correct"] = True
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert saturated(load_run(run).rows) == []


def test_an_error_is_neither_and_one_arm_has_none_to_be_told_from(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    next(row for row in rows if row["family"] == "hard").update(correct=None, error="full")
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [one.value for one in saturated(load_run(run).rows)] == ["easy"]
    alone = load_run(run).rows
    assert saturated(alone[alone["arm"] == "dense"]) == []


def test_a_slice_that_an_arm_was_not_asked_is_none(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", replace(MADE, families=("easy",)))
    rows = load_run(run).rows
    assert {found.column for found in saturated(rows)} == {"family", "at_length", "corpus"}
    part = rows[(rows["arm"] != "v4") | (rows["length"] == 1024)]
    assert [found.name for found in saturated(part)] == ["Length 1K"]
