"""The page in a real browser: numbers, hovering, keys, questions, filters, and what must not be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from niah.report import write_report
from tests.browser.opened import HOSTILE, MADE, Opened, open_page
from tests.synthetic_rows import records, write_run

pytestmark = pytest.mark.browser

ROWS = pd.DataFrame(records(MADE))


def cell_rows(length: int, depth: float, family: str | None = None) -> pd.DataFrame:
    found = ROWS[(ROWS["length"] == length) & (ROWS["depth"] == depth)]
    return found if family is None else found[found["family"] == family]


def counts(rows: pd.DataFrame, arm: str) -> str:
    asked = rows[rows["arm"] == arm]["correct"]
    return f"{asked.sum()}/{len(asked)}"


def cell(opened: Opened, side: str, row: int, column: int) -> Any:
    where = f'.heat[data-side="{side}"] .cell[data-row="{row}"][data-column="{column}"]'
    return opened.page.locator(where)


def test_cells_show_the_numbers_of_the_rows(opened: Opened) -> None:
    shown = opened.page.eval_on_selector_all(
        ".heat .cell",
        "cells => cells.map(c => [c.closest('table').dataset.side, +c.dataset.row, "
        "+c.dataset.column, ...['b', 'small'].map(n => c.querySelector(n).textContent)])",
    )
    assert len(shown) == 3 * 11 * 3
    for side, row, column, value, count in shown:
        rows = cell_rows(MADE.lengths[column], MADE.depths[row])
        share = rows.groupby("arm")["correct"].mean()
        if side == "tax":
            expected = 100 * (share["dense"] - share["v4"])
            assert abs(float(value.replace("−", "-")) - expected) <= 0.5
            assert int(count) == len(rows) // 2
        else:
            arm = "dense" if side == "baseline" else "v4"
            assert abs(float(value) - 100 * share[arm]) <= 0.5
            assert count == counts(rows, arm)


def test_nothing_is_fetched_and_nothing_complains(opened: Opened) -> None:
    assert [url for url in opened.fetched if not url.startswith("file:")] == []
    assert len(opened.fetched) == 1
    assert opened.complaints == []


def test_hover_and_keys_tell_counts_and_intervals(opened: Opened) -> None:
    cell(opened, "tax", 1, 2).hover()
    tip = opened.page.locator("#tip")
    said = tip.inner_text()
    assert "16K tokens, depth 10%" in said
    assert "95%:" in said
    assert f"{counts(cell_rows(16384, 0.1), 'v4').replace('/', ' of ')}" in said
    cell(opened, "baseline", 0, 0).focus()
    opened.page.keyboard.press("ArrowDown")
    opened.page.keyboard.press("ArrowRight")
    assert "4K tokens, depth 10%" in tip.inner_text()
    focused = opened.page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert ", 4K tokens, depth 10%: " in focused


def test_a_cell_opens_its_questions(opened: Opened) -> None:
    cell(opened, "compressed", 5, 2).click()
    rows = cell_rows(16384, 0.5)
    items = opened.page.locator("#questions-list li")
    assert items.count() == rows["pair"].nunique()
    text = opened.page.locator("#questions-list").inner_text()
    for row in rows.to_dict("records"):
        assert row["gold"][0] in text
        assert row["answer"].strip() in text
        assert row["excerpt"]["before"] in text
        if row["selection"]:
            rank = row["selection"][0]["rank"] + 1
            assert f"rank {rank:,} of 4,096 in layer 2" in text
    marked = opened.page.locator("#questions-list mark").all_inner_texts()
    needles = {row["excerpt"]["needle"] for row in rows.to_dict("records")}
    assert {text.strip() for text in marked} == {text.strip() for text in needles}
    opened.page.locator("#only-wrong").check()
    wrong = rows.groupby("pair")["correct"].min().eq(False).sum()
    assert opened.page.locator("#questions-list li .question").count() == wrong
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#questions").is_visible()


def test_filters_change_cells_and_questions(opened: Opened) -> None:
    opened.page.locator("#filter-family").select_option("single")
    rows = cell_rows(4096, 0.2, "single")
    shown = cell(opened, "compressed", 2, 1)
    assert shown.locator("small").inner_text() == counts(rows, "v4")
    asked = ROWS[ROWS["family"] == "single"]["pair"].nunique()
    assert opened.page.locator("#shown").inner_text() == f"{asked} paired questions shown"
    shown.click()
    assert opened.page.locator("#questions-list li").count() == rows["pair"].nunique()


def test_a_hostile_answer_is_shown_and_not_run(chromium: Any, hostile_report: Path) -> None:
    opened = open_page(chromium, hostile_report)
    opened.page.locator(".heat .cell").first.click()
    said = opened.page.locator("#questions-list .said").nth(1)
    assert said.inner_text() == HOSTILE
    assert opened.page.evaluate("window.attacked") is None
    assert opened.page.locator("img").count() == 0
    assert opened.complaints == []
    opened.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_fits_its_window(chromium: Any, report: Path, scheme: str, width: int) -> None:
    opened = open_page(
        chromium, report, color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    paper, ink = opened.page.evaluate(
        "(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
    )
    assert paper != ink
    opened.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(chromium: Any, report: Path, axe: Path, scheme: str) -> None:
    opened = open_page(chromium, report, color_scheme=scheme, bypass_csp=True)
    opened.page.add_script_tag(path=str(axe))
    found = opened.page.evaluate("axe.run()")["violations"]
    serious = [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary'][:200]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:3]
    ]
    assert serious == []
    opened.page.context.close()


def test_one_arm_alone_has_its_heatmap_and_questions(chromium: Any, tmp_path: Path) -> None:
    made = replace(MADE, arms={"dense": MADE.arms["dense"]})
    opened = open_page(
        chromium, write_report([write_run(tmp_path / "run", made)], tmp_path / "page.html")
    )
    assert opened.page.locator(".heat").count() == 1
    rows = pd.DataFrame(records(made))
    here = rows[(rows["length"] == 4096) & (rows["depth"] == 0.2)]
    shown = cell(opened, "baseline", 2, 1)
    assert shown.locator("small").inner_text() == counts(here, "dense")
    shown.click()
    assert opened.page.locator("#questions-list li").count() == here["pair"].nunique()
    assert "tax" not in opened.page.locator("#questions-note").inner_text()
    assert opened.complaints == []
    opened.page.context.close()
