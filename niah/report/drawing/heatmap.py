"""The three heatmaps as one figure, for a file or a README; the page has tables of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from niah.report.drawing.look import fitted
from niah.report.drawing.palette import MUTED, RECALL_MAP, TAX_MAP
from niah.report.heatmap import HeatCell, Heatmap
from niah.statistics.clusters import FEW_STREAMS
from niah.text_format import whole_points

Side = Literal["baseline", "compressed", "tax"]
SIDES: tuple[Side, ...] = ("baseline", "compressed", "tax")
UNDECIDED = "?"  # behind a tax of too few streams to decide anything


def draw_heatmaps(heatmap: Heatmap, baseline: str, compressed: str) -> Figure:
    """Baseline, compressed and tax side by side, on the same axes, their scales below."""
    longest = max(map(len, heatmap.lengths))
    cell = max(0.42, 0.075 * longest + 0.08)
    width = max(1.9, cell * len(heatmap.lengths))
    figure = Figure(figsize=(3 * width + 1.1, 1.75 + 0.27 * len(heatmap.depths)))
    names = fitted([baseline, compressed], int(width / 0.085))
    titles = {
        "baseline": f"{names[baseline]}\nrecall, %",
        "compressed": f"{names[compressed]}\nrecall, %",
        "tax": "tax\npoints of recall lost",
    }
    panels = figure.subplots(1, 3, sharey=True)
    for axes, side in zip(panels, SIDES, strict=True):
        _draw_side(axes, heatmap, side)
        axes.set_title(titles[side])
    panels[0].set_ylabel("depth")
    panels[2].set_xlabel("prompt tokens" + undecided_text(heatmap).replace("; ", "\n"))
    limit = whole_points(tax_limit(heatmap))
    _add_scale(figure, panels[:2], ("0", "100"))
    _add_scale(figure, panels[2:], (f"−{limit} gained", f"lost +{limit}"))
    return figure


def tax_limit(heatmap: Heatmap) -> float:
    """The end of the tax's scale: the largest defined tax, rounded up to a calm number."""
    taxes = [abs(cell.tax.value) for cell in heatmap.whole.values() if cell.tax.defined]
    largest = max(taxes, default=0.0)
    return next(step for step in (0.1, 0.2, 0.3, 0.5, 1.0) if largest <= step + 1e-9)


def shown_value(cell: HeatCell, side: Side) -> float:
    """The number of a cell on one side; NaN where the tax is undefined."""
    if side == "tax":
        return cell.tax.value if cell.tax.defined else float("nan")
    return (cell.baseline if side == "baseline" else cell.compressed).value


def tax_text(cell: HeatCell) -> str:
    """The tax of a cell in whole points, marked where too few streams decide nothing."""
    return whole_points(cell.tax.value) + ("" if cell.tax.decidable else UNDECIDED)


def undecided_text(heatmap: Heatmap) -> str:
    """What the mark means; empty where no cell has it."""
    taxes = [cell.tax for cell in heatmap.whole.values()]
    marked = any(tax.defined and not tax.decidable for tax in taxes)
    return f"; {UNDECIDED} {FEW_STREAMS}" if marked else ""


def _draw_side(axes: Axes, heatmap: Heatmap, side: Side) -> None:
    values = np.full((len(heatmap.depths), len(heatmap.lengths)), np.nan)
    for (row, column), cell in heatmap.whole.items():
        values[row, column] = shown_value(cell, side)
        if np.isnan(values[row, column]):
            axes.add_patch(_hatched(row, column))
    limit = tax_limit(heatmap)
    low, high = (-limit, limit) if side == "tax" else (0.0, 1.0)
    colours = TAX_MAP if side == "tax" else RECALL_MAP
    axes.imshow(values, cmap=colours, aspect="auto", vmin=low, vmax=high)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            ink = ink_on(colours, (value - low) / (high - low))
            text = tax_text(heatmap.whole[row, column]) if side == "tax" else whole_points(value)
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(values.shape[1]), heatmap.lengths)
    axes.set_yticks(range(values.shape[0]), heatmap.depths)
    axes.set_xlabel("prompt tokens")
    axes.grid(visible=False)


def _add_scale(figure: Figure, panels: Sequence[Axes], ends: tuple[str, str]) -> None:
    """A small bar below `panels`, which share its colours; the ends of the scale beside it."""
    bar = figure.colorbar(
        panels[0].images[0],
        ax=panels,
        location="bottom",
        shrink=0.35 if len(panels) == 1 else 0.18,
        aspect=12,
        pad=0.02,
        ticks=[],
    )
    bar.outline.set_visible(False)
    for text, at, side in zip(ends, (-0.06, 1.06), ("right", "left"), strict=True):
        bar.ax.text(
            at, 0.5, text, color=MUTED, fontsize=8, ha=side, va="center", transform=bar.ax.transAxes
        )


def ink_on(colours: LinearSegmentedColormap, at: float) -> str:
    """Black or white, whichever reads better on the colour of a scale at `at` (0 to 1)."""
    red, green, blue, _ = colours(min(1.0, max(0.0, at)))
    return "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"


def _hatched(row: int, column: int) -> Rectangle:
    corner = (column - 0.5, row - 0.5)
    return Rectangle(corner, 1, 1, fill=False, hatch="////", edgecolor=MUTED, linewidth=0)
