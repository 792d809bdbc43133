"""A run as tables: its rows with derived columns, its configuration, its environment, its pairs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any

import pandas as pd

from niah.errors import NiahError
from niah.files import read_mapping
from niah.runs.history import SPEC, read_environment
from niah.runs.row import Row
from niah.runs.store import PLANNED, ROWS, iterate_rows, read_planned
from niah.text_format import counted

PLANNED_FIELDS: dict[str, tuple[type, ...]] = {  # of a planned question, and what they hold
    **dict.fromkeys(("family", "template_split", "corpus", "layout"), (str,)),
    **dict.fromkeys(("stream", "repeat", "length"), (int,)),
    "control": (str, NoneType),
    "depth": (int, float, NoneType),
    "needle_start": (int, NoneType),
}
PHASES = {  # column: the sweep's field that asks for it, what has the residue, the modulus
    "length_mod_4": ("length_phase", "length", 4),
    "needle_mod_4": ("needle_phase", "needle_start", 4),
    "length_mod_128": ("length_phase", "length", 128),
    "needle_mod_128": ("needle_phase", "needle_start", 128),
}
READ = {"length": "read_length", "needle_start": "read_start"}  # planned: as the arm read it
BYTES = "bytes_"
AT_QUESTION = ("without", "question_topk")  # options that change a cache when the question begins
MAX_RESIDUES = 16  # looked at one by one; more would leave each of them few pairs
QUESTION = (  # what is known of a question before it is answered
    *("family", "corpus", "layout", "template_split", "stream_id"),
    *("length", "needle_start", "at_length", "at_depth"),
    *("exact_length", "exact_depth", *READ.values(), *PHASES),
)
FIELDS = tuple(name for name in Row.model_fields if name not in ("schema_", "cache_bytes"))
SHARED = frozenset(  # texts that are the same in many rows
    {"arm", "role", "model", "family", "corpus", "layout", "template_split", "template", "control"}
) | {"outcome", "finish", "error", "lost_by"}
NUMBERS = (  # which a row may lack: NaN
    *("depth", "actual_depth", "needle_start", "needle_end", "rivals", "compression_ratio"),
    *("answer_tokens", "gold_logprob", "computed_tokens", "reused_tokens", "server_prompt_tokens"),
    *("cached_tokens", "prefill_seconds", "cold_prefill_seconds", "decode_seconds"),
    *("gold_seconds", "trace_seconds", "requests_in_flight"),
)


AS_READ = (*READ.values(), *PHASES)  # of a question, which a server may read as other tokens
ANSWER = ("gold_logprob", "answer_ids")  # of an answer, beside whether it is right


class ResultsError(NiahError):
    """A results folder that cannot be read, or lacks what a report needs."""


@dataclass(frozen=True)
class Run:
    """One results folder.

    `rows`: one line a question and arm. `recalled` is bool, False for an error; `failed` marks
    errors, so that no denominator loses them. `at_length` and `at_depth` are the ones asked for,
    which a heatmap is drawn by; a report may put them in bins, and finds them as they were in
    `exact_length` and `exact_depth`. `length` and `needle_start` are exact, as planned.
    `read_length` is what a server counted where it says so, and `read_start` is NaN where that is
    another length: residues are of these. `stream_id` names the
    context a question was put to: questions of one stream are not independent. Bytes are in
    `bytes_KIND` and `bytes_total`. `length_mod_4` and the other columns of `PHASES` hold residues
    only where the sweep asks for them (`with_phases`). `technique` is the label of an arm, or "".
    `intact`: of an arm that changes when the question begins, the arm that does not; else "".

    `planned`: one line a question that every arm was to be asked, with `pair`, `control` and the
    columns of `QUESTION`; no lines in a folder from before they were kept.
    """

    path: Path
    name: str
    rows: pd.DataFrame
    spec: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    planned: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def baselines(self) -> list[str]:
        return _arms(self.rows, "baseline")

    @property
    def compressed(self) -> list[str]:
        return _arms(self.rows, "compressed")

    @property
    def repeats(self) -> list[str]:
        """Arms that are the baseline once more."""
        return _arms(self.rows, "repeat")

    @property
    def unfinished(self) -> dict[str, tuple[int, int]]:
        """Arms that lack rows: how many questions they were asked, of how many planned."""
        if self.planned.empty:
            return {}
        asked = self.rows[self.rows["pair"].isin(self.planned["pair"])]
        counts = {arm: int((asked["arm"] == arm).sum()) for arm in self._planned_arms()}
        whole = len(self.planned)
        return {arm: (count, whole) for arm, count in counts.items() if count < whole}

    @property
    def lacks(self) -> list[str]:
        """What each arm of `unfinished` has answered, in words."""
        return [
            f"{arm} answered {answered:,} of {counted(planned, 'question')}"
            for arm, (answered, planned) in self.unfinished.items()
        ]

    @property
    def incomplete(self) -> str:
        """What is said of a run that lacks rows; nothing of a whole one."""
        told = ", ".join(self.lacks)
        return told and f"is incomplete ({told}); the same `niah run` goes on with it"

    def _planned_arms(self) -> list[str]:
        listed = self.spec.get("arms")
        named = [dict(arm)["name"] for arm in listed] if isinstance(listed, list) else []
        return list(dict.fromkeys([*named, *self.rows["arm"]]))


def load_run(folder: Path) -> Run:
    """Read a results folder.

    Raises:
        NiahError: no run here, no rows yet, a line that is not a row, a field missing.
    """
    spec = _spec(folder / SPEC)
    rows = rows_frame(iterate_rows(folder), spec)
    if rows.empty:
        raise ResultsError(f"{folder}: no rows yet; run `niah run` again, it resumes")
    _refuse_doubled(folder, rows)
    return Run(
        path=folder,
        name=folder.resolve().name,
        rows=rows,
        spec=spec,
        environment=read_environment(folder),
        planned=_planned(folder, spec),
    )


def _refuse_doubled(folder: Path, rows: pd.DataFrame) -> None:
    """Raises: ResultsError where rows of several runs were put into one file."""
    again = rows[rows.duplicated(["pair", "arm"])]
    if len(again):
        pair, arm = again.iloc[0][["pair", "arm"]]
        raise ResultsError(
            f"{folder / ROWS}: {arm} answers question {pair} twice; "
            "each run has a folder of its own"
        )
    roles = rows.groupby("arm")["role"].nunique()
    if (roles > 1).any():
        raise ResultsError(f"{folder / ROWS}: {roles.idxmax()} has several roles; an arm has one")


def load_runs(folders: Sequence[Path]) -> list[Run]:
    """Runs to be compared, under names that differ: with their parent folders where needed.

    Raises:
        NiahError: as `load_run`, or one folder given twice.
    """
    names = distinct_names([folder.resolve() for folder in folders])
    return [
        replace(load_run(folder), name=name) for folder, name in zip(folders, names, strict=True)
    ]


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, each with as many of its parents as tell it from the others.

    Raises: ResultsError where one folder is given twice.
    """
    for folder in folders:
        if folders.count(folder) > 1:
            raise ResultsError(f"{folder}: is given twice; compare different runs")
    names = [folder.name for folder in folders]
    for number, folder in enumerate(folders):
        alike = [other for other in folders if other.name == folder.name and other != folder]
        parts = 1
        while any(other.parts[-parts:] == folder.parts[-parts:] for other in alike):
            parts += 1
        names[number] = "/".join(folder.parts[-parts:])
    return names


def rows_frame(records: Iterable[Row], spec: Mapping[str, object] | None = None) -> pd.DataFrame:
    """Rows as a table, with the derived columns `Run` describes; `spec` is the sweep's.

    A retried error gives way to what came after it.
    """
    columns = columns_of(records)
    held = columns.pop("cache_bytes")
    # An answer with text and without ids came from a model that does not tell its tokens.
    told = [
        bool(ids) or answer == ""
        for ids, answer in zip(columns["answer_ids"], columns["answer"], strict=True)
    ]
    frame = pd.DataFrame(columns)
    frame[list(NUMBERS)] = frame[list(NUMBERS)].astype(float)
    labels = techniques(spec or {})
    frame["technique"] = [labels.get(arm, "") for arm in frame["arm"]]
    unchanged = intact_arms(spec or {})
    frame["intact"] = [unchanged.get(arm, "") for arm in frame["arm"]]
    frame["failed"] = frame["correct"].isna()
    frame["recalled"] = [value is True for value in frame["correct"]]
    frame.loc[frame["failed"], "outcome"] = "error"
    frame["answer_ids"] = frame["answer_ids"].where(told, None)
    return with_bytes(with_places(frame, spec or {}), held)


def columns_of(records: Iterable[Row]) -> dict[str, list[Any]]:
    """The rows' values by field, each key once; one row at a time is in memory.

    Of the texts that many rows share one copy is kept.
    """
    columns: dict[str, list[Any]] = {name: [] for name in (*FIELDS, "cache_bytes")}
    places: dict[str, int] = {}
    copies: dict[str, str] = {}
    for row in records:
        values = vars(row)
        place = places.setdefault(row.key, len(places))
        for name, column in columns.items():
            value = values[name]
            if name in SHARED and isinstance(value, str):
                value = copies.setdefault(value, value)
            column[place : place + 1] = [value]
    return columns


def techniques(spec: Mapping[str, object]) -> dict[str, str]:
    """The label of each arm of a sweep; "" for one without."""
    listed = spec.get("arms")
    arms = [dict(arm) for arm in listed] if isinstance(listed, list) else []
    return {arm["name"]: str(arm.get("technique", "")) for arm in arms}


def intact_arms(spec: Mapping[str, object]) -> dict[str, str]:
    """By arm with an option of AT_QUESTION, the arm that has none and is otherwise the same."""
    listed = spec.get("arms")
    arms = [dict(arm) for arm in listed] if isinstance(listed, list) else []
    alike: dict[str, list[dict[str, Any]]] = {}
    for arm in arms:
        options = {k: v for k, v in _options(arm).items() if k not in AT_QUESTION}
        same = [arm.get("model"), options, arm.get("session")]
        alike.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(arm)
    return {
        changed["name"]: whole["name"]
        for group in alike.values()
        for whole in [arm for arm in group if not set(AT_QUESTION) & set(_options(arm))][:1]
        for changed in group
        if set(AT_QUESTION) & set(_options(changed))
    }


def _options(arm: Mapping[str, Any]) -> dict[str, object]:
    return dict(arm.get("options") or {})


def with_bytes(frame: pd.DataFrame, held: Sequence[Mapping[str, int] | None]) -> pd.DataFrame:
    """`bytes_KIND` for every kind of cache that a row tells, and `bytes_total`; NaN: not known."""
    kinds = dict.fromkeys(kind for kinds in held if kinds for kind in kinds if kind != "total")
    for kind in kinds:
        frame[f"{BYTES}{kind}"] = [
            float("nan") if known is None else float(known.get(kind, 0)) for known in held
        ]
    frame[f"{BYTES}total"] = [
        float("nan") if known is None else float(sum(known[k] for k in known if k != "total"))
        for known in held
    ]
    return frame


def cache_kinds(frame: pd.DataFrame) -> list[str]:
    """The kinds of cache that a table of rows tells the bytes of."""
    columns = [name for name in frame if str(name).startswith(BYTES)]
    return [str(name).removeprefix(BYTES) for name in columns if name != f"{BYTES}total"]


def with_places(frame: pd.DataFrame, spec: Mapping[str, object]) -> pd.DataFrame:
    """Where a question stands: `at_length`, `at_depth`, `stream_id`, and the phases."""
    for name, exact in (("at_length", "length"), ("at_depth", "depth")):
        asked = frame.get(f"requested_{exact}", frame[exact])
        frame[name] = asked.where(asked.notna(), frame[exact]).astype(float)
        frame[f"exact_{exact}"] = frame[name]
    frame["stream_id"] = [
        "/".join(map(str, parts))
        for parts in zip(
            frame["corpus"], frame["layout"], frame["stream"], frame["repeat"], strict=True
        )
    ]
    return with_phases(frame, spec)


def with_phases(frame: pd.DataFrame, spec: Mapping[str, object]) -> pd.DataFrame:
    """The residues that the sweep visits on purpose; NaN in every column of another.

    A needle has some residue in any sweep, but only a sweep with `length_phase` or `needle_phase`
    of that modulus asks the same at each, so that a residue is a slice of its own to judge. With
    more than MAX_RESIDUES of them, none is: see the phase plot.
    """
    planned = frame["length"].astype(float)
    read = frame.get("server_prompt_tokens", planned)
    frame[READ["length"]] = read.where(read.notna(), planned)
    start = frame["needle_start"].astype(float)
    frame[READ["needle_start"]] = start.where(frame[READ["length"]] == planned)
    for column, (asked_by, of, modulus) in PHASES.items():
        asked = spec.get(asked_by)
        residues = frame[READ[of]] % modulus
        wanted = isinstance(asked, dict) and asked.get("modulus") == modulus
        frame[column] = residues if wanted and residues.nunique() <= MAX_RESIDUES else float("nan")
    return frame


def pair_arms(
    rows: pd.DataFrame, baseline: str, compressed: str, planned: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The questions to two arms: one line a pair, an outer join, with those only `planned`.

    Columns of the question as in `QUESTION`, those of `AS_READ` as the compressed arm read it; then
    `baseline` and `compressed` (recalled, bool), `baseline_failed` and `compressed_failed` (an
    error, or no row at all), `..._logprob` (of the gold answer; NaN: not measured), `..._ids` (of
    the answer; None: not known), and `incomplete`: not put to both. Controls (questions without a
    needle) are not recall and are left out.
    """
    known = rows if planned is None or planned.empty else pd.concat([rows, planned])
    columns = ["pair", "arm", *QUESTION, "recalled", "failed", *ANSWER]
    known = known.loc[known["control"].isna(), columns]
    sides = [known[known["arm"] == arm].set_index("pair") for arm in (baseline, compressed)]
    index = sides[0].index.union(sides[1].index, sort=False)
    index = index.union(known.loc[known["arm"].isna(), "pair"].unique(), sort=False)
    pairs = known.drop_duplicates("pair").set_index("pair")[list(QUESTION)].reindex(index)
    pairs.loc[sides[1].index, list(AS_READ)] = sides[1][list(AS_READ)]
    for name, side in zip(("baseline", "compressed"), sides, strict=True):
        pairs[name] = side["recalled"].reindex(index, fill_value=False).astype(bool)
        pairs[f"{name}_failed"] = side["failed"].reindex(index, fill_value=True).astype(bool)
        pairs[f"{name}_logprob"] = side["gold_logprob"].reindex(index).astype(float)
        pairs[f"{name}_ids"] = side["answer_ids"].reindex(index)
    pairs["incomplete"] = ~(index.isin(sides[0].index) & index.isin(sides[1].index))
    return pairs.reset_index()


def questions(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that ask for a needle that is there: not the controls."""
    return rows[rows["control"].isna()]


def _arms(rows: pd.DataFrame, role: str) -> list[str]:
    return list(dict.fromkeys(rows.loc[rows["role"] == role, "arm"]))


def _planned(folder: Path, spec: Mapping[str, object]) -> pd.DataFrame:
    if not (folder / PLANNED).is_file():
        return pd.DataFrame()
    questions = read_planned(folder)
    for number, question in enumerate(questions, start=1):
        missing = [name for name in PLANNED_FIELDS if name not in question]
        if missing:
            raise ResultsError(f"{folder / PLANNED}: line {number} lacks {', '.join(missing)}")
        for name, kinds in PLANNED_FIELDS.items():
            if not isinstance(question[name], kinds):
                raise ResultsError(
                    f"{folder / PLANNED}: line {number}: {name} is {question[name]!r:.40}, "
                    f"expected {' or '.join(kind.__name__ for kind in kinds)}"
                )
    frame = pd.DataFrame.from_records(questions)
    return frame if frame.empty else with_places(frame, spec)


def _spec(path: Path) -> Mapping[str, object]:
    """Raises: NiahError where the arms have no names."""
    spec = read_mapping(path) if path.is_file() else {}
    arms = spec.get("arms", [])
    if not isinstance(arms, list) or not all(isinstance(a, dict) and "name" in a for a in arms):
        raise ResultsError(f"{path}: arms is {arms!r:.60}; it should be a list of arms with names")
    return spec
