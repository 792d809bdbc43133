"""Type and lines of the figures, and a figure as PNG, SVG or SVG that follows the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import escape
from matplotlib.figure import Figure

from niah.report.drawing.palette import INK, MUTED, RULE, THEMED

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
