"""Writes a run's prompts and answers in the shapes that other tools read.

`ruler`: the fields of RULER's prediction files. `lm-eval`: those of lm-evaluation-harness's
logged samples. `tokenises_back` says whether the text of a prompt has the run's tokens again: a
needle may stand inside a word, and tokens may join where the two meet.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from haystacks.tokenizer import tokenises_back
from niah.errors import StoreError
from niah.files import replacing
from niah.runs.archive import Archive, open_archive
from niah.runs.row import Row
from niah.runs.store import refuse_run_file
from niah.sweep.trials import Trial

Shape = Literal["ruler", "lm-eval"]
Format = Literal["jsonl", "parquet"]
Record = dict[str, Any]


def export(
    folder: Path,
    out: Path,
    shape: Shape,
    file_format: Format,
    arm: str | None = None,
    controls: bool = False,
) -> int:
    """Write every row, or an arm's, with its prompt to `out`; returns how many.

    Control questions, whose answer is not in the prompt, are left out unless `controls`: other
    tools average over a file.

    Raises: StoreError.
    """
    if out.exists() and not out.is_file():  # a device, say, which a finished file would replace
        raise StoreError(f"{out}: is no regular file")
    refuse_run_file(out)
    archive = of_arm(open_archive(folder), arm)
    if not controls:
        archive = without_controls(archive)
    writer = {"jsonl": write_jsonl, "parquet": write_parquet}[file_format]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as partial:
            writer(records(archive, SHAPES[shape]), partial)
    except OSError as error:
        raise StoreError(f"{out}: cannot be written: {error.strerror}") from None
    return len(archive.rows)


def of_arm(archive: Archive, arm: str | None) -> Archive:
    """Raises: StoreError where there is no such arm."""
    if arm is None:
        return archive
    arms = list(dict.fromkeys(row.arm for row in archive.rows))
    if arm not in arms:
        raise StoreError(f"arm {arm!r} is not in this run; there is {', '.join(arms)}")
    return replace(archive, rows=[row for row in archive.rows if row.arm == arm])


def without_controls(archive: Archive) -> Archive:
    places = {pair: at for pair, at in archive.places.items() if at[1].control is None}
    return replace(archive, rows=[row for row in archive.rows if row.pair in places], places=places)


def records(archive: Archive, shaped: "Shaped") -> Iterator[Record]:
    """One record a row, in the rows' order. Arms number their questions alike: by the plan."""
    numbers = {pair: number for number, pair in enumerate(archive.places)}
    contexts: dict[int, Any] = {}
    back: dict[str, bool] = {}  # by pair: arms have their prompts in common
    tokenizer = archive.materials.tokenizer
    for row in archive.rows:
        stream, trial = archive.places[row.pair]
        if id(stream) not in contexts:
            contexts = {id(stream): archive.context(stream)}
        ids = contexts[id(stream)].prompt(trial)
        if trial.pair not in back:
            back[trial.pair] = tokenises_back(tokenizer, ids)
        told = about(row) | {"tokenises_back": back[trial.pair]}
        yield shaped(numbers[row.pair], row, trial, tokenizer.decode(ids), told)


def ruler_record(index: int, row: Row, trial: Trial, prompt: str, told: Record) -> Record:
    return {
        "index": index,
        "input": prompt,
        "outputs": list(trial.fact.gold),
        "pred": row.answer or "",
        "length": trial.length,
        "token_position_answer": row.needle_start,
        "truncated": int(row.outcome == "truncated"),
        "others": told,
    }


def lm_eval_record(index: int, row: Row, trial: Trial, prompt: str, told: Record) -> Record:
    answer = row.answer or ""
    return {
        "doc_id": index,
        "doc": {"input": prompt, "outputs": list(trial.fact.gold), **told},
        "target": ", ".join(trial.fact.gold),
        "arguments": [[prompt, {"do_sample": False, "max_gen_toks": trial.max_new_tokens}]],
        "resps": [[answer]],
        "filtered_resps": [answer],
        "exact_match": float(row.correct is True),
    }


Shaped = Callable[[int, Row, Trial, str, Record], Record]
SHAPES: dict[Shape, Shaped] = {"ruler": ruler_record, "lm-eval": lm_eval_record}


def about(row: Row) -> Record:
    """What a row says beyond prompt and answer."""
    names = (
        *("key", "pair", "arm", "model", "family", "corpus", "depth"),
        *("control", "outcome", "error"),
    )
    return {name: getattr(row, name) for name in names}


def write_jsonl(found: Iterator[Record], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in found:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_parquet(found: Iterator[Record], path: Path) -> None:
    """Nested fields become JSON text, so that every row has one schema."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise StoreError(
            "format parquet: needs pyarrow: in a checkout, pip install '.[parquet]'"
        ) from None
    table = pa.Table.from_pylist([flattened(record) for record in found])
    pq.write_table(table, path)


def flattened(record: Record) -> Record:
    nested = {k: json.dumps(v, ensure_ascii=False) for k, v in record.items() if type(v) is dict}
    if "arguments" in record:
        nested["arguments"] = json.dumps(record["arguments"], ensure_ascii=False)
    return record | nested
