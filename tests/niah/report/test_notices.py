"""Whatever a number leaves out is said, on the page, in the terminal and in Markdown."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console

from niah.report.files import write_files
from niah.report.heatmap import make_heatmap
from niah.report.html.cells import excludes_zero
from niah.report.notices import notices
from niah.report.sentences import headline, overall
from niah.report.terminal import terminal_report
from niah.runs.tables import load_run
from niah.statistics.comparisons import load_comparisons
from niah.statistics.noise import noise_floors, noise_text
from niah.text_format import points
from tests.niah.report.pages import page_of, words_of
from tests.synthetic_rows import Chance, Synthetic, write_run

MADE = Synthetic((1024,), repeats=9)  # three streams with unseen templates
CERTAIN = lambda *_: 1.0  # noqa: E731


def said(*runs: Path) -> list[str]:
    loaded = [load_run(run) for run in runs]
    return notices(loaded, *load_comparisons(loaded))


def test_a_whole_run_needs_none(tmp_path: Path) -> None:
    assert said(write_run(tmp_path / "run", MADE)) == []


def test_errors_are_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", replace(MADE, error_every=11))
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for arm in ("dense", "v4"):
        failed = sum(row["arm"] == arm and row["correct"] is None for row in rows)
        assert failed
        assert any(f"{failed} of 99 questions to {arm} ended" in text for text in said(run))


def test_prompts_that_a_server_read_otherwise_are_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for number, row in enumerate(row for row in rows if row["arm"] == "v4"):
        row["server_prompt_tokens"] = row["length"] - (number < 5)
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = said(run)
    assert found.startswith("v4: the server read 5 of 99 prompts as more or fewer tokens than pl")


def test_a_run_that_meets_no_other_is_named(tmp_path: Path) -> None:
    alone = replace(MADE, seed=9, arms={"dense": MADE.arms["dense"]})
    found = said(write_run(tmp_path / "a", MADE), write_run(tmp_path / "c", alone))
    assert len(found) == 1
    assert found[0].startswith("In no comparison: c/dense of c.")


def test_what_the_tax_leaves_out_is_named_and_counted(tmp_path: Path) -> None:
    arms = {"dense": lambda length, *_: 0.1 if length > 2048 else 1.0, "v4": lambda *_: 0.9}
    (found,) = said(write_run(tmp_path / "run", Synthetic((1024, 4096), repeats=9, arms=arms)))
    assert "99 of 198 pairs are left out" in found
    assert "4K" in found


def test_what_holds_of_several_arms_is_said_once(tmp_path: Path) -> None:
    arms = {"dense": lambda length, *_: 0.1 if length > 2048 else 1.0}
    arms |= {"v4": lambda *_: 0.9, "top8": lambda *_: 0.8}
    (found,) = said(write_run(tmp_path / "run", Synthetic((1024, 4096), repeats=9, arms=arms)))
    assert found.startswith("v4 against dense; top8 against dense: 99 of 198 pairs are left out")
    arms |= {"top4": arms["top8"]}
    (found,) = said(write_run(tmp_path / "all", Synthetic((1024, 4096), repeats=9, arms=arms)))
    assert found.startswith("All 3 comparisons: 99 of 198 pairs are left out")


def test_losses_in_the_exact_window_are_told_apart(tmp_path: Path) -> None:
    arms = {"dense": lambda *_: 1.0, "v4": lambda *_: 0.5}
    run = write_run(tmp_path / "run", replace(MADE, arms=arms))
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    lost = [row for row in rows if row["arm"] == "v4" and not row["correct"]]
    for number, row in enumerate(lost):
        row["lost_by"] = "window" if number < 3 else "selection"
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = said(run)
    where = "Lost although the needle still stands in the exact window, where nothing is compressed"
    assert found.startswith(f"{where}: v4 against dense, 3 of {len(lost)} lost questions. That")
    again = write_run(tmp_path / "again", replace(MADE, arms=arms | {"v4": arms["dense"]}))
    told = said(again, run)  # where run's v4 is also set against that of the other run
    assert [text.split(", 3 of")[0] for text in told] == [f"{where}: run/v4 against run/dense"]
    for row in lost[:3]:
        row["lost_by"] = "compression"
    (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert said(run) == []


def test_a_server_used_in_another_way_is_named(tmp_path: Path) -> None:
    """Not where the noise floor explains it, and not where another server is asked."""
    arms = {"dense": CERTAIN, "again": CERTAIN, "v4": lambda *_: 0.5}
    run = load_run(write_run(tmp_path / "run", replace(MADE, arms=arms)))
    rows, comparisons = load_comparisons([run])

    def told(**v4: object) -> list[str]:
        cold = {"model": "openai:m", "options": {"base_url": "u", "prefix": "cold"}}
        spec = {"arms": [{"name": "dense", **cold}, {"name": "v4", **cold, **v4}]}
        return [
            text
            for text in notices([replace(run, spec=spec)], rows, comparisons)
            if "another way" in text
        ]

    (text,) = told(options={"base_url": "u", "concurrency": 4})
    assert text.startswith("v4 against dense: one model, used in another way (prefix as_is, ")
    assert "(prefix as_is, concurrency 4). A right cache answers the same; here " in text
    (text,) = told(session={"decode_tail": 4})
    assert "(decode_tail 4)" in text
    assert told() == []
    assert told(options={"base_url": "w", "concurrency": 4}) == []


def test_bins_are_told(tmp_path: Path) -> None:
    many = Synthetic((1024,), tuple(k / 19 for k in range(20)), repeats=9)
    (found,) = said(write_run(tmp_path / "run", many))
    assert found.startswith("20 depths were asked")


def test_arms_whose_exact_and_containing_answers_part_are_named(tmp_path: Path) -> None:
    """Two points of 99 answers: two wrong answers that hold the value are not said, three are."""
    run = write_run(tmp_path / "run", replace(MADE, arms={"a": CERTAIN, "v4": lambda *_: 0.5}))
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    wrong = [row for row in rows if row["arm"] == "v4" and not row["correct"]]
    right = 99 - len(wrong)
    for holding, told in ((1, False), (2, True)):
        for row in wrong[:holding]:
            row |= {"answer": f"{row['gold'][0]}9"}
        (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert bool(said(run)) == told
    (text,) = said(run)
    exact, contains = (f"{100 * n / 99:.1f}%" for n in (right, right + 2))
    assert text.startswith(f"v4: {exact} of 99 answers are exact and {contains} contain")


def test_slices_at_the_ceiling_and_the_floor_are_named(tmp_path: Path) -> None:
    chance = lambda length, depth, family: {"a": 1.0, "b": 0.0, "c": 0.5}[family]  # noqa: E731
    arms = {"dense": chance, "v4": chance, "again": lambda *_: 0.5}
    made = Synthetic((1024,), families=("a", "b", "c"), repeats=9, arms=arms)
    found = [text for text in said(write_run(tmp_path / "run", made)) if "cannot tell" in text]
    assert found == [
        f"Every arm is right in {which} of the questions of 1 slice, which cannot tell arms apart: "
        f"Needle family {family}."
        for which, family in (("all", "a"), ("none", "b"))
    ]


def test_a_tax_that_the_noise_floor_explains_is_named(tmp_path: Path) -> None:
    for again, explained in ((0.4, True), (1.0, False)):
        arms = {"dense": CERTAIN, "v4": lambda *_: 0.7, "again": lambda *_, c=again: c}
        run = load_run(write_run(tmp_path / str(again), replace(MADE, arms=arms)))
        rows, comparisons = load_comparisons([run])
        found = notices([run], rows, comparisons, noise_floors([run]))
        assert ["noise floor explains" in text for text in found] == [True] * explained
        words = words_of(page_of(tmp_path / str(again), run.path))
        assert ("v4 loses" in words) is not explained
        assert ("is no larger than the noise floor: again" in words) is explained


def test_the_noise_floor_stands_beside_the_tax(tmp_path: Path) -> None:
    arms = {"dense": CERTAIN, "v4": lambda *_: 0.6, "again": lambda *_: 0.9}
    run = write_run(tmp_path / "run", replace(MADE, arms=arms))
    (noise,) = noise_floors([load_run(run)])
    console = Console(width=500, record=True, file=io.StringIO())
    terminal_report(run, console)
    write_files([run], tmp_path / "out", "md")
    write_files([run], tmp_path / "out", "csv")
    page = words_of(page_of(tmp_path, run))
    share, count = points(noise.discordance.value), noise.discordance.correct
    assert f"Noise floor {share} % {count} of 99 differ in again" in page
    markdown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    for text in (console.export_text(), markdown):
        assert noise_text(noise) in text
    (line,) = pd.read_csv(tmp_path / "out" / "noise.csv").to_dict("records")
    assert (line["arm"], line["repeats"], line["differ"]) == ("again", "dense", count)


def test_every_report_carries_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", replace(MADE, error_every=11))
    console = Console(width=500, record=True, file=io.StringIO())
    terminal_report(run, console)
    write_files([run], tmp_path / "md", "md")
    texts = (
        words_of(page_of(tmp_path, run)),
        console.export_text(),
        (tmp_path / "md" / "report.md").read_text(encoding="utf-8"),
    )
    for notice in said(run):
        assert all(notice in text for text in texts)


def test_streams_too_few_are_told_and_nothing_is_bold(tmp_path: Path) -> None:
    """Two streams lose everything: an interval of streams - 1 degrees of freedom excluded zero."""
    arms = {"dense": lambda *_: 1.0, "v4": lambda *_: 0.0}
    run = write_run(tmp_path / "run", Synthetic(lengths=(1024, 4096), repeats=2, arms=arms))
    assert any("nothing is decided and nothing is bold" in text for text in said(run))
    rows, comparisons = load_comparisons([load_run(run)])
    assert "nothing is decided about v4" in headline(comparisons[0], rows)
    assert "1 has too few streams" in overall(comparisons, rows)
    cells = make_heatmap(comparisons[0]).whole.values()
    assert not any(excludes_zero(cell) for cell in cells)
    page = page_of(tmp_path, run)
    assert page.count('<span class="cell loss light few"') == 22
    words = words_of(page)
    assert "too few streams to decide" in words
    assert "v4 against dense 100.0 2 – – – 44 too few streams" in words  # what this can show
    write_files([run], tmp_path / "out", "md")
    markdown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert markdown.count("100? (2)") == 22
    assert "*" not in markdown.replace("\\*", "")
    write_files([run], tmp_path / "out", "csv")
    for name in ("heatmap", "slices", "tax", "logprob"):
        assert not pd.read_csv(tmp_path / "out" / f"{name}.csv")["decidable"].any()
    console = Console(width=500, record=True, file=io.StringIO())
    terminal_report(run, console)
    text = console.export_text()
    assert text.count("100?") == 22
    assert "? too few streams" in text


def test_slices_with_too_few_streams_are_told(tmp_path: Path) -> None:
    """Many streams in all, and two that hold the questions of one text."""
    made = Synthetic(lengths=(1024,), corpora=("kjv", "python"), repeats=8)
    run = write_run(tmp_path / "run", made)
    lines = (run / "rows.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"python"' not in line or '"repeat": 1' in line]
    (run / "rows.jsonl").write_text("".join(kept))
    found = [text for text in said(run) if "too few streams to decide" in text]
    assert len(found) == 1
    assert "Haystack python" in found[0]


def test_losses_below_the_floor_leave_no_one_place(tmp_path: Path) -> None:
    """A depth that the baseline hardly recalls has no tax; what is lost there is lost all the
    same."""

    def engine(length: int, depth: float, family: str) -> float:
        return {0.5: 0.2, 0.75: 0.4}.get(depth, 1.0)

    def said(baseline: Chance) -> str:
        arms = {"dense": baseline, "v4": engine}
        made = Synthetic(lengths=(4096,), depths=(0.0, 0.25, 0.5, 0.75), repeats=40, arms=arms)
        run = load_run(write_run(tmp_path / str(len(list(tmp_path.iterdir()))), made))
        return "\n".join(notices([run], *load_comparisons([run])))

    assert "every lost question has a depth of 50% or 75%" in said(lambda *_: 1.0)
    assert "every lost question" not in said(lambda _, depth, __: 0.35 if depth == 0.5 else 1.0)


def test_streams_that_share_text_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", replace(MADE, repeats=4))
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    for apart, told in ((2000, []), (512, ["Streams of kjv share text: on average 75%"])):
        lines = [json.dumps(row | {"offset": apart * row["repeat"]}) + "\n" for row in rows]
        (run / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
        found = [text.split(" of a stream")[0] for text in said(run)]
        assert [text for text in found if text.startswith("Streams of")] == told
