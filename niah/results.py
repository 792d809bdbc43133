"""A finished (or interrupted) run as tables: its rows, its configuration, its environment.

Owns reading `rows.jsonl` back and pairing the rows of two arms. Knows nothing about models,
text or how a row came to be, and computes no statistic.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import yaml

REQUIRED = ("arm", "role", "model", "family", "corpus", "length", "depth", "pair", "correct")
OPTIONAL: dict[str, object] = {
    "key": "",
    "layout": "stream",
    "stream": 0,
    "repeat": 0,
    "needle_start": -1,
    "needle_end": -1,
    "question": "",
    "gold": "",
    "answer": "",
    "outcome": "",
    "error": None,
    "prompt_tokens": 0,
    "computed_tokens": 0,
    "reused_tokens": 0,
    "prefill_seconds": 0.0,
    "decode_seconds": 0.0,
    "template_split": "",
    "control": None,
}
CACHE_KINDS = ("window", "compressed", "index", "tail", "full")


class ResultsError(ValueError):
    """A results folder that cannot be read, or lacks what a report needs."""


@dataclass(frozen=True)
class Run:
    """One results folder.

    `rows`: one line a question and arm. `recalled` is bool, False for an error; `failed` marks
    errors, so that no denominator loses them. `stream_id` names the context a question was put
    to: questions of one stream are not independent. Bytes are in `bytes_KIND` and `bytes_total`.
    """

    path: Path
    name: str
    rows: pd.DataFrame
    spec: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    torn_lines: int = 0

    @property
    def baselines(self) -> list[str]:
        return _arms(self.rows, "baseline")

    @property
    def compressed(self) -> list[str]:
        return _arms(self.rows, "compressed")


def load_run(path: Path) -> Run:
    """Read a results folder.

    Raises:
        ResultsError: no folder, no rows, a field missing, or a damaged line before the last.
    """
    rows_path = path / "rows.jsonl"
    if not rows_path.is_file():
        raise ResultsError(f"{path}: no rows.jsonl here; give the folder that `niah run` wrote")
    records, torn = _read_lines(rows_path)
    if not records:
        raise ResultsError(f"{rows_path}: no rows yet; run `niah run` again, it resumes")
    return Run(
        path=path,
        name=path.resolve().name,
        rows=rows_frame(records, str(rows_path)),
        spec=_mapping(path / "spec.yaml"),
        environment=_mapping(path / "environment.json"),
        torn_lines=torn,
    )


def rows_frame(records: list[dict[str, object]], source: str = "rows") -> pd.DataFrame:
    """Rows as a table, with the derived columns `Run` describes; the last answer to a key wins."""
    for number, record in enumerate(records, start=1):
        missing = [name for name in REQUIRED if name not in record]
        if missing:
            raise ResultsError(f"{source}: row {number} lacks {', '.join(missing)}")
    frame = pd.DataFrame.from_records(records)
    for name, default in OPTIONAL.items():
        if name not in frame:
            frame[name] = default
    # A retried error leaves two rows; the later one is the answer.
    frame = frame.drop_duplicates(["arm", "pair"], keep="last", ignore_index=True)
    frame["failed"] = frame["correct"].isna()
    frame["recalled"] = [value is True for value in frame["correct"]]
    frame.loc[frame["failed"], "outcome"] = "error"
    frame["stream_id"] = [
        "/".join(map(str, parts))
        for parts in zip(
            frame["corpus"], frame["layout"], frame["stream"], frame["repeat"], strict=True
        )
    ]
    return _with_bytes(frame)


def pair_arms(rows: pd.DataFrame, baseline: str, compressed: str) -> pd.DataFrame:
    """The questions that both arms were asked: one line a pair, an outer join.

    Columns of the question as in `Run.rows`, then `baseline` and `compressed` (recalled, bool),
    `baseline_failed` and `compressed_failed` (an error, or no row at all: see `incomplete`).
    Controls (questions without a needle) are not recall and are left out.
    """
    asked = rows[rows["control"].isna()]
    sides = [asked[asked["arm"] == arm].set_index("pair") for arm in (baseline, compressed)]
    shared = ["family", "corpus", "layout", "stream_id", "length", "depth", "needle_start"]
    index = sides[0].index.union(sides[1].index, sort=False)
    pairs = sides[0][shared].reindex(index)
    pairs = pairs.combine_first(sides[1][shared].reindex(index)) if len(sides[1]) else pairs
    for name, side in zip(("baseline", "compressed"), sides, strict=True):
        pairs[name] = side["recalled"].reindex(index, fill_value=False).astype(bool)
        pairs[f"{name}_failed"] = side["failed"].reindex(index, fill_value=True).astype(bool)
    pairs["incomplete"] = ~(index.isin(sides[0].index) & index.isin(sides[1].index))
    return pairs.reset_index()


def _arms(rows: pd.DataFrame, role: str) -> list[str]:
    return list(dict.fromkeys(rows.loc[rows["role"] == role, "arm"]))


def _with_bytes(frame: pd.DataFrame) -> pd.DataFrame:
    held = frame["cache_bytes"] if "cache_bytes" in frame else [None] * len(frame)
    kinds = [value if isinstance(value, dict) else {} for value in held]
    for kind in CACHE_KINDS:
        frame[f"bytes_{kind}"] = [int(value.get(kind, 0)) for value in kinds]
    frame["bytes_total"] = frame[[f"bytes_{kind}" for kind in CACHE_KINDS]].sum(axis=1)
    return frame.drop(columns=["cache_bytes"], errors="ignore")


def _read_lines(path: Path) -> tuple[list[dict[str, object]], int]:
    """Rows and the number of torn lines: a killed run may leave its last line unfinished."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(_object(json.loads(line)))
        except ValueError as error:
            if number == len(lines):
                return records, 1
            raise ResultsError(f"{path}: line {number} is not a JSON object: {error}") from error
    return records, 0


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"found {type(value).__name__}")
    return value


def _mapping(path: Path) -> Mapping[str, object]:
    if not path.is_file():
        return {}
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except yaml.YAMLError as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}


def distinct(values: Iterable[object]) -> list[str]:
    """Distinct values as text, in order of first appearance."""
    return list(dict.fromkeys(str(value) for value in values))
