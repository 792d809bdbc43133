"""The noise floor: a repeat arm is set against the baseline, and is no compressed arm."""

from __future__ import annotations

from pathlib import Path

import pytest

from niah.errors import SpecError
from niah.runs.tables import load_run
from niah.statistics.comparisons import load_comparisons
from niah.statistics.noise import noise_floor
from niah.sweep.config import parse_sweep
from tests.niah.fakes import arms_of, sweep_of
from tests.synthetic_rows import Synthetic, repeated_run, write_run


def test_a_repeat_is_no_compressed_arm(tmp_path: Path) -> None:
    run = load_run(repeated_run(tmp_path / "run", 0.9, 0.95))
    assert (run.baselines, run.compressed, run.repeats) == (["dense"], ["v4"], ["again"])
    assert [found.compressed for found in load_comparisons([run])[1]] == ["v4"]
    twice = load_comparisons([run, load_run(repeated_run(tmp_path / "later", 0.9, 0.95))])[1]
    assert [found.compressed for found in twice] == [
        "run/v4",
        "later/v4",
        "later/dense",
        "later/v4",
    ]


def test_the_noise_floor_counts_what_differs(tmp_path: Path) -> None:
    run = load_run(repeated_run(tmp_path / "run", 0.9, 0.95))
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


def test_a_sweep_may_repeat_its_baseline_and_nothing_else() -> None:
    one = ("baseline", "m")
    assert len(sweep_of(arms=arms_of(one, ("repeat", "m"), ("repeat", "m"))).arms) == 3
    with pytest.raises(SpecError, match="arm a0 repeats the baseline, and arms hold no baseline"):
        sweep_of(arms=arms_of(("repeat", "m")))
    with pytest.raises(SpecError, match="arm a1 should have the model, options and session of a0"):
        sweep_of(arms=arms_of(one, ("repeat", "other")))
    with pytest.raises(SpecError, match="role"):
        parse_sweep({"name": "x", "arms": arms_of(("again", "m"))}, "sweep")
