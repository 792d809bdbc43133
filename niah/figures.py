"""Drawing: the series and the heatmaps as matplotlib figures.

Owns axes. Draws the frames of `series.py` and the cells of `views.py` as they are; computes
nothing that is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from niah.results import CACHE_KINDS
from niah.theme import ARMS, KINDS, MARKERS, MUTED, OUTCOME_COLOURS, RECALL_MAP, TAX_MAP
from niah.views import Heatmap
from niah.wording import length_text


def draw_recall(frame: pd.DataFrame) -> Figure:
    """Recall by length, an interval at every point."""
    figure, axes = _single()
    for number, (arm, group) in enumerate(frame.groupby("arm", sort=False)):
        _line(axes, group, "recall", str(arm), number, shift=number - frame["arm"].nunique() / 2)
    _length_axis(axes, frame["length"])
    axes.set(ylim=(min(0.9, frame["low"].min()) - 0.02, 1.02), ylabel="recall")
    axes.yaxis.set_major_formatter("{x:.0%}")
    _legend(axes)
    return figure


def draw_tax(frame: pd.DataFrame) -> Figure:
    """Tax by length in points; hollow where the baseline is below the floor."""
    figure, axes = _single()
    axes.axhline(0, color=MUTED, linewidth=0.8)
    shares = ["tax", "low", "high"]
    for number, (arm, group) in enumerate(frame.groupby("comparison", sort=False), start=1):
        scaled = group.assign(**{name: 100 * group[name] for name in shares})
        defined = scaled[scaled["defined"]]
        if len(defined):
            _line(axes, defined, "tax", str(arm), number, shift=number - 1)
    _length_axis(axes, frame["length"])
    axes.set_ylabel("points of recall lost")
    _legend(axes)
    return figure


def draw_bytes(frame: pd.DataFrame) -> Figure:
    """Bytes held by length, stacked by kind, a bar an arm."""
    figure, axes = _single(height=3.2)
    arms, lengths = list(dict.fromkeys(frame["arm"])), sorted(set(frame["length"]))
    unit, size = _byte_unit(frame["total"].max())
    width = 0.8 / len(arms)
    for number, arm in enumerate(arms):
        found = frame[frame["arm"] == arm].set_index("length").reindex(lengths).fillna(0)
        at = np.arange(len(lengths)) + (number - (len(arms) - 1) / 2) * width
        floor = np.zeros(len(lengths))
        for kind in CACHE_KINDS:
            height = found[kind].to_numpy() / size
            if height.any():
                axes.bar(at, height, width * 0.9, floor, color=KINDS[kind], label=kind)
            floor += height
        for x, top in zip(at, floor, strict=True):
            axes.annotate(
                arm,
                (x, top),
                (0, 3),
                textcoords="offset points",
                rotation=90,
                ha="center",
                va="bottom",
                fontsize=6.5,
                color=MUTED,
            )
    axes.set_xticks(range(len(lengths)), [length_text(length) for length in lengths])
    axes.set(xlabel="prompt tokens", ylabel=f"cache held, {unit}")
    axes.margins(y=0.22)
    _legend(axes)
    return figure


def draw_seconds(frame: pd.DataFrame) -> Figure:
    """Median seconds of prefill (log) and of decoding, side by side."""
    figure = Figure(figsize=(6.4, 2.9))
    for axes, column, title in zip(
        figure.subplots(1, 2),
        ("prefill_seconds", "decode_seconds"),
        ("Prefill of the whole prompt, s", "Decoding the answer, s"),
        strict=True,
    ):
        for number, (arm, group) in enumerate(frame.groupby("arm", sort=False)):
            axes.plot(
                group["length"],
                group[column],
                color=_arm(number),
                label=str(arm),
                marker=MARKERS[number % 6],
                markersize=4,
                linewidth=1.4,
            )
        _length_axis(axes, frame["length"])
        axes.set_title(title)
        axes.set_ylim(bottom=0)
    _legend(figure.axes[0], above=False)
    return figure


def draw_outcomes(frame: pd.DataFrame) -> Figure:
    """Share of wrong answers by kind, a panel an arm on one scale."""
    arms = list(dict.fromkeys(frame["arm"]))
    figure = Figure(figsize=(6.4, 3.0))
    panels = np.atleast_1d(figure.subplots(1, len(arms), sharey=True))
    kinds = [kind for kind in frame.columns if kind not in ("arm", "length", "asked", "exact")]
    for axes, arm in zip(panels, arms, strict=True):
        found = frame[frame["arm"] == arm]
        at, floor = np.arange(len(found)), np.zeros(len(found))
        for kind in kinds:
            height = 100 * (found[kind] / found["asked"]).to_numpy()
            colour = OUTCOME_COLOURS.get(kind, MUTED)
            axes.bar(at, height, 0.7, floor, color=colour, label=kind.replace("_", " "))
            floor += height
        axes.set_xticks(at, [length_text(length) for length in found["length"]])
        axes.set(title=arm, xlabel="prompt tokens")
    panels[0].set_ylabel("wrong answers, % of asked")
    if kinds:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(5, len(kinds)))
    return figure


def draw_phases(frame: pd.DataFrame) -> Figure:
    """Recall by phase, a panel each; one residue below the others is what a round grid misses."""
    phases = list(dict.fromkeys(frame["phase"]))
    figure = Figure(figsize=(6.4, 2.7 * -(-len(phases) // 2)))
    panels = figure.subplots(-(-len(phases) // 2), min(2, len(phases)), sharey=True, squeeze=False)
    for axes in list(panels.flat)[len(phases) :]:
        axes.set_axis_off()
    for axes, phase in zip(panels.flat, phases, strict=False):
        found = frame[frame["phase"] == phase]
        apart = 0.04 * found["residue"].max()
        for number, (arm, group) in enumerate(found.groupby("arm", sort=False)):
            moved = group.assign(length=group["residue"] + apart * (number - 0.5))
            _line(axes, moved, "recall", str(arm), number)
        ticks = sorted(set(found["residue"]))
        axes.set_xticks(ticks if len(ticks) <= 4 else ticks[:: max(1, len(ticks) // 4)])
        axes.set_title(phase)
        axes.set_ylim(frame["low"].min() - 0.02, 1.02)
        axes.yaxis.set_major_formatter("{x:.0%}")
    _legend(panels.flat[0], above=False)
    return figure


def draw_heatmaps(heatmap: Heatmap, baseline: str, compressed: str) -> Figure:
    """Baseline, compressed and tax side by side, for a file (the page has tables of its own)."""
    rows, columns = len(heatmap.depths), len(heatmap.lengths)
    figure = Figure(figsize=(3 * (0.9 + 0.5 * columns), 1.2 + 0.3 * rows))
    limit = tax_limit(heatmap)
    panels = zip(
        figure.subplots(1, 3, sharey=True),
        (f"{baseline}: recall, %", f"{compressed}: recall, %", "tax: points lost"),
        ("baseline", "compressed", "tax"),
        strict=True,
    )
    for axes, title, side in panels:
        values = np.full((rows, columns), np.nan)
        for (row, column), cell in heatmap.whole.items():
            values[row, column] = getattr(cell, side).value
            if side == "tax" and not cell.tax.defined:
                values[row, column] = np.nan
                axes.add_patch(
                    mpl.patches.Rectangle(
                        (column - 0.5, row - 0.5),
                        1,
                        1,
                        fill=False,
                        hatch="////",
                        edgecolor=MUTED,
                        linewidth=0,
                    )
                )
        span = {"vmin": -limit, "vmax": limit} if side == "tax" else {"vmin": 0.0, "vmax": 1.0}
        colours = TAX_MAP if side == "tax" else RECALL_MAP
        axes.imshow(values, cmap=colours, aspect="auto", **span)
        _print_values(axes, values, colours, span)
        axes.set_xticks(range(columns), heatmap.lengths)
        axes.set_yticks(range(rows), heatmap.depths)
        axes.set_title(title)
        axes.set_xlabel("prompt tokens")
        axes.grid(visible=False)
    figure.axes[0].set_ylabel("depth")
    return figure


def tax_limit(heatmap: Heatmap) -> float:
    """The end of the tax's scale: the largest defined tax, rounded up to a calm number."""
    taxes = [abs(cell.tax.value) for cell in heatmap.whole.values() if cell.tax.defined]
    largest = max(taxes, default=0.0)
    return next(step for step in (0.1, 0.2, 0.3, 0.5, 1.0) if largest <= step + 1e-9)


def _single(height: float = 2.9) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, height))
    return figure, figure.subplots()


def _arm(number: int) -> str:
    return ARMS[number % len(ARMS)]


def _line(
    axes: Axes, frame: pd.DataFrame, column: str, label: str, number: int, shift: float = 0.0
) -> None:
    """A line with error bars; arms are shifted a little, so that their bars do not cover."""
    below, above = frame[column] - frame["low"], frame["high"] - frame[column]
    axes.errorbar(
        frame["length"] * (1 + 0.03 * shift),
        frame[column],
        np.clip([below, above], 0, None),
        label=label,
        color=_arm(number),
        marker=MARKERS[number % 6],
        markersize=4,
        linewidth=1.4,
        elinewidth=1,
    )


def _length_axis(axes: Axes, lengths: Sequence[float]) -> None:
    ticks = sorted(set(lengths))
    shown = ticks if len(ticks) <= 9 else ticks[:: -(-len(ticks) // 9)]
    axes.set_xscale("log", base=2)
    axes.set_xticks(shown, [length_text(length) for length in shown])
    axes.minorticks_off()
    axes.set_xlabel("prompt tokens")


def _legend(axes: Axes, above: bool = True) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    place = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0)} if above else {"loc": "best"}
    if unique:
        axes.legend(unique.values(), unique.keys(), ncols=5 if above else 1, **place)


def _print_values(
    axes: Axes, values: np.ndarray, colours: LinearSegmentedColormap, span: dict[str, float]
) -> None:
    low, high = span["vmin"], span["vmax"]
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        red, green, blue, _ = colours((value - low) / (high - low))
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        text = f"{100 * value:.0f}".replace("-0", "0").replace("-", "−")
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)


def _byte_unit(largest: float) -> tuple[str, float]:
    for unit, size in (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10)):
        if largest >= size:
            return unit, size
    return "bytes", 1.0
