"""Writes the figures and tables of a report as files of their own: PNG, SVG, CSV, Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from niah.errors import NiahError
from niah.files import write_atomically
from niah.report.charts import Plate, Table, make_plates, make_tables
from niah.report.drawing.heatmap import draw_heatmaps
from niah.report.drawing.theme import file_bytes, style
from niah.report.heatmap import make_heatmap
from niah.report.markdown import markdown
from niah.report.notices import notices
from niah.runs.store import refuse_run_file
from niah.runs.tables import load_runs
from niah.statistics.comparisons import Comparison, load_comparisons, slice_rows
from niah.statistics.intervals import BASELINE_FLOOR, Recall
from niah.statistics.noise import noise_floors

FORMATS = ("png", "svg", "csv", "md")


def write_files(
    runs: Sequence[Path], out: Path, file_format: str, floor: float = BASELINE_FLOOR
) -> list[Path]:
    """Write what the report of `runs` shows into the folder `out`; returns the files.

    png and svg: a file a figure. csv: a file a table, numbers as computed. md: report.md, with
    numbers as the page writes them.

    Raises:
        NiahError: unreadable results, a format not listed above, or a file where the folder
            should be; nothing is written then.
    """
    if file_format not in FORMATS:
        raise NiahError(f"format is {file_format!r}; it should be html, {', '.join(FORMATS)}")
    if out.suffix == ".html" or out.is_file():
        raise NiahError(f"out is {out}; {file_format} files need a folder")
    loaded = load_runs(runs)
    rows, comparisons = load_comparisons(loaded, floor)
    plates, noises = make_plates(rows, comparisons), noise_floors(loaded, floor)
    shown = [*make_tables(rows, comparisons, noises), *plates]

    def text() -> str:
        told = notices(loaded, rows, comparisons, noises)
        return markdown(rows, shown, comparisons, noises, told)

    writers: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
        "png": lambda: _drawn(plates, comparisons, "png"),
        "svg": lambda: _drawn(plates, comparisons, "svg"),
        "csv": lambda: _csv(shown, comparisons),
        "md": lambda: iter([("report.md", text().encode())]),
    }
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in writers[file_format]():
        refuse_run_file(out / name)
        written.append(out / name)
        write_atomically(written[-1], content)
    return written


def slice_frame(comparison: Comparison) -> pd.DataFrame:
    """The tax by slice: what, value, counts, recalls, tax, low, high, p_holm."""
    return pd.DataFrame(
        {
            "comparison": comparison.title,
            "slice": found.what,
            "value": found.value,
            "pairs": found.tax.pairs,
            "streams": found.tax.streams,
            "lost": found.tax.lost,
            "gained": found.tax.gained,
            "baseline": found.tax.baseline,
            "compressed": found.tax.compressed,
            "tax": found.tax.value,
            "low": found.tax.interval.low,
            "high": found.tax.interval.high,
            "defined": found.tax.defined,
            "decidable": found.tax.decidable,
            "p_holm": found.p_holm,
        }
        for found in slice_rows(comparison)
    )


def heatmap_frame(comparison: Comparison) -> pd.DataFrame:
    """A line a cell: length, depth, counts and intervals of both arms, and the tax."""
    return pd.DataFrame(
        {
            "comparison": comparison.title,
            "length": cell.length,
            "depth": cell.depth,
            **_recall_columns("baseline", cell.baseline),
            **_recall_columns("compressed", cell.compressed),
            "pairs": cell.tax.pairs,
            "errors": cell.tax.errors,
            "lost": cell.tax.lost,
            "gained": cell.tax.gained,
            "tax": cell.tax.value,
            "low": cell.tax.interval.low,
            "high": cell.tax.interval.high,
            "defined": cell.tax.defined,
            "decidable": cell.tax.decidable,
        }
        for cell in make_heatmap(comparison).whole.values()
    )


def _recall_columns(arm: str, recall: Recall) -> dict[str, float]:
    low, high = recall.interval
    counts = {f"{arm}_correct": recall.correct, f"{arm}_asked": recall.asked}
    return counts | {f"{arm}_recall": recall.value, f"{arm}_low": low, f"{arm}_high": high}


def _drawn(
    plates: Sequence[Plate], comparisons: Sequence[Comparison], kind: Literal["png", "svg"]
) -> Iterator[tuple[str, bytes]]:
    for number, comparison in enumerate(comparisons, start=1):
        name = "heatmap" if len(comparisons) == 1 else f"heatmap-{number}"
        with style():
            figure = draw_heatmaps(
                make_heatmap(comparison), comparison.baseline, comparison.compressed
            )
        yield f"{name}.{kind}", file_bytes(figure, kind, name)
    for plate in plates:
        yield f"{plate.name}.{kind}", file_bytes(plate.figure(), kind, plate.name)


def _csv(shown: Sequence[Table], comparisons: Sequence[Comparison]) -> Iterator[tuple[str, bytes]]:
    frames = {table.name: table.frame for table in shown}
    for name, make in (("heatmap", heatmap_frame), ("slices", slice_frame)):
        found = [make(comparison) for comparison in comparisons]
        if any(len(frame) for frame in found):
            frames[name] = pd.concat(found)
    for name, frame in frames.items():
        yield f"{name}.csv", frame.to_csv(index=False).encode()
