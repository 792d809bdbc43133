"""What several figures share: a canvas with room for its legend, axes, lines with intervals.

Sizes are in inches. No number of arms, length of a name or count of ticks makes labels overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from niah.report.drawing.look import Look, fitted
from niah.report.drawing.palette import ArmStyle

WIDTH = 5.6
LETTER, LINE = 0.078, 0.175  # of text at 9 points
HANDLE = 0.54  # of a legend, with the space to the next
PANELS = 3  # side by side at most
MARK: dict[str, Any] = {"markersize": 4, "linewidth": 1.4}


def legend_layout(labels: Sequence[str]) -> tuple[int, float]:
    """(columns, height in inches) of a legend below the axes."""
    if not labels:
        return 1, 0.0
    widths = [HANDLE + LETTER * max(map(len, label.split("\n"))) for label in labels]
    columns = len(labels) if sum(widths) <= WIDTH else max(1, min(5, int(WIDTH / max(widths))))
    rows = -(-len(labels) // columns)
    lines = max(label.count("\n") + 1 for label in labels)
    return columns, LINE * rows * lines + 0.12


def canvas(height: float, labels: Sequence[str]) -> Figure:
    """A figure of one width, `height` inches without its legend."""
    return Figure(figsize=(WIDTH, height + legend_layout(labels)[1]))


def add_legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Below everything, in as many columns as fit."""
    if labels:
        columns, _ = legend_layout(labels)
        figure.legend(handles, labels, loc="outside lower left", ncols=columns)


def names(wanted: Sequence[str]) -> dict[str, str]:
    """Names as a legend shows them."""
    return fitted(wanted, 60)


def panels(figure: Figure, count: int, most: int = PANELS, **options: Any) -> list[Axes]:
    """`count` axes in rows of at most `most`."""
    columns = min(most, count)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, **options)
    for axes in list(grid.flat)[count:]:
        axes.set_axis_off()
    return list(grid.flat)[:count]


def panel_width(count: int, most: int = PANELS) -> float:
    """Inches of one of `count` panels, without the labels beside it."""
    return (WIDTH - 0.5) / min(most, count) - 0.2


def shifts(count: int, spacing: float) -> np.ndarray:
    """Offsets that keep `count` marks apart around one place and inside their half of the space
    to the next; centred on zero."""
    step = min(0.1, 0.5 / max(1, count)) * spacing
    return (np.arange(count) - (count - 1) / 2) * step


def line(
    axes: Axes, at: pd.Series, frame: pd.DataFrame, column: str, style: ArmStyle, **more: Any
) -> Any:
    """A line with an interval at every point; it breaks where a value is missing."""
    below, above = frame[column] - frame["low"], frame["high"] - frame[column]
    return axes.errorbar(
        at,
        frame[column],
        np.clip([below, above], 0, None),
        **{"elinewidth": 0.9, **style.drawn(), **MARK, **more},
    )


def recall_axis(axes: Axes, lowest: float) -> None:
    """From a little below the lowest to 100%, with room for half a mark at both ends.

    No tick stands below 0% or above 100%.
    """
    low = min(0.9, lowest) - 0.02
    axes.set_ylim(low, 1.02)
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(max(0.0, low), 1.0)
    axes.set_yticks([tick for tick in ticks if max(0.0, low) <= tick <= 1 + 1e-9])
    axes.yaxis.set_major_formatter("{x:.0%}")


def log_axis(axes: Axes, values: pd.Series, text: Callable[[float], str]) -> None:
    """A logarithmic axis upwards, with a few round powers of two labelled. Some value is known."""
    low, high = np.floor(np.log2(values.min())), np.ceil(np.log2(values.max()))
    step = max(1, -(-int(high - low) // 5))
    ticks = [2.0**power for power in range(int(low), int(high) + 1, step)]
    axes.set_yscale("log", base=2)
    axes.set_ylim(2 ** (low - 0.3), 2 ** (high + 0.3))
    axes.set_yticks(ticks, [text(tick) for tick in ticks])
    axes.minorticks_off()


def byte_axis(axes: Axes, values: pd.Series, width: float, text: Callable[[float], str]) -> None:
    """A logarithmic axis to the right, with as many powers of two labelled as fit."""
    low, high = np.floor(np.log2(values.min())), np.ceil(np.log2(values.max()))
    powers = list(np.arange(low, high + 1))
    axes.set_xscale("log", base=2)
    axes.set_xlim(2 ** (low - 0.2), 2 ** (high + 0.2))
    shown = thinned(powers, [text(2**power) for power in powers], width, 0.4)
    axes.set_xticks([2 ** powers[i] for i in shown], [text(2 ** powers[i]) for i in shown])
    axes.minorticks_off()
    axes.set_xlabel("cache held per token")


def length_axis(axes: Axes, lengths: Iterable[float], look: Look, width: float) -> None:
    """A logarithmic axis, with the last length and as many before it as fit labelled."""
    ticks = sorted(set(lengths))
    axes.set_xscale("log", base=2)
    axes.set_xlim(ticks[0] / 2**0.4, ticks[-1] * 2**0.4)
    shown = thinned(list(np.log2(ticks)), [look.length(tick) for tick in ticks], width, 0.8)
    axes.set_xticks([ticks[index] for index in shown], [look.length(ticks[i]) for i in shown])
    axes.minorticks_off()
    axes.set_xlabel("prompt tokens")


def length_bars(axes: Axes, lengths: Sequence[float], look: Look, width: float) -> None:
    """An axis of bars, one a length, with labels that fit."""
    labels = [look.length(length) for length in lengths]
    shown = thinned(list(range(len(labels))), labels, width, 1.0)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_xticks(shown, [labels[index] for index in shown])
    axes.set_xlabel("prompt tokens")


def thinned(
    at: Sequence[float], labels: Sequence[str], width: float, margin: float = 0.0
) -> list[int]:
    """Which labels fit side by side into `width` inches, the last one always among them.

    Every second, third and so on is taken where the places are even; else what does not touch.
    """
    inch = width / (at[-1] - at[0] + margin) if len(at) > 1 else width
    for step in range(1, len(at) + 1):
        kept = list(range(len(at) - 1, -1, -step))[::-1]
        if all(_apart(at, labels, inch, a, b) for a, b in pairwise(kept)):
            break
    greedy = [len(at) - 1]
    for index in range(len(at) - 2, -1, -1):
        if _apart(at, labels, inch, index, greedy[0]):
            greedy.insert(0, index)
    return kept if len(kept) >= len(greedy) - 2 else greedy


def _apart(at: Sequence[float], labels: Sequence[str], inch: float, a: int, b: int) -> bool:
    needed = LETTER * (len(labels[a]) + len(labels[b])) / 2 + 0.1
    return bool((at[b] - at[a]) * inch >= needed)


def swatches(kinds: Sequence[str], colours: Mapping[str, str], other: str) -> list[Patch]:
    """Legend handles of stacked bars."""
    return [Patch(color=colours.get(kind, other)) for kind in kinds]


def stack(
    axes: Axes, frame: pd.DataFrame, kinds: Sequence[str], colours: Mapping[str, str], other: str
) -> None:
    """A bar a line of `frame`, one part a kind."""
    floor = np.zeros(len(frame))
    for kind in kinds:
        height = frame[kind].to_numpy(dtype=float)
        axes.bar(range(len(frame)), height, 0.72, floor, color=colours.get(kind, other))
        floor += height
