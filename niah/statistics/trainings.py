"""The luck of training: how far models differ that were trained alike from other seeds.

An arm of role `retrained` is the baseline, trained once more. Compressed arms of one technique that
are several models are taken as trainings of one thing. One training is one draw: questions, however
many, do not tell how another training would have answered them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from niah.runs.tables import questions
from niah.statistics.intervals import CONFIDENCE, Interval, student_quantile
from niah.text_format import counted, points

FEWEST = 2  # trainings of each side, for an interval


class Trainings(NamedTuple):
    """Trainings of the baseline and of one technique, all asked the same questions.

    `baselines`, `compressed`: recall by arm. `asked`: questions that all of them were asked.
    """

    technique: str
    baselines: Mapping[str, float]
    compressed: Mapping[str, float]
    asked: int

    @property
    def tax(self) -> float:
        """Mean recall of the baseline's trainings minus that of the compressed ones."""
        return _mean(self.baselines) - _mean(self.compressed)

    @property
    def range(self) -> Interval:
        """The least and the largest tax of a pair of trainings."""
        bases, others = self.baselines.values(), self.compressed.values()
        return Interval(min(bases) - max(others), max(bases) - min(others))

    @property
    def interval(self) -> Interval | None:
        """Of the mean tax over trainings (Welch's t); None where either side is one training.

        The questions are the same for all, so it speaks about these questions, and about other
        seeds. Trainings that do not differ at all make it a point; no tax is beyond 100 points.
        """
        sides = [np.array(list(side.values())) for side in (self.baselines, self.compressed)]
        if min(map(len, sides)) < FEWEST:
            return None
        parts = [float(side.var(ddof=1)) / len(side) for side in sides]
        variance = sum(parts)
        if not variance:
            return Interval(self.tax, self.tax)
        spread = sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True))
        reach = student_quantile(variance**2 / spread, (1 + CONFIDENCE) / 2) * variance**0.5
        return Interval(max(-1.0, self.tax - reach), min(1.0, self.tax + reach))


def trainings_of(rows: pd.DataFrame) -> Iterator[Trainings]:
    """Each technique of the runs that retrain their baseline, in order of appearance."""
    for _, of_run in questions(rows).groupby("run", sort=False):
        if not (of_run["role"] == "retrained").any():
            continue
        baselines = _arms(of_run[of_run["role"].isin(["baseline", "retrained"])])
        others = of_run[of_run["role"] == "compressed"]
        names = others["technique"].where(others["technique"] != "", others["arm"])
        for technique, of_technique in others.groupby(names, sort=False):
            arms = _arms(of_technique)
            asked = of_run[of_run["arm"].isin([*baselines, *arms])]
            recalled = asked.pivot(index="pair", columns="arm", values="recalled").dropna()
            if len(recalled):
                recall = recalled.astype(float).mean()
                yield Trainings(
                    str(technique),
                    {arm: float(recall[arm]) for arm in baselines},
                    {arm: float(recall[arm]) for arm in arms},
                    len(recalled),
                )


def trainings_text(found: Trainings) -> str:
    """The luck of training of one technique, as a sentence."""
    low, high = found.range
    several = len(found.baselines) * len(found.compressed)
    text = (
        f"The luck of training: {_recalls(found.baselines)}; {_recalls(found.compressed)}, of "
        f"{counted(found.asked, 'question')} each. Over the {several} pairs of trainings the tax "
        f"is {points(found.tax)} points on average, from {points(low)} to {points(high)}"
    )
    if found.interval is None:
        return f"{text}; one training on a side does not tell how another would do."
    low, high = found.interval
    return f"{text}; for other seeds the 95% interval is {points(low)} to {points(high)}."


def _recalls(side: Mapping[str, float]) -> str:
    verb = "recalls" if len(side) == 1 else "recall"
    return f"{', '.join(side)} {verb} {', '.join(map(points, side.values()))}%"


def _mean(side: Mapping[str, float]) -> float:
    return sum(side.values()) / len(side)


def _arms(rows: pd.DataFrame) -> Sequence[str]:
    return list(dict.fromkeys(rows["arm"]))
