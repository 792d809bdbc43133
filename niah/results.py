"""A finished (or interrupted) run as tables: its rows, its configuration, its environment.

Owns the derived columns of a row and the pairing of two arms. Knows nothing about models, text
or how a row came to be, and computes no statistic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import yaml

from niah.errors import NiahError
from niah.store import ENVIRONMENT, SPEC, Row, read_rows

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
    "cold_prefill_seconds": 0.0,
    "decode_seconds": 0.0,
    "template_split": "",
    "control": None,
    "excerpt": None,
    "lost_by": None,
    "selection": None,
}
CACHE_KINDS = ("window", "compressed", "index", "tail", "full")


class ResultsError(NiahError):
    """A results folder that cannot be read, or lacks what a report needs."""


@dataclass(frozen=True)
class Run:
    """One results folder.

    `rows`: one line a question and arm. `recalled` is bool, False for an error; `failed` marks
    errors, so that no denominator loses them. `at_length` and `at_depth` are the ones asked for,
    which a heatmap is drawn by; `length` and `needle_start` are exact. `stream_id` names the
    context a question was put to: questions of one stream are not independent. Bytes are in
    `bytes_KIND` and `bytes_total`.
    """

    path: Path
    name: str
    rows: pd.DataFrame
    spec: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)

    @property
    def baselines(self) -> list[str]:
        return _arms(self.rows, "baseline")

    @property
    def compressed(self) -> list[str]:
        return _arms(self.rows, "compressed")


def load_run(folder: Path) -> Run:
    """Read a results folder.

    Raises:
        NiahError: no run here, no rows yet, a line that is not a row, a field missing.
    """
    records = read_rows(folder)
    if not records:
        raise ResultsError(f"{folder}: no rows yet; run `niah run` again, it resumes")
    return Run(
        path=folder,
        name=folder.resolve().name,
        rows=rows_frame(records, str(folder)),
        spec=_mapping(folder / SPEC),
        environment=_mapping(folder / ENVIRONMENT),
    )


def rows_frame(records: list[Row], source: str = "rows") -> pd.DataFrame:
    """Rows as a table, with the derived columns `Run` describes."""
    for number, record in enumerate(records, start=1):
        missing = [name for name in REQUIRED if name not in record]
        if missing:
            raise ResultsError(f"{source}: row {number} lacks {', '.join(missing)}")
    frame = pd.DataFrame.from_records(records)
    for name, default in OPTIONAL.items():
        if name not in frame:
            frame[name] = default
    frame["failed"] = frame["correct"].isna()
    frame["recalled"] = [value is True for value in frame["correct"]]
    frame.loc[frame["failed"], "outcome"] = "error"
    for name, exact in (("at_length", "length"), ("at_depth", "depth")):
        asked = frame.get(f"requested_{exact}", frame[exact])
        frame[name] = asked.where(asked.notna(), frame[exact]).astype(float)
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
    shared = [
        *("family", "corpus", "layout", "template_split", "stream_id"),
        *("length", "needle_start", "at_length", "at_depth"),
    ]
    index = sides[0].index.union(sides[1].index, sort=False)
    pairs = asked.drop_duplicates("pair").set_index("pair")[shared].reindex(index)
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


def _mapping(path: Path) -> Mapping[str, object]:
    if not path.is_file():
        return {}
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except yaml.YAMLError as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    return value if isinstance(value, dict) else {}
