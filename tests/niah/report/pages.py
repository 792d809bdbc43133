"""Reading a written page back, for tests of what it says."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from niah.report.html.page import write_report

CHOICES, ANSWERS, EXCERPT = 2, 9, 10  # places in a question
# places in a cell: cells.cell_line after row and column
BASELINE, COMPRESSED, TAX, LOST = slice(2, 9), slice(9, 16), 16, 18


def page_of(tmp_path: Path, *runs: Path) -> str:
    return write_report(list(runs), tmp_path / "out").read_text(encoding="utf-8")


def page_data(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def words_of(page: str) -> str:
    """The text of a page without its data, scripts and styles."""
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())
