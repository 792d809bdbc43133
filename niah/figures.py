"""Drawing: the series as matplotlib figures, and a figure as SVG that follows the page's theme.

Owns colours and axes. Draws the frames of `series.py` and the cells of `views.py` as they are;
computes nothing that is shown.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from niah.results import CACHE_KINDS
from niah.views import Heatmap
from niah.wording import length_text

# Each colour is the light theme's; inline SVG replaces it by the CSS variable of that name.
INK, MUTED, RULE = "#1f2429", "#5d6770", "#dfe3e7"
ARMS = ("#4b5763", "#c2410c", "#1d6fa5", "#2f7d5d", "#7d5ba6", "#a16207")
KINDS = {
    "window": "#9aa5b1",
    "compressed": "#c2410d",
    "index": "#e8a27c",
    "tail": "#f2cdb6",
    "full": "#4b5764",
}
OUTCOME_COLOURS = {
    "near_miss": "#e3b505",
    "distractor": "#c2410e",
    "copied": "#7d5ba7",
    "invented": "#1d6fa6",
    "denied": "#5fa8a0",
    "malformed": "#9c8f7a",
    "truncated": "#c7bfb2",
    "error": "#1f242a",
}
THEMED = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    **{colour: f"arm-{number}" for number, colour in enumerate(ARMS)},
    **{colour: f"kind-{kind}" for kind, colour in KINDS.items()},
    **{colour: f"outcome-{name}" for name, colour in OUTCOME_COLOURS.items()},
}
MARKERS = "osD^vP"

# The same ends as in report.css: pale where all is recalled, dark or orange where it is lost.
RECALL_MAP = LinearSegmentedColormap.from_list("recall", ["#27313c", "#f3f5f7"])
TAX_MAP = LinearSegmentedColormap.from_list("tax", ["#155a8a", "#f5f5f4", "#b03a08"])

# Any: matplotlib spells out every key in its types
STYLE: Any = {
    "text.parse_math": False,  # a $ in the name of an arm is a $
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "hatch.linewidth": 0.6,
    "hatch.color": MUTED,
    "figure.constrained_layout.use": True,
}


@contextmanager
def style() -> Iterator[None]:
    with mpl.rc_context(STYLE):
        yield


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


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an <svg> for an HTML page: themed by CSS variables, ids of its own."""
    text = file_bytes(figure, "svg", name).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;\"]*;", "", text)
    for colour, variable in THEMED.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    return re.sub(
        r'<svg .*?viewBox="([^"]*)".*?>',
        rf'<svg class="figure" role="img" '
        rf'aria-label="{escape(label)}" viewBox="\1">',
        text,
        count=1,
        flags=re.DOTALL,
    )


def file_bytes(figure: Figure, kind: str, name: str) -> bytes:
    """The figure as a PNG or SVG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata: Mapping[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
    with style(), mpl.rc_context({"svg.hashsalt": name}):
        background = {"transparent": True} if kind == "svg" else {"facecolor": "white", "dpi": 200}
        figure.savefig(buffer, format=kind, metadata=metadata, **background)
    return buffer.getvalue()


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
