"""A report in the terminal: headlines, and the three heatmaps in coloured blocks and digits.

Colour repeats what the digits say: a log without colour loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.colors import LinearSegmentedColormap, to_hex
from rich.console import Console, Group
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from niah.report.drawing.heatmap import (
    Side,
    ink_on,
    shown_value,
    tax_limit,
    tax_text,
    undecided_text,
)
from niah.report.drawing.palette import RECALL_MAP, TAX_MAP
from niah.report.heatmap import HeatCell, Heatmap, make_heatmap
from niah.report.notices import notices
from niah.report.sentences import headline
from niah.runs.tables import load_runs
from niah.statistics.comparisons import Comparison, load_comparisons
from niah.statistics.graded import graded_of, graded_text
from niah.statistics.intervals import BASELINE_FLOOR
from niah.statistics.noise import noise_floors, noise_text
from niah.text_format import whole_points


def terminal_report(
    runs: Path | Sequence[Path], console: Console | None = None, floor: float = BASELINE_FLOOR
) -> None:
    """Print the headline and the heatmaps of every comparison of `runs`, and the notices.

    Raises:
        NiahError: unreadable results.
    """
    console = console or Console()
    paths = [runs] if isinstance(runs, Path) else runs
    loaded = load_runs(paths)
    rows, comparisons = load_comparisons(loaded, floor)
    if not comparisons:
        console.print("No two arms were asked the same questions: there is no tax to show.")
    noises = noise_floors(loaded, floor)
    for comparison in comparisons:
        console.print(Text(headline(comparison, rows, noises), style="bold"))
        print_heatmaps(console, comparison)
    for noise in noises:
        console.print(Text(f"noise floor: {noise_text(noise)}"))
    for comparison in comparisons:
        if graded := graded_of(comparison.complete):
            console.print(Text(f"gold log-probability, {graded_text(comparison.title, graded)}"))
    for notice in notices(loaded, rows, comparisons, noises):
        console.print(Text(f"! {notice}", style="yellow"))


def print_heatmaps(console: Console, comparison: Comparison) -> None:
    """Baseline, compressed and tax, side by side where the console is wide enough."""
    heatmap = make_heatmap(comparison, max_cells=0)
    limit = tax_limit(heatmap)
    panels = [
        _panel(heatmap, f"{comparison.baseline}, recall %", "baseline", limit),
        _panel(heatmap, f"{comparison.compressed}, recall %", "compressed", limit),
        _panel(heatmap, "tax, points lost", "tax", limit),
    ]
    width = sum(console.measure(panel).maximum for panel in panels) + 6
    side_by_side = Table.grid(padding=(0, 3))
    side_by_side.add_row(*panels)
    for panel in [side_by_side] if width <= console.width else panels:
        console.print(Padding(panel, (1, 0, 0, 0)))
    console.print(
        Text(
            "rows: depth, columns: prompt tokens; – undefined, blank not asked"
            f"{undecided_text(heatmap)}\n",
            "dim",
        )
    )


def _panel(heatmap: Heatmap, title: str, side: Side, limit: float) -> Group:
    panel = Table(box=None, padding=(0, 0), show_edge=False)
    panel.add_column("", justify="right")
    for length in heatmap.lengths:
        panel.add_column(Text(length), justify="right", min_width=5)
    for row, depth in enumerate(heatmap.depths):
        cells = [heatmap.whole.get((row, column)) for column in range(len(heatmap.lengths))]
        panel.add_row(Text(depth, "dim"), *(_block(cell, side, limit) for cell in cells))
    return Group(Text(title, "italic"), panel)  # a table's own title would wrap to its width


def _block(cell: HeatCell | None, side: Side, limit: float) -> Text:
    if cell is None:
        return Text("")
    value = shown_value(cell, side)
    if side != "tax":
        return _coloured(whole_points(value), RECALL_MAP, value)
    if not cell.tax.defined:
        return Text(" – ", "dim")
    return _coloured(tax_text(cell), TAX_MAP, (value / limit + 1) / 2)


def _coloured(text: str, colours: LinearSegmentedColormap, at: float) -> Text:
    background = to_hex(colours(min(1.0, max(0.0, at))))
    style = Style(color=ink_on(colours, at), bgcolor=background)
    return Text(f"{text:>4} ", style)
