"""How a report draws its arms and names its lengths, the same in every figure and table.

Names that have to fit are shortened and wrapped, and are still told apart.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from niah.report.drawing.palette import ARMS, MARKERS, ArmStyle, arm_styles
from niah.statistics.columns import axis_labels
from niah.text_format import length_text

LONE = ARMS[0], MARKERS[0]  # of a repeat without any other arm


@dataclass(frozen=True)
class Look:
    """Styles by arm, and labels by length (a bin of lengths is called by its range)."""

    arms: Mapping[str, ArmStyle]
    lengths: Mapping[float, str]

    def length(self, value: float) -> str:
        return self.lengths.get(value) or length_text(value)


def look_of(rows: pd.DataFrame) -> Look:
    """Baselines first, then arms in order of appearance; one colour for the arms of a technique.

    A repeat arm has the colour of its run's baseline.
    """
    arms = rows.drop_duplicates("arm").sort_values("role", kind="stable")
    repeats = arms["role"] == "repeat"
    own = arms.loc[~repeats]
    styles = arm_styles(dict(zip(own["arm"], own["technique"], strict=True)))
    for arm, run in arms.loc[repeats, ["arm", "run"]].itertuples(index=False):
        repeated = arms.loc[(arms["run"] == run) & (arms["role"] == "baseline"), "arm"]
        of = (
            styles[repeated.iloc[0]]
            if len(repeated)
            else next(iter(styles.values()), ArmStyle(*LONE))
        )
        styles[arm] = of._replace(repeats=True)
    return Look(styles, axis_labels(rows, "at_length"))


def fitted(names: Sequence[str], width: int, lines: int = 2) -> dict[str, str]:
    """Names wrapped to `width` characters and at most `lines` lines, the middle cut out of longer
    ones; two that would come out alike are numbered."""
    found: dict[str, str] = {}
    for name in names:
        text = cut_middle(" ".join(name.split()), width * lines - lines + 1)
        if text in found.values():
            text = cut_middle(text, width * lines - lines - 4) + f" ({len(found) + 1})"
        found[name] = text
    return {name: "\n".join(textwrap.wrap(text, width)) or " " for name, text in found.items()}


def cut_middle(text: str, width: int) -> str:
    """`a-long-name` in 7 characters is `a-l…ame`: names of a family differ at either end."""
    if len(text) <= width:
        return text
    kept = max(2, width - 1)
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
