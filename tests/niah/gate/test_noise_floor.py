"""The noise floor in the gate: what the baseline loses when it is asked once more is no verdict."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from niah.gate.formats import as_json, as_junit, as_markdown, as_text
from niah.gate.verdict import run_gate
from tests.synthetic_rows import repeated_run


def test_a_repeat_that_is_right_everywhere_changes_no_verdict(tmp_path: Path) -> None:
    for kept, verdict in ((1.0, "pass"), (0.8, "fail")):
        result = run_gate(repeated_run(tmp_path / verdict, kept, 1.0), None, 0.05)
        assert result.verdict == verdict
        assert result.noise[0].discordance.correct == 0


def test_a_loss_that_the_baseline_has_too_does_not_fail(tmp_path: Path) -> None:
    """v4 loses 20 points, and so does the baseline once more: the noise floor explains it."""
    run = repeated_run(tmp_path / "run", 0.8, 0.8)
    result = run_gate(run, None, 0.05)
    assert result.verdict == "inconclusive"
    assert result.checks[0].reason == (
        "the noise floor explains it: against again, the baseline once more, no fail"
    )
    rows = [line for line in (run / "rows.jsonl").read_text().splitlines() if "again" not in line]
    (run / "rows.jsonl").write_text("\n".join(rows))
    assert run_gate(run, None, 0.05).verdict == "fail"


def test_a_pass_below_the_noise_floor_is_none(tmp_path: Path) -> None:
    """v4 loses nothing; the baseline once more loses 20 points: the margin of 5 is noise."""
    result = run_gate(repeated_run(tmp_path / "run", 1.0, 0.8), None, 0.05)
    assert result.verdict == "inconclusive"
    assert "the noise floor is above the margin" in result.checks[0].reason


def test_a_baseline_that_recalls_more_when_asked_again_is_noise_too(tmp_path: Path) -> None:
    """The repeat recalls 10 points more: above a margin of 5 points, below one of 20."""
    run = repeated_run(tmp_path / "run", 1.0, 0.9)
    swapped = {"dense": "again", "again": "dense"}
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row["arm"] = swapped.get(row["arm"], row["arm"])
        row["role"] = {"dense": "baseline", "again": "repeat"}.get(row["arm"], row["role"])
    (run / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run_gate(run, None, 0.2).verdict == "pass"
    assert "noise floor" in run_gate(run, None, 0.05).checks[0].reason


def test_a_large_loss_beyond_the_noise_still_fails(tmp_path: Path) -> None:
    assert run_gate(repeated_run(tmp_path / "run", 0.5, 0.9), None, 0.05).verdict == "fail"


def test_every_form_of_the_gate_tells_it(tmp_path: Path) -> None:
    result = run_gate(repeated_run(tmp_path / "run", 0.9, 0.95), None, 0.05)
    differ = result.noise[0].discordance.correct
    said = f"again repeats dense and differs from it on {differ} of 528 questions"
    assert f"noise floor: {said}" in as_text(result)
    assert said in as_markdown(result)
    (fields,) = json.loads(as_json(result))["noise"]
    assert (fields["arm"], fields["differ"], fields["pairs"]) == ("again", differ, 528)
    suite = ElementTree.fromstring(as_junit(result))
    values = [found.attrib["value"] for found in suite.findall("properties/property")]
    assert said in values[0]
