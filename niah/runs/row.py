"""A row: one question to one arm, and the answer. One frozen type with a `schema` number.

Rows of an earlier schema are converted when they are read, here and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from niah.errors import StoreError
from niah.scoring.answer_values import Case
from niah.scoring.outcomes import Outcome, contains
from niah.sweep.config import Control, Layout, Role

SCHEMA = 2
MARK = b'"schema":'
DERIVED = ("length_mod_4", "length_mod_128", "needle_mod_4", "needle_mod_128", "prompt_tokens")
"""Fields of schema 1 that follow from others."""
MEASURED = frozenset(
    """
    answer_tokens computed_tokens reused_tokens prefill_seconds cold_prefill_seconds decode_seconds
    trace_seconds
    """.split()  # noqa: SIM905
)
"""Fields of schema 1 that are 0 after an error, where nothing was measured."""

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
LostBy = Literal["selection", "compression", "window"]


class RankedLayer(BaseModel):
    """How a layer that selects entries ranked those that hold the token that was missed."""

    model_config = ConfigDict(frozen=True, extra="allow")

    layer: int
    rank: int
    entries: int
    selected: bool


class Row(BaseModel):
    """One question to one arm. None: not known, or not measured.

    `pair` names the question, `key` the question to this arm. `length` counts the whole prompt,
    `prefix_tokens` of which come before the haystack. `correct` is None after an error.
    `contains` is RULER's rule, beside `correct`. `cache_bytes` holds bytes by kind and their
    `total`. Fields that this version does not know are kept.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    key: str
    pair: str
    arm: str
    role: Role
    model: str
    family: str
    corpus: str
    length: Annotated[int, Field(ge=1)]
    depth: Annotated[float, Field(ge=0, le=1)] | None
    correct: bool | None

    schema_: Annotated[Literal[2], Field(alias="schema")] = 2
    template_split: str = ""
    template: str = ""
    layout: Layout = "stream"
    stream: int = 0
    repeat: int = 0
    offset: int | None = None
    control: Control | None = None
    requested_length: int | None = None
    prefix_tokens: Count = 0
    actual_depth: float | None = None
    needle_start: int | None = None
    needle_end: int | None = None
    spans: tuple[tuple[int, int], ...] = ()
    question: str = ""
    gold: tuple[str, ...] = ()
    rivals: int | None = None
    compression_ratio: float | None = None

    answer: str | None = None
    answer_ids: tuple[int, ...] | None = None
    answer_tokens: int | None = None
    finish: Literal["stop", "eos", "length"] | None = None
    gold_logprob: float | None = None
    contains: bool | None = None
    outcome: Outcome | Literal["error"] | Literal[""] = ""
    error: str | None = None
    lost_by: LostBy | None = None
    selection: tuple[RankedLayer, ...] = ()
    excerpt: dict[str, str] | None = None

    computed_tokens: Count | None = None
    reused_tokens: Count | None = None
    server_prompt_tokens: Count | None = None
    cached_tokens: Count | None = None
    prefill_seconds: Seconds | None = None
    cold_prefill_seconds: Seconds | None = None
    decode_seconds: Seconds | None = None
    gold_seconds: Seconds | None = None
    trace_seconds: Seconds | None = None
    request_seconds: Seconds | None = None
    requests_in_flight: Count | None = None
    cache_bytes: dict[str, int] | None = None

    @model_validator(mode="after")
    def needle_unless_a_control(self) -> Row:
        if self.depth is None and self.control is None:
            raise ValueError("depth is None, should be a share: only a control has no needle")
        return self

    def json_line(self) -> bytes:
        """The row as a line of rows.jsonl."""
        return self.model_dump_json(by_alias=True).encode() + b"\n"


def from_schema_1(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same row under this schema: no derived fields, and None for what was not measured."""
    row = {name: value for name, value in data.items() if name not in DERIVED}
    row["schema"] = SCHEMA
    if row.get("cache_bytes") == {}:
        row["cache_bytes"] = None
    if row.get("correct") is None:
        row["outcome"] = "error"
        row |= dict.fromkeys(MEASURED.intersection(row))
    elif row.get("gold") and isinstance(row.get("answer"), str):
        row["contains"] = contains(Case(row["answer"], tuple(row["gold"])))
    return row


def parse_row(line: bytes, where: str) -> Row:
    """A line of rows.jsonl, converted if it is of schema 1, which has no number.

    Raises: StoreError that names the row and the field.
    """
    try:
        return Row.model_validate_json(line if MARK in line else upgraded(line))
    except ValidationError as error:
        raise StoreError(f"{where} {complaint(error)}") from None
    except ValueError as error:
        raise StoreError(f"{where} is no JSON: {error}") from None


def upgraded(line: bytes) -> bytes:
    """A line of schema 1 under this schema. Raises: ValueError where it is no JSON."""
    data = json.loads(line)
    return json.dumps(from_schema_1(data)).encode() if isinstance(data, dict) else line


def complaint(error: ValidationError) -> str:
    """What is wrong first, to be read behind the line's place."""
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "json_invalid":
        return "is no JSON: " + first["msg"].removeprefix("Invalid JSON: ")
    if first["type"] == "missing":
        return f"is not a row: it has no {field!r}"
    if first["type"] == "value_error":
        return "is not a row: " + first["msg"].removeprefix("Value error, ")
    if not field:
        return f"is not a row: it holds {first['input']!r:.40}"
    expected = first["msg"].removeprefix("Input ")
    return f"is not a row: {field} is {first['input']!r:.60}, {expected}"
