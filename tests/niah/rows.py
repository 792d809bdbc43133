"""Rows as they are written, for tests: JSON objects, each key once."""

import json
from pathlib import Path
from typing import Any

from niah.runs.row import Row, parse_row


def row_dicts(folder: Path) -> list[dict[str, Any]]:
    """What a run's file holds; a retried error gives way to what came after it."""
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return list({row["key"]: row for row in rows}.values())


def row_of(**fields: object) -> Row:
    """A row of some fields, as if read from a file."""
    return parse_row(json.dumps(fields).encode(), "row")
