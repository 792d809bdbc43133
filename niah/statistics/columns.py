"""The columns of questions by which answers are grouped, and what their values are called.

One table says which columns there are. Slices, the page's filters, the axes of heatmaps and the
phase figure are made from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from niah.runs.tables import PHASES
from niah.text_format import depth_text, length_text

RESIDUES_OF = {"length": "Length", "needle_start": "Needle start"}


class Column(NamedTuple):
    """A column of `Run.rows`, and its name for a reader.

    `exact`: of an axis, the column that keeps what was asked for where the axis holds bins. The
    other columns are filters of the page.
    """

    name: str
    title: str
    exact: str = ""


COLUMNS = (
    Column("at_length", "Length", "exact_length"),
    Column("at_depth", "Depth", "exact_depth"),
    Column("family", "Needle family"),
    Column("corpus", "Haystack"),
    Column("template_split", "Sentence templates"),
    *(Column(name, f"{RESIDUES_OF[of]} mod {by}") for name, (_, of, by) in PHASES.items()),
)
SLICES = {column.name: column.title for column in COLUMNS}
FILTERS = tuple(column for column in COLUMNS if not column.exact)
EXACT = {column.name: column.exact for column in COLUMNS if column.exact}
GROUP = ["family", "at_length", "corpus", "template_split"]  # what a baseline can answer, or not


def slice_text(column: str, value: object) -> str:
    """A value of a column of `SLICES`."""
    if column == "at_length" and isinstance(value, int | float):
        return length_text(value)
    if column == "at_depth" and isinstance(value, int | float):
        return f"{100 * value:.0f}%"
    if column in PHASES and isinstance(value, int | float):
        return str(round(value))
    return str(value) or "–"


def axis_labels(frame: pd.DataFrame, axis: str) -> dict[float, str]:
    """Text by value of a column of `EXACT`, in sorted order.

    A value is called as itself, a bin by the range of what is in it, with as many digits as keep
    two of them apart.
    """
    exact = EXACT[axis] if EXACT[axis] in frame else axis
    spans = frame.groupby(axis)[exact].agg(["min", "max"])
    ends = sorted({float(end) for column in ("min", "max") for end in spans[column]})
    texts = dict(zip(ends, _texts(ends, axis), strict=True))
    return {
        float(value): _range(texts[float(low)], texts[float(high)])
        for value, low, high in spans.itertuples()
    }


def _texts(values: Sequence[float], axis: str) -> list[str]:
    if axis == "at_length":
        return [length_text(value) for value in values]
    tries = ([depth_text(value, digits) for value in values] for digits in range(4))
    return next((texts for texts in tries if len(set(texts)) == len(texts)), list(map(str, values)))


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low.removesuffix('%')}–{high}"
