"""What the places on an axis are called: a value as itself, a bin as the range of what is in it.

Owns labels of lengths and depths, with as many digits as keep two of them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from niah.text_format import depth_text, length_text

# An axis, and the column that keeps what was asked for where the axis holds bins.
EXACT = {"at_length": "exact_length", "at_depth": "exact_depth"}


def axis_labels(frame: pd.DataFrame, axis: str) -> dict[float, str]:
    """Text by value of a column of `EXACT`, in sorted order."""
    exact = EXACT[axis] if EXACT[axis] in frame else axis
    spans = frame.groupby(axis)[exact].agg(["min", "max"])
    ends = sorted({float(end) for column in ("min", "max") for end in spans[column]})
    texts = dict(zip(ends, _texts(ends, axis), strict=True))
    return {
        float(value): _span(texts[float(low)], texts[float(high)])
        for value, low, high in spans.itertuples()
    }


def _texts(values: Sequence[float], axis: str) -> list[str]:
    if axis == "at_length":
        return [length_text(value) for value in values]
    tries = ([depth_text(value, digits) for value in values] for digits in range(4))
    return next((texts for texts in tries if len(set(texts)) == len(texts)), list(map(str, values)))


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low.removesuffix('%')}–{high}"
