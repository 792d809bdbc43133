"""A cell of a heatmap as the page shows it: rounded numbers, and the class and share of its colour.

The page's script rounds and colours nothing: it shows what is computed here.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from niah.report.drawing.heatmap import SIDES, Side, shown_value
from niah.report.heatmap import HeatCell
from niah.statistics.intervals import Recall
from niah.text_format import points, whole_points

# Where white text reads better than black: recall below, a tax beyond this share of its scale.
LIGHT = {"recall": 0.39, "gain": 0.78, "loss": 0.86}
SHOWN, FEW = " shown", " few"  # the interval excludes zero; too few streams to decide anything
CLASSES = (
    *("recall", "recall light", "undefined"),
    *(
        f"{kind}{light}{mark}"
        for kind, light, mark in product(("gain", "loss"), ("", " light"), ("", SHOWN, FEW))
    ),
)


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
    mark = SHOWN if excludes_zero(cell) else "" if cell.tax.decidable else FEW
    classes = f"{kind}{' light' * (share > LIGHT[kind])}{mark}"
    return Shown(whole_points(value), str(cell.tax.pairs), classes, round(share, 3))


def excludes_zero(cell: HeatCell) -> bool:
    return cell.tax.shows_loss or cell.tax.shows_gain


def cell_line(cell: HeatCell, limit: float) -> list[float]:
    """For the page's script, in the order it reads: counts, shares as points, and by side a class
    (its place in CLASSES) and a share of the scale. `limit` is the end of the tax's scale."""
    tax = cell.tax
    paired = [whole(tax.value), tenths(tax.value), tax.lost, tax.gained, tax.pairs, tax.streams]
    ends = [*map(tenths, tax.interval), int(tax.defined), int(tax.decidable)]
    sides = [shown_cell(cell, side, limit) for side in SIDES]
    colours = [value for shown in sides for value in (CLASSES.index(shown.classes), shown.share)]
    return [*_recall(cell.baseline), *_recall(cell.compressed), *paired, *ends, *colours]


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
