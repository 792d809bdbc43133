"""JSON in a page reads back as it was, cannot end its element, and is as large as it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from niah.report.html.data import page_bytes, page_json
from niah.report.html.page import write_report
from tests.niah.report.pages import page_data
from tests.synthetic_rows import Synthetic, write_run

TEXTS = [
    "</script><!--<script>",
    "it's & so on\u2028\u2029",
    "Ответ: не знаю",
    "\ud83d alone, and \U0001f9ed",
    'a "quote" \\ \n\0',
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_reads_back_and_cannot_act(text: str) -> None:
    written = page_json([text])
    assert json.loads(written) == [text]
    assert not set(written) & set("<>&'\u2028\u2029")
    assert page_bytes([text]) == len(written.encode())


def test_letters_stay_as_they_are() -> None:
    assert page_json("Ответ") == '"Ответ"'


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["<" * 400, "Ответ: не знаю. " * 25])
def test_a_page_stays_below_five_megabytes_whatever_the_text(tmp_path: Path, answer: str) -> None:
    made = Synthetic(families=("a", "b"), corpora=("x", "y"), repeats=38, answer=answer)
    path = write_report([write_run(tmp_path / "run", made)], tmp_path / "page.html")
    listed = page_data(path.read_text(encoding="utf-8"))["questions"]
    assert listed["asked"] > 10_000
    assert path.stat().st_size < 5_000_000
    assert path.stat().st_size > 4_000_000  # and no room is wasted
    assert len(listed["lines"]) > 500


@pytest.mark.slow
def test_a_page_of_many_comparisons_stays_below_five_megabytes(tmp_path: Path) -> None:
    arms = {"dense": lambda *_: 0.99, **{f"v{n}": lambda *_: 0.9 for n in range(9)}}
    made = Synthetic(families=("a", "b", "c"), corpora=("x", "y"), repeats=3, arms=arms)
    path = write_report([write_run(tmp_path / "run", made)], tmp_path / "page.html")
    data = page_data(path.read_text(encoding="utf-8"))
    assert len(data["comparisons"]) == 9
    assert path.stat().st_size < 5_000_000
