"""The page says what the rows say, and nothing in a row can act."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from niah.cli.main import app
from niah.errors import NiahError
from niah.report.files import write_files
from niah.report.glossary import CACHE
from niah.report.heatmap import make_heatmap
from niah.report.html.data import MAX_QUESTION_BYTES, page_questions
from niah.report.html.page import write_report
from niah.report.sentences import headline
from niah.report.tables import losses_by_length
from niah.runs.row import RankedLayer
from niah.runs.tables import NUMBERS, load_run, rows_frame
from niah.statistics.comparisons import load_comparisons
from niah.statistics.intervals import estimate_recall
from niah.text_format import loss_text
from tests.niah.report.pages import (
    ANSWERS,
    BASELINE,
    COMPRESSED,
    EXCERPT,
    LOST,
    TAX,
    page_data,
    page_of,
    words_of,
)
from tests.niah.rows import row_of
from tests.synthetic_rows import Synthetic, records, write_run

SMALL = Synthetic(lengths=(1024, 4096), depths=(0.0, 0.5, 1.0), repeats=4)
EXTRA = ("excerpt", "lost_by", "selection")  # fields that older rows lack
HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"


def table(made: list[dict[str, Any]]) -> pd.DataFrame:
    """As `load_comparisons` gives rows to a report."""
    return rows_frame([row_of(**row) for row in made]).assign(run="run")


def test_page_is_one_file_that_fetches_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, write_run(tmp_path / "run", SMALL))
    assert [found.name for found in (tmp_path / "out").iterdir()] == ["index.html"]
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", page))
    assert {found for found in addresses if "w3.org" not in found} == set()
    assert not re.search(r"\bsrc=|@import|\burl\((?!#)", page)
    assert "default-src 'none'" in page


def test_cells_count_the_rows(tmp_path: Path) -> None:
    made = Synthetic(lengths=(1024, 4096), families=("single", "multi"), repeats=5)
    data = page_data(page_of(tmp_path, write_run(tmp_path / "run", made)))
    view = data["comparisons"][0]
    rows = pd.DataFrame(records(made))
    for family in ("all", "single"):
        chosen = [family if f["name"] == "family" else "all" for f in view["filters"]]
        asked = rows if family == "all" else rows[rows["family"] == family]
        for line in view["views"]["|".join(chosen)]:
            row, column = line[:2]
            cell = asked[
                (asked["length"] == made.lengths[column]) & (asked["depth"] == made.depths[row])
            ]
            arms = {arm: cell[cell["arm"] == arm].set_index("pair")["correct"] for arm in made.arms}
            for place, arm in ((BASELINE, "dense"), (COMPRESSED, "v4")):
                whole, tenths, correct, count, low, high, _ = line[place]
                assert (correct, count) == (arms[arm].sum(), len(arms[arm]))
                assert str(whole) == f"{100 * correct / count:.0f}"
                assert tenths == float(f"{100 * correct / count:.1f}")
                streams = cell[cell["arm"] == arm]["repeat"].to_numpy()
                expected = estimate_recall(arms[arm].to_numpy(), streams).interval
                assert [low, high] == [round(100 * end, 1) for end in expected]
            lost = int((arms["dense"] & ~arms["v4"].reindex(arms["dense"].index)).sum())
            assert line[LOST] == lost


def test_every_question_and_answer_is_on_the_page(tmp_path: Path) -> None:
    data = page_data(page_of(tmp_path, write_run(tmp_path / "run", SMALL)))
    listed = data["questions"]
    assert listed["asked"] == len(listed["lines"]) == 2 * 3 * 4
    said = {answer[0] for line in listed["lines"] for answer in line[ANSWERS]}
    assert said == {row["answer"] for row in records(SMALL)}
    wrong_first = [min(answer[2] for answer in line[ANSWERS]) for line in listed["lines"]]
    assert wrong_first == sorted(wrong_first)


def test_the_text_around_needles_is_kept_while_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(records(SMALL))
    excerpts = [line[EXCERPT] for line in page_questions(rows)["lines"]]
    assert sorted(excerpts) == sorted(
        [row["excerpt"][part] for part in ("before", "needle", "after")]
        for row in records(SMALL)
        if row["arm"] == "dense"
    )
    monkeypatch.setattr("niah.report.html.data.EXCERPT_SHARE", 1000 / MAX_QUESTION_BYTES)
    kept = [bool(line[EXCERPT]) for line in page_questions(rows)["lines"]]
    assert kept == sorted(kept, reverse=True)  # wrong answers come first
    assert 0 < sum(kept) < len(kept)


def test_where_needles_were_lost_is_counted_and_told() -> None:
    made = records(SMALL)
    frame = losses_by_length(table(made))
    assert set(frame["arm"]) == {"v4"}  # the baseline selects nothing
    for line in frame.to_dict("records"):
        here = [r for r in made if r["arm"] == "v4" and r["length"] == line["length"]]
        assert line["asked"] == len(here)
        for kind in ("selection", "compression"):
            assert line.get(kind, 0) == sum(r["lost_by"] == kind for r in here)
    rows = [row_of(**row) for row in made]
    told = {a[3] for line in page_questions(table(made))["lines"] for a in line[ANSWERS]}
    assert told == {""} | {loss_text(row.lost_by, row.selection) for row in rows if row.lost_by}


@pytest.mark.parametrize(
    ("lost_by", "text"),
    [
        (
            "selection",
            "selection: no layer selected an entry with it, rank 71 of 1,000 in layer 2",
        ),
        (
            "compression",
            "compression: an entry with it was selected, rank 71 of 1,000 in layer 2",
        ),
        ("window", "window: it was still in the exact window"),
        (None, ""),
    ],
)
def test_where_a_needle_was_lost_in_words(lost_by: str | None, text: str) -> None:
    ranked = RankedLayer(layer=2, rank=70, entries=1000, selected=False)
    assert loss_text(lost_by, [ranked]) == text


def test_rows_without_traces_give_no_plate() -> None:
    made = [{k: v for k, v in r.items() if k not in EXTRA} for r in records(SMALL)]
    rows = table(made)
    assert losses_by_length(rows).empty
    assert not any(line[EXCERPT] for line in page_questions(rows)["lines"])


def test_nothing_from_a_row_becomes_markup(tmp_path: Path) -> None:
    arms = {"dense": lambda *_: 1.0, "v4$x_1$": lambda *_: 0.5}
    made = Synthetic((1024,), (0.5,), (HOSTILE,), (HOSTILE,), 4, arms, answer=HOSTILE)
    page = page_of(tmp_path, write_run(tmp_path / "<img src=x>", made, note=HOSTILE))
    assert "<img" not in page
    assert "alert(2)</script>" not in page
    assert page.count("<script") == 2
    assert page_data(page)["questions"]["lines"][0][ANSWERS][0][0] == HOSTILE


def test_errors_and_missing_answers_are_told_and_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Synthetic((1024,), repeats=4, error_every=10))
    lines = (run / "rows.jsonl").read_text().splitlines(keepends=True)
    (run / "rows.jsonl").write_text("".join(lines[:-1]))
    page = page_of(tmp_path, run)
    assert "ended in an error" in page
    said = " ".join(page.split())
    assert "run is incomplete: v4 answered" in said
    assert "1 of 44 questions were not put to both arms" in said
    recall = load_comparisons([load_run(run)])[1][0]
    assert len(recall.pairs) == 44


def test_tax_is_undefined_below_the_floor(tmp_path: Path) -> None:
    arms = {"dense": lambda length, *_: 0.1 if length > 2048 else 1.0, "v4": lambda *_: 0.9}
    run = write_run(tmp_path / "run", Synthetic((1024, 4096), repeats=6, arms=arms))
    rows, (comparison,) = load_comparisons([load_run(run)])
    assert {group[1] for group in comparison.left_out} == {4096}
    assert comparison.tax is not None
    assert comparison.tax.pairs == 66
    assert headline(comparison, rows).startswith("At 1K tokens")
    assert "undefined" in page_of(tmp_path, run)


@pytest.mark.parametrize(("chance", "shown"), [(1.0, False), (0.5, True)])
def test_a_tax_stands_out_only_where_one_is_shown(
    tmp_path: Path, chance: float, shown: bool
) -> None:
    arms = {"dense": lambda *_: 1.0, "v4": lambda *_: chance}
    page = page_of(tmp_path, write_run(tmp_path / "run", Synthetic((1024,), repeats=6, arms=arms)))
    assert ('<dd class="accent">' in page) == shown


def test_what_is_left_out_is_said_once_where_arms_are_several(tmp_path: Path) -> None:
    arms = {"dense": lambda length, *_: 0.1 if length > 2048 else 1.0}
    arms |= {"v4": lambda *_: 0.9, "top8": lambda *_: 0.8}
    made = Synthetic((1024, 4096), repeats=6, arms=arms)
    said = words_of(page_of(tmp_path, write_run(tmp_path / "run", made)))
    assert said.count("left out of the tax") == 1
    assert "Left out are" not in said


def test_one_arm_alone_has_recall_and_no_tax(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Synthetic((1024,), repeats=2, arms={"v4": lambda *_: 1.0}))
    page = page_of(tmp_path, run)
    assert "no other arm was asked" in page
    assert page.count('<table class="heat"') == 1


def test_several_runs_meet_their_baselines_and_each_other(tmp_path: Path) -> None:
    first, second = (
        write_run(tmp_path / name, Synthetic((1024,), repeats=4, arms=arms))
        for name, arms in (
            ("a", {"dense": lambda *_: 1.0, "v4": lambda *_: 0.9}),
            ("b", {"dense": lambda *_: 1.0, "v4": lambda *_: 0.5}),
        )
    )
    _, found = load_comparisons([load_run(first), load_run(second)])
    assert [comparison.title for comparison in found] == [
        "a/v4 against a/dense",
        "b/v4 against b/dense",
        "b/dense against a/dense",
        "b/v4 against a/v4",
    ]
    page = page_of(tmp_path, first, second)
    assert all(comparison.title in page for comparison in found)


def test_too_many_choices_leave_one_filter_at_a_time(tmp_path: Path) -> None:
    made = Synthetic((1024,), families=("a", "b"), corpora=("x", "y"), repeats=4)
    _, (comparison,) = load_comparisons([load_run(write_run(tmp_path / "run", made))])
    free = {f.name for f in make_heatmap(comparison).filters}
    single = make_heatmap(comparison, max_cells=90).views
    assert {"family", "corpus"} <= free
    assert all(sum(value != "all" for value in chosen.split("|")) <= 1 for chosen in single)
    assert len(single) > 3
    assert list(make_heatmap(comparison, max_cells=1).views) == [""]


def test_questions_beyond_the_budget_are_counted(tmp_path: Path) -> None:
    rows, _ = load_comparisons([load_run(write_run(tmp_path / "run", SMALL))])
    listed = page_questions(rows, max_bytes=1000)
    assert 0 < len(listed["lines"]) < listed["asked"] == 24


@pytest.mark.slow
def test_twenty_thousand_rows_stay_below_five_megabytes(tmp_path: Path) -> None:
    families, corpora = ("single", "multi", "uuid"), ("kjv", "source")
    made = Synthetic(families=families, corpora=corpora, repeats=26)
    page = page_of(tmp_path, write_run(tmp_path / "run", made))
    assert page_data(page)["questions"]["asked"] >= 10_000
    assert len(page.encode()) < 5_000_000


def test_the_same_rows_give_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SMALL)
    once, again = (write_report([run], tmp_path / out / "page.html") for out in "ab")
    assert once.read_bytes() == again.read_bytes()


def test_missing_results_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(NiahError, match="holds no run"):
        write_report([tmp_path], tmp_path / "out")
    (tmp_path / "rows.jsonl").write_text('{"key": "1"}\n')
    with pytest.raises(NiahError, match="line 1 is not a row: it has no 'pair'"):
        write_report([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / side / "run", SMALL) for side in ("a", "b")]
    said = words_of(write_report(runs, tmp_path / "out").read_text(encoding="utf-8"))
    assert "a/run" in said
    assert "b/run" in said


def test_a_report_on_several_runs_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Synthetic((1024,), (0.5,), repeats=2)
    for name in ("a", "b"):
        write_run(tmp_path / name, made)
    for runs in (["a"], ["a", "b"]):
        done = CliRunner().invoke(app, ["report", *runs])
        assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "reports").iterdir()} == {"a", "a-b"}


def test_the_page_names_the_commands_and_the_commit(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a run", SMALL)
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"commit": "0123abc"}))
    said = words_of(page_of(tmp_path, run))
    assert "git checkout 0123abc niah run spec.yaml --out 'again/a run'" in said
    assert "niah report 'again/a run'" in said


def test_cells_round_as_the_files_do(tmp_path: Path) -> None:
    arms = {"dense": lambda *_: 1.0, "v4": lambda *_: 0.9}
    run = write_run(tmp_path / "run", Synthetic((1024,), (0.5,), repeats=8, arms=arms))
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for number, row in enumerate(row for row in rows if row["arm"] == "v4"):
        row["correct"] = number > 0
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = page_of(tmp_path, run)
    (view,) = page_data(page)["comparisons"]
    (line,) = view["views"]["|".join("all" for _ in view["filters"])]
    assert line[COMPRESSED][:2] == [88, 87.5]
    assert line[TAX] == 12  # 12.5: half to even, as in a figure and on the terminal
    assert "<b>88</b> <small>7/8</small>" in page
    assert "<b>12</b> <small>8</small>" in page


def test_cells_carry_the_class_and_the_share_of_their_colours(tmp_path: Path) -> None:
    """The script looks them up; the page without scripts has the same."""
    chance = lambda length, *_: {1024: 1.0, 2048: 0.0, 4096: 0.6}[length]  # noqa: E731
    arms = {"dense": lambda length, *_: 0.1 if length == 4096 else 1.0, "v4": chance}
    made = Synthetic((1024, 2048, 4096), (0.0, 1.0), repeats=12, arms=arms)
    page = page_of(tmp_path, write_run(tmp_path / "run", made))
    data = page_data(page)
    (view,) = data["comparisons"]
    cells = view["views"]["|".join("all" for _ in view["filters"])]
    drawn = re.findall(r'<span class="cell ([\w ]+)" style="--v:([\d.]+)">', page)
    by_side = [cells_of_side(drawn, side, len(cells)) for side in range(3)]
    for side, expected in enumerate(by_side):
        kept = sorted(cells, key=lambda line: (line[0], line[1]))
        found = [(data["classes"][line[26 + 2 * side]], line[27 + 2 * side]) for line in kept]
        assert found == [(classes, float(share)) for classes, share in expected]
    kinds = {classes for side in by_side for classes, _ in side}
    assert {"recall", "recall light", "loss light shown", "undefined"} <= kinds


def cells_of_side(drawn: list[tuple[str, str]], side: int, count: int) -> list[tuple[str, str]]:
    return drawn[side * count : (side + 1) * count]


def test_kinds_of_cache_are_explained_by_their_models(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SMALL)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        if row["arm"] == "v4":
            row["cache_bytes"] = {"<state>": 4096, "conv": 64}
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = json.loads((run / "environment.json").read_text())
    environment["models"] = {
        "dense": {"cache_kinds": {"full": "every token's own key"}},
        "v4": {"cache_kinds": {"<state>": "one <state> a layer", "full": "every key"}},
    }
    (run / "environment.json").write_text(json.dumps(environment))
    page = page_of(tmp_path, run)
    assert "<dt>&lt;state&gt;</dt><dd>one &lt;state&gt; a layer</dd>" in page
    assert "<dt>full</dt><dd>every token&#39;s own key; every key</dd>" in page
    assert f"<dt>window</dt><dd>{CACHE['window']}</dd>" in page
    assert "<dt>conv</dt><dd></dd>" in page  # told by no one
    assert "<dt>tail</dt>" not in page  # held by no arm


def test_what_an_arm_did_not_measure_is_a_dash(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SMALL)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    unknown = ("computed_tokens", "reused_tokens", "prefill_seconds", "decode_seconds")
    for row in rows:
        row |= dict.fromkeys(unknown) if row["arm"] == "v4" else {}
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = page_of(tmp_path, run)
    assert "<td>nano-v4</td><td>24</td><td>–</td><td>–</td><td>–</td><td>–</td></tr>" in page


def test_a_run_that_measured_nothing_has_its_page_and_files(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", SMALL)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    unknown = {*NUMBERS, "cache_bytes", "answer_ids"} - {"depth", "needle_start"}
    for row in rows:
        row |= dict.fromkeys(unknown)
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = page_of(tmp_path, run)
    for name in ("seconds", "bytes", "logprob"):
        assert f'id="plate-{name}"' not in page
    assert 'id="plate-tax"' in page
    assert "<td>1K</td><td>12</td><td>4</td><td>–</td>" in " ".join(page.split())  # rivals
    for form in ("csv", "md", "svg"):
        assert write_files([run], tmp_path / form, form)


def test_a_wrong_answer_that_holds_the_gold_is_told(tmp_path: Path) -> None:
    made = records(SMALL)
    for row in made:
        row["answer"] = f"{row['answer']} or {row['gold'][0]}"
    lines = page_questions(table(made))["lines"]
    assert {(answer[2], answer[4]) for line in lines for answer in line[ANSWERS]} == {
        (1, 0),
        (0, 1),
    }


def test_what_is_combined_in_a_view_is_all_or_one(tmp_path: Path) -> None:
    made = Synthetic((1024,), families=("a", "b"), corpora=("x", "y"), repeats=4)
    _, (comparison,) = load_comparisons([load_run(write_run(tmp_path / "run", made))])
    assert make_heatmap(comparison).combined
    assert not make_heatmap(comparison, max_cells=90).combined
