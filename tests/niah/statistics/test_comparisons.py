"""What a tax counts: what the baseline answers, put to both arms; and the phases asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from niah.report.charts import make_plates
from niah.report.heatmap import make_heatmap
from niah.report.tables import recall_by_phase, tax_by_family, tax_by_length, tax_by_text
from niah.runs.tables import load_run
from niah.statistics.comparisons import Comparison, left_out_text, load_comparisons, slice_rows
from tests.synthetic_rows import Synthetic, write_run

PERFECT = {"dense": lambda *_: 1.0, "v4": lambda *_: 1.0}
MADE = Synthetic((1024, 4096), (0.0, 1.0), corpora=("kjv", "python"), repeats=12, arms=PERFECT)
Row = dict[str, Any]


def changed(folder: Path, made: Synthetic, change: Callable[[Row], Row], **spec: object) -> Path:
    """A run whose rows are as `change` makes them."""
    run = write_run(folder, made, **spec)
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(row | change(row)) + "\n" for row in rows)
    (run / "rows.jsonl").write_text(text)
    return run


def compared(run: Path) -> Comparison:
    return load_comparisons([load_run(run)])[1][0]


def half_is_beyond(column: str, value: str) -> Callable[[Row], Row]:
    """At 4K the baseline answers nothing of `value`; of the rest v4 loses every depth 1."""

    def change(row: Row) -> Row:
        if row["length"] != 4096:
            return {}
        if row[column] == value:
            return {"correct": False}
        return {"correct": row["arm"] == "dense" or row["depth"] == 0}

    return change


@pytest.mark.parametrize(("column", "value"), [("corpus", "kjv"), ("template_split", "unseen")])
def test_what_the_baseline_cannot_answer_thins_out_nothing(
    tmp_path: Path, column: str, value: str
) -> None:
    comparison = compared(changed(tmp_path / "run", MADE, half_is_beyond(column, value)))
    at_4k = comparison.slices("at_length")[4096.0]
    beyond = comparison.pairs[comparison.pairs[column] == value]
    left_out = int((beyond["at_length"] == 4096).sum())
    assert at_4k.pairs == 48 - left_out
    assert at_4k.value == 0.5
    assert comparison.slices("at_depth")[1.0].lost == at_4k.lost == at_4k.pairs / 2
    table = tax_by_length([comparison]).set_index("length")
    assert table.loc[4096.0, "tax"] == 0.5
    assert all(group[1] == 4096 and value in group for group in comparison.left_out)
    assert f"{left_out} of 96 pairs are left out" in left_out_text(comparison)
    assert value in left_out_text(comparison)


def test_a_heatmap_taxes_what_is_answerable_and_shows_the_recall_of_all(tmp_path: Path) -> None:
    comparison = compared(changed(tmp_path / "run", MADE, half_is_beyond("corpus", "kjv")))
    cell = make_heatmap(comparison).whole[1, 1]
    assert (cell.baseline.correct, cell.baseline.asked) == (12, 24)
    assert cell.tax.defined
    assert (cell.tax.lost, cell.tax.pairs) == (12, 12)


def test_a_cell_of_unanswerable_questions_is_undefined_whatever_it_recalls(tmp_path: Path) -> None:
    """At depth 0 the baseline is right by luck; of the length as a whole it is not."""
    made = Synthetic((1024, 4096), (0.0, 0.4, 0.7, 1.0), repeats=12, arms=PERFECT)

    def lucky(row: Row) -> Row:
        return {"correct": False} if row["length"] == 4096 and row["depth"] > 0 else {}

    comparison = compared(changed(tmp_path / "run", made, lucky))
    cell = make_heatmap(comparison).whole[0, 1]
    assert cell.baseline.value == 1.0
    assert not cell.tax.defined
    assert not comparison.slices("at_length")[4096.0].defined


def test_the_tax_by_text_goes_with_how_far_it_can_be_compressed(tmp_path: Path) -> None:
    def change(row: Row) -> Row:
        dense = row["corpus"] == "python"
        lost = dense and row["arm"] == "v4" and row["depth"] == 0
        ratio = (2.0 if dense else 4.0) + row["repeat"] % 2
        return {"compression_ratio": ratio, "correct": not lost}

    run = load_run(changed(tmp_path / "run", MADE, change))
    rows, comparisons = load_comparisons([run])
    found = tax_by_text(rows, comparisons).set_index("haystack")
    assert list(found.index) == ["kjv", "python"]
    assert list(found["ratio"]) == [4.5, 2.5]
    assert list(found["tax"]) == [0.0, 0.5]
    assert list(found["pairs"]) == [48, 48]


def test_the_tax_by_family_says_where_it_is_undefined(tmp_path: Path) -> None:
    made = replace(MADE, corpora=("kjv",), families=("single_number", "single_word"))

    def change(row: Row) -> Row:
        word = row["family"] == "single_word"
        return {"correct": not word and (row["arm"] == "dense" or row["depth"] == 0)}

    rows, comparisons = load_comparisons([load_run(changed(tmp_path / "run", made, change))])
    found = tax_by_family(comparisons).set_index("family")
    assert found["defined"].to_dict() == {"single_number": True, "single_word": False}
    assert found.loc["single_number", ["pairs", "tax"]].tolist() == [48, 0.5]
    axes = {plate.name: plate for plate in make_plates(rows, comparisons)}["families"].figure().axes
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == ["single_number", "single_word  undefined"]
    drawn = np.asarray(axes[0].containers[0].lines[0].get_xdata(), dtype=float)
    assert drawn.tolist()[0] == 50.0
    assert np.isnan(drawn[1])


def test_a_question_put_to_one_arm_is_in_no_tax(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    lines = (run / "rows.jsonl").read_text().splitlines(keepends=True)
    (run / "rows.jsonl").write_text("".join(lines[:41]))
    comparison = compared(run)
    assert (len(comparison.pairs), len(comparison.complete)) == (96, 20)
    assert comparison.tax is not None
    assert (comparison.tax.pairs, comparison.tax.lost) == (20, 0)
    assert load_run(run).unfinished == {"dense": (21, 96), "v4": (20, 96)}


def test_a_folder_from_before_plans_were_kept_is_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    (run / "planned.jsonl").unlink()
    assert len(compared(run).pairs) == 96
    assert load_run(run).unfinished == {}


@pytest.mark.parametrize(
    ("field", "column", "modulus"),
    [("needle_phase", "needle_mod_4", 4), ("length_phase", "length_mod_128", 128)],
)
def test_residues_are_slices_where_the_sweep_asks_for_them(
    tmp_path: Path, field: str, column: str, modulus: int
) -> None:
    def place(row: Row) -> Row:
        return {"length": row["length"] + row["repeat"] % 4, "needle_start": row["repeat"] % 4}

    asked = changed(tmp_path / "asked", MADE, place, **{field: {"modulus": modulus}})
    assert set(compared(asked).slices(column)) == {0, 1, 2, 3}
    named = [found.value for found in slice_rows(compared(asked)) if "mod" in found.what]
    assert named == ["0", "1", "2", "3"]
    other = changed(tmp_path / "other", MADE, place)
    assert not [found for found in slice_rows(compared(other)) if "mod" in found.what]


def test_the_tokens_that_a_server_read_decide_the_phase(tmp_path: Path) -> None:
    """vLLM#55927 is wrong at 3 modulo 4, whatever was planned for a prompt that is sent as text."""

    def read(row: Row) -> Row:
        planned = {"length": row["length"] + row["repeat"] % 4, "needle_start": row["repeat"] % 4}
        if row["arm"] == "dense":
            return planned
        counted = planned["length"] - (row["repeat"] == 0)
        wrong = counted % 4 == 3
        return planned | {"server_prompt_tokens": counted, "correct": not wrong}

    phases = {"length_phase": {"modulus": 4}, "needle_phase": {"modulus": 4}}
    run = load_run(changed(tmp_path / "run", MADE, read, **phases))
    comparison = load_comparisons([run])[1][0]
    by_length, by_needle = comparison.slices("length_mod_4"), comparison.slices("needle_mod_4")
    assert [by_length[at].pairs for at in range(4)] == [16, 24, 24, 32]
    assert [by_length[at].lost for at in range(4)] == [0, 0, 0, 32]
    assert [by_needle[at].pairs for at in range(4)] == [16, 24, 24, 24], "unknown where it is read"
    shown = recall_by_phase(run.rows).set_index(["arm", "phase", "residue"])["recall"]
    assert [shown["v4", "Length mod 4", at] for at in range(4)] == [1, 1, 1, 0]
    make_heatmap(comparison)


def test_many_residues_are_binned_and_few_are_not(tmp_path: Path) -> None:
    def residues(count: int) -> set[int]:
        def place(row: Row) -> Row:
            return {"needle_start": int(row["pair"], 16) % count}

        phases = recall_by_phase(load_run(changed(tmp_path / str(count), MADE, place)).rows)
        return set(phases.loc[phases["phase"] == "Needle start mod 128", "residue"])

    assert residues(5) == {0, 1, 2, 3, 4}
    assert residues(40) == {0, 8, 16, 24, 32}
    assert residues(3) == set()  # modulo 4 says the same
