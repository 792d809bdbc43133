"""The page in a real browser: numbers, hovering, keys, questions, filters, and what must not be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from niah.report.html.page import write_report
from niah.statistics.intervals import Tax, estimate_recall, estimate_tax
from niah.text_format import points, whole_points
from tests.browser.opened import HOSTILE, MADE, Opened, open_page
from tests.synthetic_rows import records, write_run

pytestmark = pytest.mark.browser

ROWS = pd.DataFrame(records(MADE))
DARK = ("rgb(20, 24, 28)", "rgb(230, 233, 236)")


def cell_rows(length: int, depth: float, family: str | None = None) -> pd.DataFrame:
    found = ROWS[(ROWS["length"] == length) & (ROWS["depth"] == depth)]
    return found if family is None else found[found["family"] == family]


def counts(rows: pd.DataFrame, arm: str) -> str:
    asked = rows[rows["arm"] == arm]["correct"]
    return f"{asked.sum()}/{len(asked)}"


def paired_tax(rows: pd.DataFrame) -> Tax:
    sides = {arm: rows[rows["arm"] == arm].set_index("pair") for arm in MADE.arms}
    base, small = sides["dense"], sides["v4"].reindex(sides["dense"].index)
    streams = (base["corpus"] + base["repeat"].astype(str)).to_numpy()
    return estimate_tax(base["correct"].to_numpy(), small["correct"].to_numpy(), streams)


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
    for arm in ("dense", "v4"):
        here = cell_rows(16384, 0.1)
        here = here[here["arm"] == arm]
        right, asked = here["correct"].sum(), len(here)
        streams = here["corpus"] + here["repeat"].astype(str)
        low, high = estimate_recall(here["correct"].to_numpy(), streams.to_numpy()).interval
        told = f"{arm}: {points(right / asked)}% recalled, {right} of {asked} "
        assert f"{told}(95%: {points(low)} to {points(high)})" in said
    low, high = paired_tax(cell_rows(16384, 0.1)).interval
    assert f"points (95%: {points(low)} to {points(high)})" in said
    cell(opened, "baseline", 0, 0).focus()
    opened.page.keyboard.press("ArrowDown")
    opened.page.keyboard.press("ArrowRight")
    assert "4K tokens, depth 10%" in tip.inner_text()
    focused = opened.page.evaluate("document.activeElement.getAttribute('aria-label')")
    right, asked = counts(cell_rows(4096, 0.1), "dense").split("/")
    named = f"recall 100 percent, {right} of {asked}, dense, 4K tokens, depth 10% (95%: "
    assert focused.startswith(named)


def test_a_cell_of_the_tax_is_named_in_the_order_of_a_sentence(opened: Opened) -> None:
    tax = paired_tax(cell_rows(16384, 0.5))
    name = cell(opened, "tax", 5, 2).get_attribute("aria-label")
    said = f"tax {whole_points(tax.value)} points, {tax.pairs} pairs, 16K tokens, depth 50% (95%: "
    assert name.startswith(said)
    assert name.endswith(f", {tax.lost} lost, {tax.gained} gained, {tax.streams} streams")


def test_escape_hides_what_hovering_shows(opened: Opened) -> None:
    cell(opened, "tax", 1, 2).hover()
    assert opened.page.locator("#tip").is_visible()
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#tip").is_visible()


def test_closing_the_questions_leaves_no_tip_behind(opened: Opened) -> None:
    cell(opened, "tax", 1, 2).focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#questions").is_visible()
    opened.page.keyboard.press("Escape")
    opened.page.wait_for_function("!document.getElementById('questions').open")
    opened.page.wait_for_timeout(100)
    assert cell(opened, "tax", 1, 2).evaluate("one => one === document.activeElement")
    assert not opened.page.locator("#tip").is_visible()


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
    commands = opened.page.locator("#questions-list .where:has(code)").all_inner_texts()
    assert all(text.startswith("more of its text: niah show ") for text in commands)
    opened.page.locator("#only-wrong").check()
    wrong = rows.groupby("pair")["correct"].min().eq(False).sum()
    assert opened.page.locator("#questions-list li .question").count() == wrong
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#questions").is_visible()


PHASES = {"needle_mod_4": "needle_start", "length_mod_4": "length"}


@pytest.mark.parametrize(
    "chosen",
    [
        {"family": "single"},
        {"corpus": "code"},
        {"needle_mod_4": "2"},
        {"family": "multi", "corpus": "kjv"},
        {"template_split": "unseen", "corpus": "kjv"},
    ],
)
def test_filters_change_cells_and_questions(opened: Opened, chosen: dict[str, str]) -> None:
    rows = ROWS
    for name, value in chosen.items():
        opened.page.locator(f"#filter-{name}").select_option(value)
        values = ROWS[PHASES[name]] % 4 if name in PHASES else ROWS[name]
        rows = rows[values.astype(str).reindex(rows.index) == value]
    pairs = rows["pair"].nunique()
    assert opened.page.locator("#shown").inner_text() == f"{pairs} paired questions shown"
    place = rows.iloc[0]
    here = rows[(rows["length"] == place["length"]) & (rows["depth"] == place["depth"])]
    where = MADE.depths.index(place["depth"]), MADE.lengths.index(place["length"])
    shown = cell(opened, "compressed", *where)
    assert shown.locator("small").inner_text() == counts(here, "v4")
    shown.click()
    assert opened.page.locator("#questions-list .question").count() == here["pair"].nunique()
    for name, value in chosen.items():
        if name in ("family", "corpus"):
            assert all(
                value in text for text in opened.page.locator(".where").all_inner_texts()[::2]
            )


def test_where_filters_cannot_be_combined_the_page_says_so(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("niah.report.html.page.MAX_CELLS", 600)
    path = write_report([write_run(tmp_path / "run", MADE)], tmp_path / "page.html")
    opened = open_page(chromium, path)
    assert "One filter at a time" in opened.page.locator("#combining").inner_text()
    opened.page.locator("#filter-family").select_option("single")
    opened.page.locator("#filter-corpus").select_option("code")
    assert opened.page.locator("#filter-family").input_value() == "all"
    asked = ROWS[ROWS["corpus"] == "code"]["pair"].nunique()
    assert opened.page.locator("#shown").inner_text() == f"{asked} paired questions shown"
    opened.page.context.close()


def test_arms_can_be_chosen(chromium: Any, several_report: Path) -> None:
    opened = open_page(chromium, several_report)
    select = opened.page.locator("#comparison")
    titles = select.locator("option").all_inner_texts()
    assert len(titles) > 3
    first = opened.page.locator('.heat[data-side="compressed"]').inner_text()
    select.select_option("1")
    names = opened.page.locator(".map figcaption strong").all_inner_texts()
    assert f"{names[1]} against {names[0]}" == titles[1]
    assert opened.page.locator('.heat[data-side="compressed"]').inner_text() != first
    assert names[1] in opened.page.locator(".heat caption").nth(1).text_content()
    opened.page.context.close()


def test_other_arms_keep_the_filters_that_they_have(chromium: Any, several_report: Path) -> None:
    opened = open_page(chromium, several_report)
    opened.page.locator("#filter-family").select_option("single")
    told = opened.page.locator("#shown").inner_text()
    opened.page.locator("#comparison").select_option("1")
    assert opened.page.locator("#filter-family").input_value() == "single"
    assert opened.page.locator("#shown").inner_text() == told
    opened.page.context.close()


def test_other_arms_lose_the_filters_that_they_lack(chromium: Any, tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, replace(MADE, families=families, seed=seed))
        for seed, (name, families) in enumerate((("a", ("x", "y")), ("b", ("y", "z"))))
    ]
    opened = open_page(chromium, write_report(runs, tmp_path / "page.html"))
    for family, kept in (("x", "all"), ("y", "y")):
        opened.page.locator("#comparison").select_option("0")
        opened.page.locator("#filter-family").select_option(family)
        opened.page.locator("#comparison").select_option("1")
        assert opened.page.locator("#filter-family").input_value() == kept
    opened.page.context.close()


def test_only_wrong_counts_the_arms_that_are_compared(chromium: Any, several_report: Path) -> None:
    opened = open_page(chromium, several_report)
    opened.page.locator("#comparison").select_option("0")
    names = opened.page.locator(".map figcaption strong").all_inner_texts()[:2]
    opened.page.locator('.heat[data-side="tax"] .cell').nth(60).click()
    opened.page.locator("#only-wrong").check()
    items = opened.page.locator("#questions-list li:has(.question)")
    for number in range(items.count()):
        wrong = items.nth(number).locator("dt:has(+ .wrong)").all_inner_texts()
        assert set(wrong) & set(names)
    opened.page.context.close()


def test_a_question_without_its_text_says_where_it_is(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("niah.report.html.data.EXCERPT_SHARE", 0)
    run = write_run(tmp_path / "a run", MADE)
    opened = open_page(chromium, write_report([run], tmp_path / "page.html"))
    cell(opened, "tax", 0, 0).click()
    told = opened.page.locator("#questions-list li").first.inner_text()
    keys = set(cell_rows(1024, 0.0)["key"])
    command = f"text around the needle: niah show '{run}' "
    assert told.partition(command)[2].split()[0] in keys
    opened.page.context.close()


def test_nothing_hostile_runs_and_all_of_it_is_shown(chromium: Any, hostile_report: Path) -> None:
    opened = open_page(chromium, hostile_report)
    opened.page.locator(".heat .cell").first.click()
    first = opened.page.locator("#questions-list li").first
    for part in (".said", ".question", "mark", "dt:nth-of-type(2)"):
        assert HOSTILE in first.locator(part).last.inner_text()
    assert HOSTILE in opened.page.locator(".map figcaption strong").first.text_content()
    assert HOSTILE in opened.page.locator("#questions-list").inner_text()
    assert HOSTILE in opened.page.locator("table.data td").all_text_contents()  # the model
    assert opened.page.locator("svg text", has_text="onerror").count() > 3
    assert opened.page.evaluate("window.attacked") is None
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("script").count() == 2
    assert opened.complaints == []
    opened.page.context.close()


def test_without_scripts_the_heatmaps_look_the_same(chromium: Any, several_report: Path) -> None:
    found = []
    for scripts in (True, False):
        opened = open_page(chromium, several_report, java_script_enabled=scripts)
        cells = opened.page.locator(".heat .cell")
        found.append([(c.inner_text(), c.get_attribute("class")) for c in cells.all()[:200]])
        opened.page.context.close()
    assert len(found[0]) == 200
    assert found[0] == found[1]


def test_paper_shows_what_is_closed_on_the_screen(opened: Opened) -> None:
    page = opened.page
    page.locator("#filter-family").select_option("single")
    closed = page.locator("details:not([open])").count()
    assert closed > 3
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open], .setup)").count() == 0
    assert page.locator(".setup:not([open])").count() == 2  # as they are on the screen
    page.emulate_media(media="print")
    printed = page.locator("#printed").inner_text()
    asked = ROWS[ROWS["family"] == "single"]["pair"].nunique()
    assert "v4 against dense" in printed
    assert "Needle family: single" in printed
    assert f"{asked} paired questions" in printed
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() == closed


CLIPPED = """() => [...document.querySelectorAll('.heat th, .cell b, .figures dd, .legend span')]
    .filter(one => !one.closest('.map:not(.baseline)') || one.scope !== 'row')
    .filter(one => one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 1
        && getComputedStyle(one).display !== 'inline')
    .map(one => one.textContent)"""
TOUCHING = """() => [...document.querySelectorAll('.heat thead tr')].flatMap(row => {
    const boxes = [...row.cells].slice(1).map(cell => {
        const range = document.createRange();
        range.selectNodeContents(cell);
        return range.getBoundingClientRect();
    });
    return boxes.slice(1).filter((box, i) => box.left < boxes[i].right + 1).map(box => box.left);
})"""


@pytest.mark.parametrize("width", [390, 1400])
def test_eleven_lengths_and_long_names_fit(chromium: Any, several_report: Path, width: int) -> None:
    opened = open_page(chromium, several_report, viewport={"width": width, "height": 900})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.page.evaluate(TOUCHING) == []
    assert opened.page.evaluate(CLIPPED) == []
    opened.page.context.close()


def test_answers_have_room_on_a_phone(chromium: Any, report: Path) -> None:
    opened = open_page(chromium, report, viewport={"width": 390, "height": 844})
    lost = ROWS[ROWS["lost_by"].notna()].iloc[0]
    where = MADE.depths.index(lost["depth"]), MADE.lengths.index(lost["length"])
    cell(opened, "tax", *where).click()
    assert opened.page.locator("#questions-list .lost").count()
    heights = opened.page.eval_on_selector_all(
        "#questions-list .said", "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert max(heights) < 2 * min(heights)
    opened.page.context.close()


def test_labels_are_whole_and_equal_on_paper(chromium: Any, several_report: Path) -> None:
    opened = open_page(chromium, several_report, viewport={"width": 720, "height": 1000})
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate(TOUCHING) == []
    assert opened.page.evaluate(CLIPPED) == []
    sizes = opened.page.eval_on_selector_all(
        ".heat thead th", "all => all.map(one => getComputedStyle(one).fontSize)"
    )
    rows = opened.page.eval_on_selector_all(
        ".map.baseline .heat tbody th", "all => all.map(one => getComputedStyle(one).fontSize)"
    )
    assert len({size for size in [*sizes, *rows] if size != "0px"}) == 1
    opened.page.context.close()


def test_tables_can_be_read_on_paper(opened: Opened) -> None:
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    opened.page.emulate_media(media="print")
    sizes = opened.page.eval_on_selector_all(
        ".data td, .data th", "all => all.map(one => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert min(sizes) >= 8 * 96 / 72 - 0.01  # eight points
    breaks = opened.page.eval_on_selector_all(
        ".data thead", "all => all.map(one => getComputedStyle(one).breakAfter)"
    )
    assert set(breaks) == {"avoid"}


def test_figures_and_names_fit_a_phone(chromium: Any, several_report: Path) -> None:
    opened = open_page(chromium, several_report, viewport={"width": 390, "height": 844})
    figures = opened.page.locator(".plate .scroll:has(svg)")
    assert figures.count() > 5
    for figure in figures.all():
        width, focusable = figure.evaluate(
            "one => [one.querySelector('svg').getBoundingClientRect().width, one.tabIndex]"
        )
        assert width >= 560
        assert focusable == 0
    name = opened.page.locator("section:has(#comparisons-title) tbody th").first
    assert name.evaluate("one => one.getBoundingClientRect().width") < 390 / 2
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
    dark = scheme == "dark"
    assert (paper, ink) == (DARK if dark else ("rgb(255, 255, 255)", "rgb(31, 36, 41)"))
    opened.page.context.close()


# A cell's name is a sentence about its numbers; this rule wants "95 91/96" in it, word by word.
UNASKED = {"label-content-name-mismatch": {"enabled": False}}
DESK, PHONE = {"width": 1400, "height": 1000}, {"width": 390, "height": 844}


@pytest.mark.parametrize(
    ("pages", "scheme", "window", "asked"),
    [
        ("report", "light", DESK, False),
        ("report", "dark", DESK, True),
        ("several_report", "light", PHONE, False),
        ("several_report", "dark", DESK, False),
        ("several_report", "light", PHONE, True),
    ],
)
def test_axe_finds_nothing_serious(
    chromium: Any,
    axe: Path,
    request: pytest.FixtureRequest,
    pages: str,
    scheme: str,
    window: dict[str, int],
    asked: bool,
) -> None:
    """`asked`: with the questions of a cell open."""
    path = request.getfixturevalue(pages)
    opened = open_page(chromium, path, color_scheme=scheme, viewport=window, bypass_csp=True)
    if asked:
        opened.page.locator('.heat[data-side="tax"] .cell').first.click()
        assert opened.page.locator("#questions-list .question").count()
    opened.page.add_script_tag(path=str(axe))
    found = opened.page.evaluate("rules => axe.run({ rules })", UNASKED)["violations"]
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
