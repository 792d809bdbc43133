"""A cell of a heatmap as the page shows it: rounded numbers, and the class and share of its colour.

Owns rounding and colouring for the page, so that its script rounds nothing and both themes, the
page without scripts and the files agree.
"""

from __future__ import annotations

from typing import NamedTuple

from niah.report.drawing.heatmap import Side, shown_value
from niah.report.heatmap import HeatCell
from niah.statistics.intervals import Recall
from niah.text_format import points, whole_points

# Where white text reads better than black: recall below, a tax beyond this share of its scale.
LIGHT = {"recall": 0.39, "gain": 0.78, "loss": 0.86}


class Shown(NamedTuple):
    """One cell on one side: its text, its count, its classes, and how far along its scale."""

    text: str
    small: str
    classes: str
    share: float


def shown_cell(cell: HeatCell, side: Side, limit: float) -> Shown:
    value = shown_value(cell, side)
    if side != "tax":
        recall = cell.baseline if side == "baseline" else cell.compressed
        light = " light" if value < LIGHT["recall"] else ""
        count = f"{recall.correct}/{recall.asked}"
        return Shown(whole_points(value), count, f"recall{light}", round(value, 3))
    if not cell.tax.defined:
        return Shown("–", "", "undefined", 0.0)
    kind, share = ("gain" if value < 0 else "loss"), min(1.0, abs(value) / limit)
    classes = kind + " light" * (share > LIGHT[kind]) + " shown" * excludes_zero(cell)
    return Shown(whole_points(value), str(cell.tax.pairs), classes, round(share, 3))


def excludes_zero(cell: HeatCell) -> bool:
    return cell.tax.shows_loss or cell.tax.shows_gain


def cell_line(cell: HeatCell) -> list[float]:
    """For the page's script, in the order it reads: counts, and shares as points, rounded here."""
    tax = cell.tax
    paired = [whole(tax.value), tenths(tax.value), tax.lost, tax.gained, tax.pairs, tax.streams]
    ends = [*map(tenths, tax.interval), int(tax.defined), int(excludes_zero(cell))]
    return [*_recall(cell.baseline), *_recall(cell.compressed), *paired, *ends]


def _recall(recall: Recall) -> list[float]:
    low, high = map(tenths, recall.interval)
    rounded = [whole(recall.value), tenths(recall.value)]
    return [*rounded, recall.correct, recall.asked, low, high, recall.errors]


def whole(share: float) -> int:
    """The number that `whole_points` writes."""
    return int(whole_points(share).replace("−", "-"))


def tenths(share: float) -> float:
    """The number that `points` writes."""
    return float(points(share).replace("−", "-"))
