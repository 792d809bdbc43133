"""The noise floor: a repeat arm is set against the baseline, and is no compressed arm."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from niah.errors import SpecError
from niah.gate.formats import as_json, as_junit, as_markdown, as_text
from niah.gate.verdict import run_gate
from niah.runs.tables import load_run
from niah.statistics.comparisons import load_comparisons
from niah.statistics.noise import noise_floor
from niah.sweep.config import parse_sweep
from tests.niah.fakes import sweep_of
from tests.synthetic_rows import Chance, Synthetic, write_run


def keeps(share: float) -> Chance:
    return lambda length, depth, family: share


def run_of(folder: Path, compressed: float, again: float, repeats: int = 24) -> Path:
    """A baseline that is always right; `again` keeps a share of it, and so does `v4`."""
    arms = {"dense": keeps(1.0), "v4": keeps(compressed), "again": keeps(again)}
    return write_run(folder, Synthetic(lengths=(1024, 4096), repeats=repeats, arms=arms))


def test_a_repeat_is_no_compressed_arm(tmp_path: Path) -> None:
    run = load_run(run_of(tmp_path / "run", 0.9, 0.95))
    assert (run.baselines, run.compressed, run.repeats) == (["dense"], ["v4"], ["again"])
    assert [found.compressed for found in load_comparisons([run])[1]] == ["v4"]
    twice = load_comparisons([run, load_run(run_of(tmp_path / "later", 0.9, 0.95))])[1]
    assert [found.compressed for found in twice] == [
        "run/v4",
        "later/v4",
        "later/dense",
        "later/v4",
    ]


def test_the_noise_floor_counts_what_differs(tmp_path: Path) -> None:
    run = load_run(run_of(tmp_path / "run", 0.9, 0.95))
    rows = run.rows[run.rows["arm"] == "again"]
    (noise,) = noise_floor(run)
    lost = int((~rows["recalled"]).sum())
    assert (noise.arm, noise.baseline) == ("again", "dense")
    assert noise.tax is not None
    assert (noise.tax.lost, noise.tax.gained, noise.tax.pairs) == (lost, 0, 528)
    assert noise.discordance.value == pytest.approx(lost / 528)
    assert noise.discordance.interval.low < 0.05 < noise.discordance.interval.high


def test_a_run_without_repeats_has_no_noise_floor(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Synthetic((1024,), repeats=4))
    assert noise_floor(load_run(run)) == []


def test_a_repeat_that_is_right_everywhere_changes_no_verdict(tmp_path: Path) -> None:
    for kept, verdict in ((1.0, "pass"), (0.8, "fail")):
        result = run_gate(run_of(tmp_path / verdict, kept, 1.0), None, 0.05)
        assert result.verdict == verdict
        assert result.noise[0].discordance.correct == 0


def test_a_loss_that_the_baseline_has_too_does_not_fail(tmp_path: Path) -> None:
    """v4 loses 20 points, and so does the baseline once more: the noise floor explains it."""
    run = run_of(tmp_path / "run", 0.8, 0.8)
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
    result = run_gate(run_of(tmp_path / "run", 1.0, 0.8), None, 0.05)
    assert result.verdict == "inconclusive"
    assert "the noise floor is above the margin" in result.checks[0].reason


def test_a_large_loss_beyond_the_noise_still_fails(tmp_path: Path) -> None:
    assert run_gate(run_of(tmp_path / "run", 0.5, 0.9), None, 0.05).verdict == "fail"


def test_every_form_of_the_gate_tells_it(tmp_path: Path) -> None:
    result = run_gate(run_of(tmp_path / "run", 0.9, 0.95), None, 0.05)
    differ = result.noise[0].discordance.correct
    said = f"again repeats dense and differs from it on {differ} of 528 questions"
    assert f"noise floor: {said}" in as_text(result)
    assert said in as_markdown(result)
    (fields,) = json.loads(as_json(result))["noise"]
    assert (fields["arm"], fields["differ"], fields["pairs"]) == ("again", differ, 528)
    suite = ElementTree.fromstring(as_junit(result))
    values = [found.attrib["value"] for found in suite.findall("properties/property")]
    assert said in values[0]


def arms(*roles: tuple[str, str]) -> list[dict[str, str]]:
    return [
        {"name": f"a{n}", "role": role, "model": model} for n, (role, model) in enumerate(roles)
    ]


def test_a_sweep_may_repeat_its_baseline_and_nothing_else() -> None:
    one = ("baseline", "m")
    assert len(sweep_of(arms=arms(one, ("repeat", "m"), ("repeat", "m"))).arms) == 3
    with pytest.raises(SpecError, match="arm a0 repeats the baseline, and arms hold no baseline"):
        sweep_of(arms=arms(("repeat", "m")))
    with pytest.raises(SpecError, match="arm a1 should have the model and options of a0"):
        sweep_of(arms=arms(one, ("repeat", "other")))
    with pytest.raises(SpecError, match="role"):
        parse_sweep({"name": "x", "arms": arms(("again", "m"))}, "sweep")
