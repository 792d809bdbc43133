"""The figures and tables of a report as files of their own: PNG, SVG, CSV, Markdown.

Owns file names and the two text formats; draws and computes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from niah.compare import Comparison, load_comparisons, slice_rows
from niah.errors import NiahError
from niah.figure_heatmap import draw_heatmaps
from niah.headline import headline
from niah.plates import Plate, make_plates, text_table
from niah.results import load_run
from niah.stats import BASELINE_FLOOR
from niah.theme import file_bytes, style
from niah.views import make_heatmap
from niah.wording import markdown_text, points

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
    rows, comparisons = load_comparisons([load_run(run) for run in runs], floor)
    plates = make_plates(rows, comparisons)
    writers: dict[str, Callable[[], Iterator[tuple[str, bytes]]]] = {
        "png": lambda: _drawn(plates, comparisons, "png"),
        "svg": lambda: _drawn(plates, comparisons, "svg"),
        "csv": lambda: _csv(plates, comparisons),
        "md": lambda: _markdown(rows, plates, comparisons),
    }
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in writers[file_format]():
        written.append(out / name)
        written[-1].write_bytes(content)
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
            "baseline_correct": cell.baseline.correct,
            "compressed_correct": cell.compressed.correct,
            "asked": cell.tax.pairs,
            "errors": cell.tax.errors,
            "lost": cell.tax.lost,
            "gained": cell.tax.gained,
            "tax": cell.tax.value,
            "low": cell.tax.interval.low,
            "high": cell.tax.interval.high,
            "defined": cell.tax.defined,
        }
        for cell in make_heatmap(comparison).whole.values()
    )


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


def _csv(plates: Sequence[Plate], comparisons: Sequence[Comparison]) -> Iterator[tuple[str, bytes]]:
    frames = {plate.name: plate.frame for plate in plates}
    for name, make in (("heatmap", heatmap_frame), ("slices", slice_frame)):
        found = [make(comparison) for comparison in comparisons]
        if any(len(frame) for frame in found):
            frames[name] = pd.concat(found)
    for name, frame in frames.items():
        yield f"{name}.csv", frame.to_csv(index=False).encode()


def _markdown(
    rows: pd.DataFrame, plates: Sequence[Plate], comparisons: Sequence[Comparison]
) -> Iterator[tuple[str, bytes]]:
    parts = ["# Compression tax", ""]
    for comparison in comparisons:
        parts += [f"## {markdown_text(comparison.title)}", ""]
        parts += [markdown_text(headline(comparison, rows)), "", *_slices(comparison), ""]
    for plate in plates:
        parts += [f"## {plate.title}", "", plate.caption, "", *_table(*text_table(plate.frame)), ""]
    yield "report.md", ("\n".join(parts).rstrip() + "\n").encode()


def _slices(comparison: Comparison) -> list[str]:
    headers = ["slice", "baseline, %", "compressed, %", "tax, points", "95%", "pairs"]
    lines = []
    for found in slice_rows(comparison):
        tax, (low, high) = found.tax, found.tax.interval
        numbers = [points(tax.baseline), points(tax.compressed)]
        numbers += [points(tax.value), f"{points(low)} to {points(high)}"]
        if not tax.defined:
            numbers[2:] = ["undefined", "–"]
        lines.append([f"{found.what} {found.value}", *numbers, f"{tax.pairs:,}"])
    return _table(headers, lines) if lines else []


def _table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rule = "|".join([":--", *["--:"] * (len(headers) - 1)])
    body = [f"| {' | '.join(map(markdown_text, line))} |" for line in lines]
    return [f"| {' | '.join(headers)} |", f"|{rule}|", *body]
