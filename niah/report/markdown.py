"""The report as Markdown: headlines, notices, heatmaps and tables, for a merge request or a log.

Every name in it is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from niah.report.charts import Table
from niah.report.drawing.heatmap import Side, tax_text, undecided_text
from niah.report.heatmap import HeatCell, Heatmap, make_heatmap
from niah.report.html.cells import excludes_zero, shown_cell
from niah.report.sentences import headline
from niah.statistics.clusters import FEW_STREAMS
from niah.statistics.comparisons import Comparison, slice_rows
from niah.statistics.noise import Noise, noise_text
from niah.text_format import markdown_text, points


def markdown(
    rows: pd.DataFrame,
    shown: Sequence[Table],
    comparisons: Sequence[Comparison],
    noises: Sequence[Noise],
    notices: Sequence[str],
) -> str:
    """`shown`: the tables, and the plates for their tables, in order."""
    parts = ["# Compression tax", ""]
    parts += [f"> {markdown_text(notice)}\n" for notice in notices]
    parts += [f"Noise floor: {markdown_text(noise_text(noise))}.\n" for noise in noises]
    for comparison in comparisons:
        parts += [f"## {markdown_text(comparison.title)}", ""]
        parts += [markdown_text(headline(comparison, rows, noises)), ""]
        parts += [*_heatmaps(comparison), *_slices(comparison), ""]
    for table in shown:
        parts += [f"## {table.title}", "", table.caption, "", *table_lines(*table.table()), ""]
    return "\n".join(parts).rstrip() + "\n"


def table_lines(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rule = "|".join([":--", *["--:"] * (len(headers) - 1)])
    rows = [f"| {' | '.join(map(markdown_text, line))} |" for line in (headers, *lines)]
    return [rows[0], f"|{rule}|", *rows[1:]]


def _heatmaps(comparison: Comparison) -> list[str]:
    heatmap = make_heatmap(comparison, max_cells=0)
    titles: dict[Side, str] = {
        "baseline": f"Recall of {comparison.baseline}, % (right/asked)",
        "compressed": f"Recall of {comparison.compressed}, % (right/asked)",
        "tax": "Tax, points (pairs); * where the 95% interval excludes zero, – where undefined"
        + undecided_text(heatmap),
    }
    found = []
    for side, title in titles.items():
        found += [f"{markdown_text(title)}:", "", *_side(heatmap, side), ""]
    return found


def _side(heatmap: Heatmap, side: Side) -> list[str]:
    lines = [
        [depth, *(_cell(heatmap.whole.get((row, c)), side) for c in range(len(heatmap.lengths)))]
        for row, depth in enumerate(heatmap.depths)
    ]
    return table_lines(["depth", *heatmap.lengths], lines)


def _cell(cell: HeatCell | None, side: Side) -> str:
    if cell is None:
        return ""
    shown = shown_cell(cell, side, limit=1.0)
    if not shown.small:
        return shown.text
    text = tax_text(cell) + "*" * excludes_zero(cell) if side == "tax" else shown.text
    return f"{text} ({shown.small})"


def _slices(comparison: Comparison) -> list[str]:
    headers = ["slice", "baseline, %", "compressed, %", "tax, points", "95%", "pairs"]
    lines = []
    for found in slice_rows(comparison):
        tax, (low, high) = found.tax, found.tax.interval
        numbers = [points(tax.baseline), points(tax.compressed)]
        few = "" if tax.decidable else f" ({FEW_STREAMS})"
        numbers += [points(tax.value), f"{points(low)} to {points(high)}{few}"]
        if not tax.defined:
            numbers[2:] = ["undefined", "–"]
        lines.append([f"{found.what} {found.value}", *numbers, f"{tax.pairs:,}"])
    return table_lines(headers, lines) if lines else []
