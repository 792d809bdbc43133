"""Computes the numbers of the heatmaps: every cell under every choice of filters.

The page looks them up, so that no statistic is written twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import pandas as pd

from niah.runs.tables import PHASES
from niah.statistics.columns import FILTERS, Column, axis_labels
from niah.statistics.comparisons import Comparison
from niah.statistics.intervals import Recall, Tax, estimate_recall, estimate_tax

MAX_CELLS = 8_000  # over all views: about a megabyte of the page
MAX_OPTIONS = 128  # every residue of a length mod 128
ALL = "all"
FEW = 4


@dataclass(frozen=True)
class HeatCell:
    """One length and depth of the three heatmaps; `tax` carries the counts of pairs."""

    length: str
    depth: str
    baseline: Recall
    compressed: Recall
    tax: Tax


@dataclass(frozen=True)
class Heatmap:
    """Shared axes and, for every choice of filters, the cells on them.

    `views` maps the chosen values, joined by "|" in the order of `filters` ("all" for any), to
    cells by (row, column); a question not asked there leaves a gap. `lengths` and `depths` label
    the places `at_length` and `at_depth`. Where not `combined`, only one filter at a time is there.
    """

    lengths: Sequence[str]
    depths: Sequence[str]
    at_length: Sequence[float]
    at_depth: Sequence[float]
    filters: Sequence[Column]
    options: Mapping[str, Sequence[str]]
    views: Mapping[str, Mapping[tuple[int, int], HeatCell]]
    combined: bool

    @property
    def whole(self) -> Mapping[tuple[int, int], HeatCell]:
        return self.views["|".join([ALL] * len(self.filters))]


def make_heatmap(comparison: Comparison, max_cells: int = MAX_CELLS) -> Heatmap:
    """Every cell of every view. Where all choices together would make more than `max_cells`, one
    filter at a time can be chosen; where those would be more than twice as many, none."""
    pairs = comparison.complete.assign(**filter_texts(comparison.complete))
    pairs["answerable"] = pairs.index.isin(comparison.answerable.index)
    lengths, depths = axis_labels(pairs, "at_length"), axis_labels(pairs, "at_depth")
    pairs["column"] = pairs["at_length"].map(list(lengths).index)
    pairs["row"] = pairs["at_depth"].map(list(depths).index)
    filters, options = choices(pairs)
    most = max(1, max_cells // (len(lengths) * len(depths)))
    chosen, combined = selections(filters, options, most)
    if len(chosen) > 2 * most:
        filters, options, chosen = [], {}, [()]
    labels = list(lengths.values()), list(depths.values())
    views = {
        "|".join(values): cells(found, labels, comparison.floor)
        for values in chosen
        if len(found := select(pairs, filters, values))
    }
    return Heatmap(*labels, list(lengths), list(depths), filters, options, views, combined)


def filter_texts(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """What questions are filtered by, as text by the name of a filter; empty where a sweep does
    not have it. Residues are of the question as it was planned, the same for all arms; those of FEW
    or less can be chosen in any sweep."""
    residues = {
        name: frame[of].fillna(0).clip(lower=0) % modulus
        for name, (_, of, modulus) in PHASES.items()
        if modulus <= FEW or frame[name].notna().any()
    }
    return {found.name: frame.assign(**residues)[found.name].map(_text) for found in FILTERS}


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else str(int(value))
    return str(value)


def choices(pairs: pd.DataFrame) -> tuple[list[Column], dict[str, list[str]]]:
    """The filters that have something to choose between, and their values (`MAX_OPTIONS`)."""
    values = {f: sorted(set(pairs[f.name]), key=_number_first) for f in FILTERS}
    filters = [_counted(f, len(found)) for f, found in values.items() if len(found) > 1]
    return filters, {f.name: found[:MAX_OPTIONS] for f, found in values.items() if len(found) > 1}


def _counted(found: Column, values: int) -> Column:
    """The filter, its title saying where not every value is offered."""
    if values <= MAX_OPTIONS:
        return found
    return found._replace(title=f"{found.title} (first {MAX_OPTIONS} of {values:,})")


def _number_first(text: str) -> tuple[float, str]:
    return (float(text), "") if text.isdecimal() else (float("inf"), text)


def selections(
    filters: Sequence[Column], options: Mapping[str, Sequence[str]], most: int
) -> tuple[list[tuple[str, ...]], bool]:
    """Every choice of values, and whether filters are combined: not if that makes more than
    `most` choices."""
    offered = [[ALL, *options[found.name]] for found in filters]
    if prod(map(len, offered)) <= most:
        return list(product(*offered)), True
    single = [(ALL,) * len(filters)]
    for place, values in enumerate(offered):
        single += [(*single[0][:place], value, *single[0][place + 1 :]) for value in values[1:]]
    return single, False


def select(pairs: pd.DataFrame, filters: Sequence[Column], chosen: Sequence[str]) -> pd.DataFrame:
    """The pairs that fit the chosen values."""
    for wanted, value in zip(filters, chosen, strict=True):
        if value != ALL:
            pairs = pairs[pairs[wanted.name] == value]
    return pairs


def cells(
    pairs: pd.DataFrame, labels: tuple[Sequence[str], Sequence[str]], floor: float
) -> dict[tuple[int, int], HeatCell]:
    """Cells by (row, column). Recall counts every pair there; the tax those that are answerable,
    and is undefined where none is."""
    streams = pairs["stream_id"].to_numpy()
    sides = {side: pairs[side].to_numpy() for side in ("baseline", "compressed")}
    failed = {side: pairs[f"{side}_failed"].to_numpy() for side in sides}
    answerable = pairs["answerable"].to_numpy()
    found = {}
    for (row, column), at in pairs.groupby(["row", "column"]).indices.items():
        recalls = {
            side: estimate_recall(sides[side][at], streams[at], int(failed[side][at].sum()))
            for side in sides
        }
        some = bool(answerable[at].any())
        kept = at[answerable[at]] if some else at
        tax = estimate_tax(
            sides["baseline"][kept],
            sides["compressed"][kept],
            streams[kept],
            errors=int((failed["baseline"] | failed["compressed"])[kept].sum()),
            floor=floor,
            answerable=some,
        )
        found[int(row), int(column)] = HeatCell(
            labels[0][column], labels[1][row], **recalls, tax=tax
        )
    return found
