"""Files hold the numbers of the rows, and names in them stay text."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest

from niah.errors import NiahError
from niah.report.files import write_files
from tests.synthetic_rows import Synthetic, records, write_run

SMALL = Synthetic(lengths=(1024, 4096), depths=(0.0, 0.5, 1.0), repeats=4)
HOSTILE = "</text><script>alert(1)</script>|`*_<img src=x>"


def written(tmp_path: Path, file_format: str, made: Synthetic = SMALL) -> dict[str, Path]:
    run = write_run(tmp_path / "run", made)
    return {path.name: path for path in write_files([run], tmp_path / "files", file_format)}


def counts(made: Synthetic = SMALL) -> dict[tuple[str, int, float], tuple[int, int]]:
    """(right, asked) by arm, length and depth."""
    cells = pd.DataFrame(records(made)).groupby(["arm", "length", "depth"])["correct"]
    return {place: (int(found.sum()), len(found)) for place, found in cells}


def test_heatmap_csv_holds_counts_and_intervals_of_both_arms(tmp_path: Path) -> None:
    table = pd.read_csv(written(tmp_path, "csv")["heatmap.csv"])
    depths = {"0%": 0.0, "50%": 0.5, "100%": 1.0}
    assert len(table) == 6
    for line in table.to_dict("records"):
        at = {"1K": 1024, "4K": 4096}[line["length"]], depths[line["depth"]]
        for side, arm in (("baseline", "dense"), ("compressed", "v4")):
            right, asked = counts()[arm, *at]
            assert (line[f"{side}_correct"], line[f"{side}_asked"]) == (right, asked)
            assert line[f"{side}_low"] <= line[f"{side}_recall"] <= line[f"{side}_high"]
            assert line[f"{side}_low"] < line[f"{side}_high"]
        assert line["low"] < line["tax"] < line["high"]


def test_csv_of_recall_counts_the_rows(tmp_path: Path) -> None:
    table = pd.read_csv(written(tmp_path, "csv")["recall.csv"])
    rows = pd.DataFrame(records(SMALL))
    for line in table.to_dict("records"):
        here = rows[(rows["arm"] == line["arm"]) & (rows["length"] == line["length"])]
        assert (line["correct"], line["asked"]) == (here["correct"].sum(), len(here))


def test_markdown_has_the_three_heatmaps(tmp_path: Path) -> None:
    text = written(tmp_path, "md")["report.md"].read_text(encoding="utf-8")
    tables = re.findall(r"^\| depth \|.*\n\|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert len(tables) == 3
    for arm, table in zip(("dense", "v4"), tables, strict=False):
        for line, depth in zip(table.splitlines(), SMALL.depths, strict=True):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            for cell, length in zip(cells[1:], SMALL.lengths, strict=True):
                right, asked = counts()[arm, length, depth]
                assert cell == f"{100 * right / asked:.0f} ({right}/{asked})"
    assert "(4)" in tables[2]


def test_markdown_marks_undefined_cells(tmp_path: Path) -> None:
    fails = {"dense": lambda *_: 0.0, "v4": lambda *_: 1.0}
    made = Synthetic((1024,), (0.5,), repeats=4, arms=fails)
    assert "| 50% | – |" in written(tmp_path, "md", made)["report.md"].read_text(encoding="utf-8")


def test_names_in_markdown_are_text(tmp_path: Path) -> None:
    arms = {HOSTILE: lambda *_: 1.0, "v4": lambda *_: 0.5}
    made = Synthetic((1024,), (0.5,), (HOSTILE, "b"), repeats=4, arms=arms)
    text = written(tmp_path, "md", made)["report.md"].read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<", text)
    assert "\\</text\\>\\<script\\>" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in tables if "alert" in line}
    assert bars <= {len(re.findall(r"(?<!\\)\|", line)) for line in tables if "alert" not in line}


def test_names_in_svg_are_text(tmp_path: Path) -> None:
    arms = {HOSTILE: lambda *_: 1.0, "v4": lambda *_: 0.5}
    made = Synthetic((1024,), (0.5,), repeats=4, arms=arms)
    for path in written(tmp_path, "svg", made).values():
        names = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
        assert not names & {"script", "img", "foreignObject"}


@pytest.mark.parametrize(("file_format", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_figure_a_file(tmp_path: Path, file_format: str, magic: bytes) -> None:
    files = written(tmp_path, file_format)
    assert {"heatmap", "recall", "tax", "bytes"} <= {path.stem for path in files.values()}
    assert all(path.read_bytes().startswith(magic) for path in files.values())


def test_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NiahError, match="format is 'pdf'"):
        written(tmp_path, "pdf")
