"""Colours and type of the figures, and a figure as PNG, SVG or SVG that follows the page's theme.

Owns how figures look; knows nothing of what they show.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import escape
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

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
