"""The luck of training: arms that were trained alike from other seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from niah.errors import SpecError
from niah.report.charts import make_tables
from niah.report.notices import notices
from niah.runs.tables import load_run
from niah.statistics.comparisons import load_comparisons
from niah.statistics.trainings import Trainings, trainings_of, trainings_text
from tests.niah.fakes import arms_of, sweep_of
from tests.synthetic_rows import Chance, Synthetic, write_run

KEPT = {"dense": 1.0, "seed-2": 0.97, "seed-3": 0.9, "v4": 0.8, "v4-2": 0.95}


def a_run(folder: Path, technique: str = "V4") -> Path:
    kept: dict[str, Chance] = {name: lambda *_, kept=kept: kept for name, kept in KEPT.items()}
    labelled = [{"name": arm, "technique": technique} for arm in KEPT if arm.startswith("v4")]
    made = Synthetic(lengths=(1024, 4096), repeats=6, arms=kept)
    return write_run(folder, made, arms=labelled)


def test_every_training_meets_every_other(tmp_path: Path) -> None:
    run = load_run(a_run(tmp_path / "run"))
    (found,) = trainings_of(load_comparisons([run])[0])
    recall = run.rows.groupby("arm")["recalled"].mean()
    assert found.technique == "V4"
    assert found.asked == run.rows["pair"].nunique()
    assert found.baselines == {arm: recall[arm] for arm in ("dense", "seed-2", "seed-3")}
    assert found.compressed == {arm: recall[arm] for arm in ("v4", "v4-2")}
    taxes = [b - c for b in found.baselines.values() for c in found.compressed.values()]
    assert found.tax == pytest.approx(np.mean(taxes))
    assert found.range == pytest.approx((min(taxes), max(taxes)))


def test_the_interval_is_welchs() -> None:
    found = Trainings(
        "V4", {"a": 0.99, "b": 0.97, "c": 0.93}, {"d": 0.9, "e": 0.8, "f": 0.95}, asked=100
    )
    oracle = stats.ttest_ind(
        list(found.baselines.values()), list(found.compressed.values()), equal_var=False
    ).confidence_interval(0.95)
    assert found.interval == pytest.approx((oracle.low, oracle.high))
    assert trainings_text(found) == (
        "The luck of training: a, b, c recall 99.0, 97.0, 93.0%; d, e, f recall 90.0, 80.0, 95.0%, "
        "of 100 questions each. Over the 9 pairs of trainings the tax is 8.0 points on average, "
        f"from −2.0 to 19.0; for other seeds the 95% interval is "
        f"−{-100 * oracle.low:.1f} to {100 * oracle.high:.1f}."
    )


def test_no_interval_is_beyond_a_hundred_points() -> None:
    found = Trainings("V4", {"a": 0.99, "b": 0.98}, {"d": 0.99, "e": 0.48}, asked=100)
    assert found.interval == (-1, 1)


def test_the_interval_covers_the_true_tax_of_training() -> None:
    """300 experiments of three trainings a side, whose recalls are spread: about 5% miss."""
    rng = np.random.default_rng(0)
    hit = 0
    for _ in range(300):
        sides = (rng.normal(0.95, 0.01, 3), rng.normal(0.9, 0.03, 3))
        first, second = (dict(zip("abc", map(float, side), strict=True)) for side in sides)
        interval = Trainings("V4", first, second, 1).interval
        assert interval is not None
        hit += interval.low <= 0.05 <= interval.high
    assert 0.92 <= hit / 300 <= 0.995


def test_one_training_on_a_side_has_no_interval(tmp_path: Path) -> None:
    found = Trainings("V4", {"a": 0.99, "b": 0.97}, {"d": 0.9}, asked=100)
    assert found.interval is None
    assert trainings_text(found).endswith(
        "; one training on a side does not tell how another would do."
    )
    run = load_run(a_run(tmp_path / "run", technique=""))
    each = [of.technique for of in trainings_of(load_comparisons([run])[0])]
    assert each == ["v4", "v4-2"]


def test_questions_that_an_arm_was_not_asked_count_for_none(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    missing = {row["pair"] for row in rows[:40]}
    kept = [row for row in rows if row["arm"] != "seed-3" or row["pair"] not in missing]
    (run / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    loaded = load_run(run)
    (found,) = trainings_of(load_comparisons([loaded])[0])
    assert found.asked == loaded.rows["pair"].nunique() - len(missing)
    asked = loaded.rows[~loaded.rows["pair"].isin(missing)]
    assert found.compressed["v4"] == asked[asked["arm"] == "v4"]["recalled"].mean()


def test_a_report_tells_it_and_a_run_without_says_nothing(tmp_path: Path) -> None:
    run = load_run(a_run(tmp_path / "run"))
    rows, comparisons = load_comparisons([run])
    assert [of.compressed for of in comparisons] == ["v4", "v4-2"]
    said = notices([run], rows, comparisons)
    assert [text for text in said if text.startswith("The luck of training: dense, seed-2")]
    assert not [text for text in said if text.startswith("In no comparison")]
    (table,) = (each for each in make_tables(rows, comparisons, ()) if each.name == "trainings")
    assert isinstance(table.frame, pd.DataFrame)
    assert len(table.frame) == 6
    plain = load_run(write_run(tmp_path / "plain", Synthetic((1024,), repeats=4)))
    assert list(trainings_of(load_comparisons([plain])[0])) == []


def test_a_sweep_retrains_its_baseline_by_another_model() -> None:
    one = ("baseline", "m")
    assert len(sweep_of(arms=arms_of(one, ("retrained", "n"), ("retrained", "o"))).arms) == 3
    with pytest.raises(SpecError, match="arm a0 retrains the baseline, and arms hold no baseline"):
        sweep_of(arms=arms_of(("retrained", "m")))
    with pytest.raises(SpecError, match="arm a1 should have another model than a0, which it retr"):
        sweep_of(arms=arms_of(one, ("retrained", "m")))
