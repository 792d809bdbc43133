"""Rows that would be miscounted are refused by name, not read as something else."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from niah.errors import NiahError
from niah.runs.row import Row, parse_row
from niah.runs.store import read_rows
from niah.runs.tables import ResultsError, cache_kinds, intact_arms, load_run, rows_frame
from tests.niah.rows import row_of
from tests.synthetic_rows import Synthetic, write_run

MADE = Synthetic((1024,), (0.5,), repeats=2)


@pytest.mark.parametrize(
    ("field", "value", "right"),
    [
        ("correct", "maybe", "should be a valid boolean"),
        ("correct", 1, "should be a valid boolean"),
        ("role", "candidate", "should be 'baseline'"),
        ("length", "1K", "should be a valid integer"),
        ("length", 1024.5, "should be a valid integer"),
        ("length", 0, "should be greater than or equal to 1"),
        ("depth", 50, "should be less than or equal to 1"),
        ("depth", "half", "should be a valid number"),
        ("arm", None, "should be a valid string"),
        ("decode_seconds", float("nan"), "should be a finite number"),
        ("decode_seconds", -1.0, "should be greater than or equal to 0"),
        ("outcome", "right", "should be 'exact'"),
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
    assert f"line 1 is not a row: {field} is {value!r}, {right}" in str(refused.value)


def test_a_field_that_is_missing_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    first, *rest = (run / "rows.jsonl").read_text().splitlines()
    row = json.loads(first)
    del row["depth"]
    (run / "rows.jsonl").write_text("\n".join([json.dumps(row), *rest, ""]))
    with pytest.raises(NiahError, match="line 1 is not a row: it has no 'depth'"):
        load_run(run)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 1 is no JSON: "),
        ("[]", "line 1 is not a row"),
        ("{}", "it has no 'key'"),
    ],
)
def test_a_line_that_is_no_row_says_why(tmp_path: Path, line: str, reason: str) -> None:
    run = write_run(tmp_path / "run", MADE)
    (run / "rows.jsonl").write_text(f"{line}\n")
    with pytest.raises(NiahError, match=reason):
        load_run(run)


@pytest.mark.parametrize("field", ["family", "length", "needle_start"])
def test_a_planned_question_that_lacks_a_field_is_named(tmp_path: Path, field: str) -> None:
    run = write_run(tmp_path / "run", MADE)
    first, *rest = (run / "planned.jsonl").read_text().splitlines()
    question = json.loads(first)
    del question[field]
    (run / "planned.jsonl").write_text("\n".join([*rest, json.dumps(question), ""]))
    with pytest.raises(NiahError, match=rf"planned\.jsonl: line {len(rest) + 1} lacks {field}"):
        load_run(run)


def test_no_folder_and_no_rows_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NiahError, match="there is no such folder"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(NiahError, match=r"rows\.jsonl: No such file"):
        load_run(tmp_path)


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(NiahError, match="is a file; a run is the folder that holds its rows"):
        load_run(tmp_path / "rows.jsonl")


def test_only_a_control_has_no_depth(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    first, *rest = (run / "rows.jsonl").read_text().splitlines()
    for control, refused in ((None, True), ("no_needle", False)):
        row = json.loads(first) | {"depth": None, "control": control}
        (run / "rows.jsonl").write_text("\n".join([json.dumps(row), *rest, ""]))
        with pytest.raises(NiahError, match="only a control") if refused else nullcontext():
            load_run(run)


def test_a_row_of_a_later_version_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    row = json.loads((run / "rows.jsonl").read_text().splitlines()[0])
    (run / "rows.jsonl").write_text(json.dumps(row | {"schema": 3}) + "\n")
    with pytest.raises(NiahError, match="schema is 3, should be 2"):
        load_run(run)


def test_fields_of_others_are_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    row = json.loads((run / "rows.jsonl").read_text().splitlines()[0]) | {"host": "a"}
    (run / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert json.loads(read_rows(run)[0].json_line())["host"] == "a"


def test_rows_of_schema_1_are_converted() -> None:
    """Committed rows carry no number: what was not measured is None, not 0."""
    old = {
        **{"key": "k", "pair": "p", "arm": "a", "role": "baseline", "model": "m", "family": "f"},
        **{"corpus": "c", "length": 1024, "depth": 0.5, "correct": None, "cache_bytes": {}},
        **{"length_mod_4": 0, "prompt_tokens": 1024, "prefill_seconds": 0.0, "outcome": "exact"},
        **{"computed_tokens": 0, "error": "MemoryError: full", "answer_tokens": 0},
    }
    row = parse_row(json.dumps(old).encode(), "row")
    assert (row.schema_, row.outcome, row.cache_bytes) == (2, "error", None)
    assert (row.prefill_seconds, row.computed_tokens, row.answer_tokens) == (None, None, None)
    assert parse_row(row.json_line(), "row") == row


def test_bytes_that_were_not_measured_are_unknown() -> None:
    known = {"cache_bytes": {"full": 4, "state": 2, "total": 6}}
    shared = {"role": "baseline", "model": "m", "family": "f", "corpus": "c", "length": 1024}
    rows = [
        row_of(key=key, pair=key, arm="a", depth=0.5, correct=True, **shared, **more)
        for key, more in (("x", known), ("y", {}))
    ]
    frame = rows_frame(rows)
    assert cache_kinds(frame) == ["full", "state"]
    assert frame["bytes_total"].tolist()[0] == 6
    assert frame[["bytes_total", "bytes_full"]].isna().all(axis=1).tolist() == [False, True]


def test_an_arm_that_changes_at_the_question_knows_the_one_that_does_not() -> None:
    v4 = {"model": "nano-v4", "options": {"cache": "int4"}}
    changed: dict[str, dict[str, object]] = {
        "no-csa": {"without": "csa", "cache": "int4"},
        "wide": {"question_topk": 9, "cache": "int4"},
        "other-format": {"without": "csa"},
    }
    arms: list[dict[str, object]] = [
        {"name": "dense", "model": "nano-dense"},
        {"name": "v4", **v4},
        {"name": "v4-again", **v4},
        {"name": "after-another", **v4, "session": {"question_before": True}},
        *({"name": name, "model": "nano-v4", "options": of} for name, of in changed.items()),
    ]
    assert intact_arms({"arms": arms}) == {"no-csa": "v4", "wide": "v4"}
    assert intact_arms({}) == {}


def test_older_rows_keep_their_kinds_beside_newer_ones() -> None:
    """Entries of CSA and HCA were one kind once; the totals can be compared."""
    shared = {"role": "compressed", "model": "m", "family": "f", "corpus": "c", "length": 1024}
    held = {
        "older": {"window": 1, "compressed": 6, "total": 7},
        "newer": {"window": 1, "csa": 4, "hca": 2, "total": 7},
    }
    rows = [
        row_of(key=key, pair=key, arm="a", depth=0.5, correct=True, cache_bytes=kinds, **shared)
        for key, kinds in held.items()
    ]
    frame = rows_frame(rows)
    assert cache_kinds(frame) == ["window", "compressed", "csa", "hca"]
    assert frame["bytes_compressed"].tolist() == [6, 0]
    assert frame["bytes_csa"].tolist() == [0, 4]
    assert frame["bytes_total"].tolist() == [7, 7]


def test_a_retried_error_gives_way_and_rows_are_not_kept() -> None:
    shared = {"role": "baseline", "model": "m", "family": "f", "corpus": "c", "length": 1024}
    asked = {"arm": "a", "depth": 0.5, **shared}
    held: list[int] = []

    def rows() -> Iterator[Row]:
        before = sum(type(found) is Row for found in gc.get_objects())
        for key, more in (
            ("x", {"correct": None, "error": "full"}),
            ("y", {"correct": False}),
            ("x", {"correct": True}),
        ):
            yield row_of(key=key, pair=key, **asked, **more)
            held.append(sum(type(found) is Row for found in gc.get_objects()) - before)

    frame = rows_frame(rows())
    assert frame["pair"].tolist() == ["x", "y"]
    assert frame["recalled"].tolist() == [True, False]
    assert not frame["failed"].any()
    assert max(held) == 1


def test_rows_of_two_runs_in_one_file_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Synthetic((1024,), repeats=3))
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]

    def with_row(**fields: object) -> None:
        lines = [json.dumps(row) + "\n" for row in [*rows, rows[0] | fields]]
        (run / "rows.jsonl").write_text("".join(lines), encoding="utf-8")

    with_row(key="ffffffffffffffff")
    with pytest.raises(ResultsError, match=f"dense answers question {rows[0]['pair']} twice"):
        load_run(run)
    with_row(key="ffffffffffffffff", pair="another", role="compressed")
    with pytest.raises(ResultsError, match="dense has several roles"):
        load_run(run)
    with_row()  # a key again is a retry
    assert len(load_run(run).rows) == len(rows)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("spec.yaml", "arms: [a, b]", "arms is ['a', 'b']; it should be a list of arms"),
        ("spec.yaml", "arms: [{role: baseline}]", "it should be a list of arms with names"),
        ("planned.jsonl", '{"pair": [5]}', "line 1 is not a planned question"),
        ("planned.jsonl", '{"pair": "a", ', "line 1 is no JSON"),
        ("planned.jsonl", '{"pair": "a"}', "line 1 lacks family"),
    ],
)
def test_a_damaged_file_of_a_run_is_one_line(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    run = write_run(tmp_path / "run", MADE)
    (run / name).write_text(content, encoding="utf-8")
    with pytest.raises(NiahError, match=re.escape(told)) as raised:
        load_run(run)
    assert str(run / name) in str(raised.value)


def test_a_planned_length_that_is_no_number_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    lines = (run / "planned.jsonl").read_text().splitlines()
    wrong = json.dumps(json.loads(lines[1]) | {"length": "long"})
    (run / "planned.jsonl").write_text("\n".join([lines[0], wrong]), encoding="utf-8")
    with pytest.raises(ResultsError, match="line 2: length is 'long', expected int"):
        load_run(run)
