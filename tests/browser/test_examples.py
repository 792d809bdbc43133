"""The committed example pages are what the program makes of the committed results, and open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from niah.report.html.page import write_report
from tests.browser.opened import open_page
from tests.niah.report.pages import page_data, words_of

ROOT = Path(__file__).parents[2]
SEVERAL = {"layouts": ("layout-stream", "layout-cold", "layout-isolated")}  # runs of one page
EXAMPLES = sorted(page.parent.name for page in (ROOT / "reports").glob("*/index.html"))


def runs_of(name: str) -> tuple[str, ...]:
    return SEVERAL.get(name, (name,))


def right_answers(name: str, shown: str) -> tuple[int, int]:
    """Of an arm as the page names it: RUN/ARM where there are several runs."""
    run, _, arm = shown.rpartition("/")
    rows = map(
        json.loads, (ROOT / "results" / (run or name) / "rows.jsonl").read_text().splitlines()
    )
    asked = [row for row in rows if row["arm"] == arm and row["control"] is None]
    return sum(row["correct"] is True for row in asked), len(asked)


def test_the_acceptance_sweep_has_its_page() -> None:
    assert "bar" in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_committed_page_is_not_stale(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else: niah report results/RUN ... --out reports/NAME."""
    monkeypatch.chdir(ROOT)
    committed = (ROOT / "reports" / name / "index.html").read_text(encoding="utf-8")
    runs = [Path("results") / run for run in runs_of(name)]
    made = write_report(runs, tmp_path).read_text(encoding="utf-8")
    assert page_data(committed) == page_data(made)
    assert words_of(committed) == words_of(made)


@pytest.mark.browser
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_committed_page_opens_with_the_numbers_of_its_rows(chromium: Any, name: str) -> None:
    opened = open_page(chromium, ROOT / "reports" / name / "index.html")
    arms = opened.page.locator(".map figcaption strong").all_inner_texts()[:2]
    for side, arm in zip(("baseline", "compressed"), arms, strict=True):
        counts = opened.page.eval_on_selector_all(
            f'.heat[data-side="{side}"] .cell small', "all => all.map(one => one.textContent)"
        )
        pairs = [tuple(map(int, count.split("/"))) for count in counts]
        assert tuple(map(sum, zip(*pairs, strict=True))) == right_answers(name, arm)
    assert len(opened.fetched) == 1
    assert opened.complaints == []
    opened.page.context.close()
