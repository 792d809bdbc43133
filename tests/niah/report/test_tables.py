"""The tables of a report count what the rows say, and say where nothing is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from niah.report.charts import text_table
from niah.report.tables import (
    answers_by_arm,
    asked_by_length,
    contains_share,
    controls,
    memories_by_length,
    pareto_by_length,
    recall_by_length,
)
from niah.runs.tables import rows_frame
from tests.niah.rows import row_of
from tests.synthetic_rows import Synthetic, records

SMALL = Synthetic((1024, 4096), (0.0, 0.5), repeats=4, error_every=9)


def table(made: Synthetic, **fields: object) -> pd.DataFrame:
    """As `load_comparisons` gives rows to a report."""
    rows = rows_frame([row_of(**(row | fields)) for row in records(made)])
    return rows.assign(run="run")


@pytest.mark.parametrize(
    ("contains", "failed", "share"),
    [
        ([True, False], [False, False], 0.5),
        ([True, None], [False, True], 0.5),  # an error holds nothing
        ([True, None], [False, False], float("nan")),
    ],
)
def test_an_answer_that_was_not_looked_at_leaves_the_share_unknown(
    contains: list[bool | None], failed: list[bool], share: float
) -> None:
    found = contains_share(pd.DataFrame({"contains": contains, "failed": failed}))
    assert found == pytest.approx(share, nan_ok=True)


def test_exact_and_contains_are_shares_of_everything_asked() -> None:
    rows = table(SMALL)
    for line in answers_by_arm(rows).to_dict("records"):
        of_arm = rows[rows["arm"] == line["arm"]]
        assert line["asked"] == len(of_arm) == 16
        assert line["errors"] == of_arm["failed"].sum() > 0
        assert line["exact"] == of_arm["recalled"].mean()
        assert line["contains"] == sum(value is True for value in of_arm["contains"]) / 16
    by_length = recall_by_length(rows).set_index(["arm", "length"])["contains"]
    assert by_length.notna().all()


def test_rivals_are_the_median_of_the_questions_of_a_length() -> None:
    rows = table(SMALL)
    found = asked_by_length(rows).set_index("length")
    assert found["questions"].to_dict() == {1024: 8, 4096: 8}
    assert found["rivals"].to_dict() == {1024: 1, 4096: 4}
    assert found["streams"].to_dict() == {1024: 4, 4096: 4}
    unknown = asked_by_length(table(SMALL, rivals=None))
    assert unknown["rivals"].isna().all()
    assert [line[-1] for line in text_table(unknown)[1]] == ["–", "–"]


def test_questions_of_several_runs_are_counted_apart() -> None:
    rows = pd.concat([table(SMALL), table(SMALL).assign(run="later")])
    found = asked_by_length(rows)
    assert list(found["run"]) == ["later", "later", "run", "run"]
    assert list(found["questions"]) == [8] * 4


def test_a_median_between_two_counts_keeps_its_half() -> None:
    frame = pd.DataFrame({"length": [1024], "rivals": [2.5]})
    assert text_table(frame) == (["length", "rivals"], [["1K", "2.5"]])


def test_log_probabilities_are_written_in_nats() -> None:
    frame = pd.DataFrame(
        {"arm": ["v4"], "baseline": [-0.1], "difference": [-1.25], "low": [np.nan]}
    )
    headers, lines = text_table(frame)
    assert headers == ["arm", "baseline, nats", "difference, nats", "low, nats"]
    assert lines == [["v4", "−0.100", "−1.250", "–"]]


def test_the_frontier_holds_the_arms_that_no_other_arm_beats() -> None:
    """Held: 8 KiB, 4 KiB, 2 KiB, 2 KiB; recalled: all, all, half, less."""
    chances = {"dense": 1.0, "fp8": 1.0, "int4": 0.5, "int2": 0.1}
    arms = {name: lambda *_, share=share: share for name, share in chances.items()}
    rows = table(Synthetic((1024, 4096), repeats=20, arms=arms))
    rows["bytes_total"] = rows["arm"].map({"dense": 8192, "fp8": 4096, "int4": 2048, "int2": 2048})
    techniques = {"dense": "", "fp8": "float", "int4": "integer", "int2": "integer"}
    found = pareto_by_length(rows.assign(technique=rows["arm"].map(techniques)))
    for length, group in found.groupby("length"):
        assert dict(zip(group["arm"], group["frontier"], strict=True)) == {
            **{"dense": False, "fp8": True},
            **{"int4": True, "int2": False},
        }
        assert list(group["bytes_per_token"]) == [
            size / length for size in (8192, 4096, 2048, 2048)
        ]
    assert list(found["technique"]) == ["", "", "float", "float", *["integer"] * 4]
    assert len(pareto_by_length(rows[rows["arm"].isin(["dense", "fp8"])])) == 0


def test_controls_are_told_apart_by_family() -> None:
    rows = table(Synthetic((1024,), (0.5,), ("new", "taught"), repeats=3), control="question_only")
    found = controls(rows).set_index(["control", "family", "arm"])["asked"]
    assert found.to_dict() == {
        ("question_only", family, arm): 3 for family in ("new", "taught") for arm in ("dense", "v4")
    }
    assert "family" not in controls(rows[rows["family"] == "new"])


def layers_run() -> pd.DataFrame:
    """`blind` is `v4` without its CSA entries when the question begins: it answers nothing."""
    arms = {"dense": lambda *_: 1.0, "v4": lambda *_: 1.0, "blind": lambda *_: 0.0}
    made = Synthetic((1024, 4096), (0.0, 0.5), ("number", "word"), repeats=4, arms=arms)
    lines = records(made)
    for line in lines:
        if line["arm"] == "blind":
            line["cache_bytes"] = line["cache_bytes"] | {"csa": 0, "index": 0}
    options = {"dense": {}, "v4": {}, "blind": {"without": "csa"}}
    listed = [
        {"name": name, "model": name[:2].replace("bl", "v4"), "options": found}
        for name, found in options.items()
    ]
    return rows_frame([row_of(**line) for line in lines], {"arms": listed}).assign(run="run")


def test_bytes_and_recall_of_a_memory_are_what_its_arm_lacks() -> None:
    rows = layers_run()
    found = memories_by_length(rows).set_index(["length", "family"])
    assert list(found.index) == [(n, of) for n in (1024, 4096) for of in ("number", "word")]
    for (length, _), line in found.iterrows():
        assert (line["arm"], line["against"], line["pairs"]) == ("blind", "v4", 8)
        assert line["csa"] == length // 4 * 2 * 512
        assert line["index"] == length // 4 * 2 * 128
        assert line["gone"] == line["csa"] + line["index"]
        assert (line["window"], line["hca"], line["tail"]) == (0, 0, 0)
        assert (line["whole"], line["left"], line["tax"]) == (1.0, 0.0, 1.0)
    assert pareto_by_length(rows).empty  # two arms are left


def test_there_are_no_memories_without_an_arm_that_lacks_one() -> None:
    assert memories_by_length(table(SMALL)).empty
    rows = layers_run()
    unknown = [name for name in rows if str(name).startswith("bytes_")]
    assert memories_by_length(rows.assign(**dict.fromkeys(unknown, float("nan")))).empty
