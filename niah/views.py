"""The numbers of the heatmaps under every choice of filters, computed once, here.

Owns cells: one length and depth, under one filter. The page only looks them up, so that no
statistic is written twice. Knows nothing about HTML or colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import pandas as pd

from niah.compare import Comparison
from niah.stats import Recall, Tax, estimate_recall, estimate_tax
from niah.wording import length_text, slice_text

MAX_CELLS = 8_000  # over all views: about half a megabyte of the page
MAX_OPTIONS = 24
ALL = "all"


class Filter(NamedTuple):
    """A column to choose a value of, and how the page calls it."""

    column: str
    name: str
    label: str


FILTERS = (
    Filter("family", "family", "Needle family"),
    Filter("corpus", "corpus", "Haystack"),
    Filter("template_split", "template_split", "Sentence templates"),
    Filter("length_phase", "length_phase", "Length mod 4"),
    Filter("needle_phase", "needle_phase", "Needle start mod 4"),
)


@dataclass(frozen=True)
class Cell:
    """One length and depth of the three heatmaps; `tax` carries the counts of pairs."""

    length: str
    depth: str
    baseline: Recall
    compressed: Recall
    tax: Tax

    def as_list(self) -> list[float]:
        """For the page, in the order that `report.js` reads: shares as they are, rounded."""
        shares = [
            number
            for recall in (self.baseline, self.compressed)
            for number in (recall.correct, recall.asked, *recall.interval, recall.errors)
        ]
        tax = self.tax
        paired = [tax.lost, tax.gained, tax.pairs, tax.streams, *tax.interval, int(tax.defined)]
        return [round(float(number), 4) for number in (*shares, *paired)]


@dataclass(frozen=True)
class Heatmap:
    """Shared axes and, for every choice of filters, the cells on them.

    `views` maps the chosen values, joined by "|" in the order of `filters` ("all" for any), to
    cells by (row, column); a question not asked there leaves a gap.
    """

    lengths: Sequence[str]
    depths: Sequence[str]
    filters: Sequence[Filter]
    options: Mapping[str, Sequence[str]]
    views: Mapping[str, Mapping[tuple[int, int], Cell]]

    @property
    def whole(self) -> Mapping[tuple[int, int], Cell]:
        return self.views["|".join([ALL] * len(self.filters))]


def make_heatmap(comparison: Comparison, max_cells: int = MAX_CELLS) -> Heatmap:
    """Every cell of every view. Where all choices together would make more than `max_cells`, one
    filter at a time can be chosen."""
    pairs = with_phases(comparison.pairs)
    lengths, depths = sorted(set(pairs["at_length"])), sorted(set(pairs["at_depth"]))
    pairs["column"] = pairs["at_length"].map(lengths.index)
    pairs["row"] = pairs["at_depth"].map(depths.index)
    filters, options = choices(pairs)
    labels = (
        [length_text(length) for length in lengths],
        [slice_text("at_depth", depth) for depth in depths],
    )
    max_views = max_cells // (len(lengths) * len(depths))
    views = {
        "|".join(chosen): cells(found, labels, comparison.floor)
        for chosen, found in selections(pairs, filters, options, max_views)
    }
    return Heatmap(*labels, filters, options, views)


def with_phases(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs with their phases as text to filter by."""
    start = pairs["needle_start"].fillna(0).astype(int)
    return pairs.assign(
        length_phase=(pairs["length"] % 4).astype(int).astype(str),
        needle_phase=(start % 4).astype(str),
    )


def choices(pairs: pd.DataFrame) -> tuple[list[Filter], dict[str, list[str]]]:
    """The filters that have something to choose between, and their values."""
    values = {
        found.name: sorted(map(str, pairs[found.column].unique()))[:MAX_OPTIONS]
        for found in FILTERS
    }
    filters = [found for found in FILTERS if len(values[found.name]) > 1]
    return filters, {found.name: values[found.name] for found in filters}


def selections(
    pairs: pd.DataFrame,
    filters: Sequence[Filter],
    options: Mapping[str, Sequence[str]],
    max_views: int,
) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """(chosen values, pairs that fit them) for every choice that finds any."""
    every = list(product(*([ALL, *options[found.name]] for found in filters)))
    if len(every) > max_views:
        every = [chosen for chosen in every if sum(value != ALL for value in chosen) <= 1]
    for chosen in every:
        found = pairs
        for wanted, value in zip(filters, chosen, strict=True):
            if value != ALL:
                found = found[found[wanted.column].astype(str) == value]
        if len(found):
            yield chosen, found


def cells(
    pairs: pd.DataFrame, labels: tuple[Sequence[str], Sequence[str]], floor: float
) -> dict[tuple[int, int], Cell]:
    """Cells by (row, column)."""
    streams = pairs["stream_id"].to_numpy()
    sides = {side: pairs[side].to_numpy() for side in ("baseline", "compressed")}
    failed = {side: pairs[f"{side}_failed"].to_numpy() for side in sides}
    found = {}
    for (row, column), at in pairs.groupby(["row", "column"]).indices.items():
        recalls = {
            side: estimate_recall(sides[side][at], streams[at], int(failed[side][at].sum()))
            for side in sides
        }
        errors = int((failed["baseline"] | failed["compressed"])[at].sum())
        tax = estimate_tax(
            sides["baseline"][at], sides["compressed"][at], streams[at], errors, floor
        )
        found[int(row), int(column)] = Cell(labels[0][column], labels[1][row], **recalls, tax=tax)
    return found
