"""A heatmap in the terminal: the three panels of the page in coloured blocks and digits.

Owns layout for a console. Colour repeats what the digits say, so a log without colour loses
nothing.
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

from niah.compare import Comparison, load_comparisons
from niah.figure_heatmap import tax_limit
from niah.headline import headline
from niah.palette import RECALL_MAP, TAX_MAP
from niah.results import load_run
from niah.stats import BASELINE_FLOOR
from niah.views import Cell, Heatmap, make_heatmap


def terminal_report(
    runs: Path | Sequence[Path], console: Console | None = None, floor: float = BASELINE_FLOOR
) -> None:
    """Print the headline and the heatmaps of every comparison of `runs`.

    Raises:
        NiahError: unreadable results.
    """
    console = console or Console()
    paths = [runs] if isinstance(runs, Path) else runs
    rows, comparisons = load_comparisons([load_run(run) for run in paths], floor)
    if not comparisons:
        console.print("No two arms were asked the same questions: there is no tax to show.")
    for comparison in comparisons:
        console.print(Text(headline(comparison, rows), style="bold"))
        print_heatmaps(console, comparison)


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
        Text("rows: depth, columns: prompt tokens; – undefined, blank not asked\n", "dim")
    )


def _panel(heatmap: Heatmap, title: str, side: str, limit: float) -> Group:
    panel = Table(box=None, padding=(0, 0), show_edge=False)
    panel.add_column("", justify="right")
    for length in heatmap.lengths:
        panel.add_column(Text(length), justify="right", min_width=5)
    for row, depth in enumerate(heatmap.depths):
        cells = [heatmap.whole.get((row, column)) for column in range(len(heatmap.lengths))]
        panel.add_row(Text(depth, "dim"), *(_block(cell, side, limit) for cell in cells))
    return Group(Text(title, "italic"), panel)  # a table's own title would wrap to its width


def _block(cell: Cell | None, side: str, limit: float) -> Text:
    if cell is None:
        return Text("")
    if side != "tax":
        value = (cell.baseline if side == "baseline" else cell.compressed).value
        return _coloured(value, RECALL_MAP, value)
    if not cell.tax.defined:
        return Text(" – ", "dim")
    return _coloured(cell.tax.value, TAX_MAP, (cell.tax.value / limit + 1) / 2)


def _coloured(value: float, colours: LinearSegmentedColormap, at: float) -> Text:
    red, green, blue, _ = colours(min(1.0, max(0.0, at)))
    ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
    digits = f"{100 * value:.0f}".replace("-0", "0") if abs(value) < 0.005 else f"{100 * value:.0f}"
    return Text(f"{digits:>4} ", Style(color=ink, bgcolor=to_hex((red, green, blue))))
