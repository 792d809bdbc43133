"""Writes numbers and names for a reader, the same in every report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Ranked(Protocol):
    """A layer that ranked the entries that hold the token that was missed."""

    @property
    def layer(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def entries(self) -> int: ...


def points(value: float) -> str:
    """A share as percentage points, one decimal; a minus as wide as a plus, and no minus zero."""
    text = f"{100 * value:.1f}"
    return ("0.0" if float(text) == 0 else text).replace("-", "−")


def whole_points(value: float) -> str:
    """A share as whole percentage points, for a cell of a heatmap."""
    text = f"{100 * value:.0f}"
    return ("0" if float(text) == 0 else text).replace("-", "−")


def nats(value: float) -> str:
    """A difference of natural logarithms, three decimals."""
    text = f"{value:.3f}"
    return ("0.000" if float(text) == 0 else text).replace("-", "−")


def percent(value: float) -> str:
    """A share with no more decimals than it has: 50%, 12.5%."""
    return f"{100 * value:.4g}%"


def counted(number: int, noun: str) -> str:
    """1 question, 2,000 questions."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def number_text(value: float, digits: int = 0) -> str:
    """2,000; a dash where the value is not known (NaN)."""
    return "–" if value != value else f"{value:,.{digits}f}"


def depth_text(depth: float, digits: int = 0) -> str:
    """A share of the text as a percentage."""
    return f"{100 * depth:.{digits}f}%"


def length_text(length: float) -> str:
    """1024 -> 1K, 1048576 -> 1M; a length that is no multiple of 1024 stays 1,000."""
    whole = round(length)
    for unit, size in (("M", 1024**2), ("K", 1024)):
        if whole >= size and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole:,}"


def loss_text(lost_by: object, selection: Sequence[Ranked]) -> str:
    """Where a needle was lost, in the words of the figure and the glossary, with the ranks of the
    entries that hold it; empty if not known."""
    ranks = ", ".join(
        f"rank {layer.rank + 1:,} of {layer.entries:,} in layer {layer.layer}"
        for layer in selection
    )
    verdicts = {
        "selection": f"selection: no layer selected an entry with it, {ranks}",
        "compression": f"compression: an entry with it was selected, {ranks}",
        "window": "window: it was still in the exact window",
    }
    return verdicts.get(str(lost_by), "")


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, whatever a name holds."""
    for mark in "\\`*_|<>[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
