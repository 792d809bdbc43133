"""The colours of every figure and of the page: arms, kinds of bytes, kinds of error, two scales.

They are those of the light theme. The page gets them as CSS variables (`css_variables`); report.css
holds what differs in the dark theme, under the same names, and inline SVG follows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import Any, NamedTuple

from matplotlib.colors import LinearSegmentedColormap

INK, MUTED, RULE = "#1f2429", "#5d6770", "#dfe3e7"
ARMS = (
    *("#4b5763", "#c2410c", "#1d6fa5", "#2f7d5d", "#7d5ba6", "#a16207"),
    *("#b8327a", "#0e7c86"),
)
MARKERS = "osD^vPX"  # as many as have no factor in common with ARMS: 56 arms look different
KINDS = {
    "window": "#9aa5b1",
    "csa": "#c2410b",
    "index": "#e8a27c",
    "hca": "#7d5ba5",
    "compressed": "#c2410d",  # of older runs: csa and hca together
    "tail": "#f2cdb6",
    "full": "#4b5764",
}
OTHER_KINDS = ("#7d5ba7", "#5fa8a0", "#1d6fa6", "#e3b505", "#8a6d3b", "#b0b7bf")
OUTCOME_COLOURS = {
    "reordered": "#b8327b",
    "near_miss": "#e3b505",
    "distractor": "#c2410e",
    "copied": "#7d5ba7",
    "invented": "#1d6fa6",
    "repetition": "#2f7d5e",
    "denied": "#5fa8a0",
    "malformed": "#9c8f7a",
    "truncated": "#c7bfb2",
    "error": "#1f242a",
}
LOSS_COLOURS = {
    "selection": "#1d6fa7",
    "compression": "#c2410f",
    "window": "#e3b506",
    "elsewhere": "#a8b0b8",
}
THEMED = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    **{colour: f"arm-{number}" for number, colour in enumerate(ARMS)},
    **{colour: f"kind-{kind}" for kind, colour in KINDS.items()},
    **{colour: f"outcome-{name}" for name, colour in OUTCOME_COLOURS.items()},
    **{colour: f"loss-{name}" for name, colour in LOSS_COLOURS.items()},
}

SCALES = {  # pale where all is recalled, dark or orange where it is lost
    "recall-low": "#27313c",
    "recall-high": "#f3f5f7",
    "tax-gain": "#155a8a",
    "tax-zero": "#f5f5f4",
    "tax-loss": "#b03a08",
}


def scale(name: str, *stops: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list(name, [SCALES[stop] for stop in stops])


RECALL_MAP = scale("recall", "recall-low", "recall-high")
TAX_MAP = scale("tax", "tax-gain", "tax-zero", "tax-loss")


def css_variables() -> str:
    """All colours as the declarations of CSS variables."""
    named = {variable: colour for colour, variable in THEMED.items()} | SCALES
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())


def kind_colours(kinds: Iterable[str]) -> dict[str, str]:
    """A colour for each kind of cache; kinds that only some models have come in turn."""
    others = cycle(OTHER_KINDS)
    return {kind: KINDS.get(kind) or next(others) for kind in kinds}


class ArmStyle(NamedTuple):
    """How one arm is drawn, in every figure of a report. `repeats`: the baseline once more."""

    colour: str
    marker: str
    repeats: bool = False

    def drawn(self) -> dict[str, Any]:
        """Options of a line: a repeat is dotted, its marks are hollow."""
        found: dict[str, Any] = {"color": self.colour, "marker": self.marker}
        return found | {"linestyle": ":", "markerfacecolor": "none"} if self.repeats else found


def arm_styles(techniques: Mapping[str, str]) -> dict[str, ArmStyle]:
    """A style for each arm, in the order given; `techniques` holds the label of each, or "".

    Arms of one technique have one colour and different markers, if the palette has enough of
    both. Else each arm has its own colour; colour and marker together repeat after 56 arms.
    """
    groups: dict[str, list[str]] = {}
    for arm, technique in techniques.items():
        groups.setdefault(technique or f"arm {arm}", []).append(arm)
    if len(groups) > len(ARMS) or max(map(len, groups.values()), default=0) > len(MARKERS):
        groups = {arm: [arm] for arm in techniques}
    found = {
        arm: ArmStyle(ARMS[number % len(ARMS)], MARKERS[(number + place) % len(MARKERS)])
        for number, arms in enumerate(groups.values())
        for place, arm in enumerate(arms)
    }
    return {arm: found[arm] for arm in techniques}
