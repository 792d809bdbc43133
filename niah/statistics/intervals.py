"""Intervals and tests for recall and for the compression tax.

Owns every number with an uncertainty that a report or a gate shows. Takes arrays of right and
wrong answers and the streams they came from; knows nothing about rows, files or models.

The tax is baseline recall minus compressed recall on the same questions: positive is loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Bools = npt.NDArray[np.bool_]

CONFIDENCE = 0.95
BASELINE_FLOOR = 0.5


class Interval(NamedTuple):
    """Two-sided, in units of recall (0 to 1; a tax may be negative)."""

    low: float
    high: float


@dataclass(frozen=True)
class Recall:
    """Exact recall of one arm. An error counts as asked and not recalled; `errors` counts them."""

    correct: int
    asked: int
    errors: int
    interval: Interval

    @property
    def value(self) -> float:
        return self.correct / self.asked


@dataclass(frozen=True)
class Tax:
    """Paired compression tax of `pairs` questions in `streams` contexts.

    `lost`: baseline right, compressed wrong; `gained`: the other way round.

    Interval and tests are Tango's (1998) score test of a paired difference, with two changes for
    clustering: counts are divided by `design_effect`, and the quantile is Student's with
    `freedom` degrees. A score test stays honest where no pair disagrees, where an interval built
    on the observed spread has width zero.
    """

    pairs: int
    streams: int
    lost: int
    gained: int
    errors: int
    baseline: float
    compressed: float
    design_effect: float
    freedom: int
    floor: float = BASELINE_FLOOR
    confidence: float = CONFIDENCE
    answerable: bool = True

    @property
    def value(self) -> float:
        return (self.lost - self.gained) / self.pairs

    @property
    def defined(self) -> bool:
        """A baseline that recalls little has little to lose: no tax is read off such a cell.

        `answerable` is False where it recalls too little of everything that the cell is part of,
        whatever it recalls in the cell.
        """
        return self.answerable and self.baseline >= self.floor

    @property
    def discordance(self) -> float:
        """Share of the pairs on which the arms disagree; it sets how many pairs a gate needs."""
        return (self.lost + self.gained) / self.pairs

    @cached_property
    def interval(self) -> Interval:
        return self.interval_at(self.confidence)

    @property
    def shows_loss(self) -> bool:
        """Whether the interval lies above zero."""
        return self.interval.low > 0

    @property
    def shows_gain(self) -> bool:
        """Whether the interval lies below zero."""
        return self.interval.high < 0

    def interval_at(self, confidence: float) -> Interval:
        """The taxes that a two-sided test at 1 - confidence does not reject."""
        reach = float(stdtrit(self.freedom, (1 + confidence) / 2))  # Student's quantile
        return Interval(self._where_score_is(reach), self._where_score_is(-reach))

    def p_at_most(self, margin: float) -> float:
        """One-sided p-value against "the tax is `margin` or more": small shows it is below."""
        return float(stats.t.cdf(self._score(margin), self.freedom))

    def p_above(self, margin: float) -> float:
        """One-sided p-value against "the tax is `margin` or less": small shows it is above."""
        return float(stats.t.sf(self._score(margin), self.freedom))

    @property
    def p_difference(self) -> float:
        """Two-sided p-value against "no tax", clustered by stream."""
        return min(1.0, 2 * min(self.p_at_most(0.0), self.p_above(0.0)))

    @property
    def p_mcnemar(self) -> float:
        """Exact McNemar, two-sided; it takes the pairs as independent."""
        table = [[0, self.lost], [self.gained, 0]]
        return float(mcnemar(table, exact=True).pvalue) if self.lost + self.gained else 1.0

    def _score(self, tax: float) -> float:
        """Tango's statistic: distance of the observed difference from `tax` in its own errors."""
        n, lost, gained = (x / self.design_effect for x in (self.pairs, self.lost, self.gained))
        # q: most likely share of gained pairs if the true tax were `tax`, root of 2n q^2 + b q + c
        b = (2 * n - lost + gained) * tax - lost - gained
        c = -gained * tax * (1 - tax)
        q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * q + tax * (1 - tax))
        return (lost - gained - n * tax) / math.sqrt(max(variance, 1e-12))

    def _where_score_is(self, target: float) -> float:
        """The score falls as the tax grows; cut at what a difference of proportions can be."""
        edge = 1 - 1e-9
        if self._score(-edge) <= target:
            return -1.0
        if self._score(edge) >= target:
            return 1.0
        return float(brentq(lambda tax: self._score(tax) - target, -edge, edge))


@lru_cache(maxsize=4096)  # the cells of a heatmap repeat a few counts
def wilson(correct: float, asked: float, alpha: float = 1 - CONFIDENCE) -> Interval:
    """Wilson score interval of a proportion, two-sided at 1 - `alpha`; counts may be effective
    (fractional) ones."""
    low, high = proportion_confint(correct, asked, alpha=alpha, method="wilson")
    return Interval(float(low), float(high))


def estimate_recall(
    recalled: Bools,
    streams: npt.ArrayLike | None = None,
    errors: int = 0,
    confidence: float = CONFIDENCE,
) -> Recall:
    """Recall with a Wilson interval on the effective number of questions.

    Where questions share streams, what they share is estimated from these few streams, and the
    quantile is Student's with streams - 1 degrees of freedom. With a question a stream there is
    nothing to estimate, and with one stream nothing can be: Wilson's interval stands as it is.

    Args:
        recalled: [questions], True where the answer was right; errors are False.
        streams: [questions], the context each question was put to; None for independent ones.

    Raises:
        ValueError: no questions. "No data" is not a recall of zero.
    """
    if len(recalled) == 0:
        raise ValueError("recall of no questions is undefined")
    correct, asked = int(recalled.sum()), len(recalled)
    effect, alpha = 1.0, 1 - confidence
    if streams is not None:
        effect = design_effect(recalled.astype(float), streams)
        count = len(np.unique(np.asarray(streams)))
        if 1 < count < asked:
            alpha = normal_alpha(count - 1, confidence)
    return Recall(correct, asked, errors, wilson(correct / effect, asked / effect, alpha))


def normal_alpha(freedom: int, confidence: float) -> float:
    """The two-sided alpha at which the normal quantile equals Student's at `confidence`."""
    return float(2 * ndtr(-stdtrit(freedom, (1 + confidence) / 2)))


def estimate_tax(
    baseline: Bools,
    compressed: Bools,
    streams: npt.ArrayLike,
    errors: int = 0,
    floor: float = BASELINE_FLOOR,
    confidence: float = CONFIDENCE,
    answerable: bool = True,
) -> Tax:
    """Paired tax with intervals clustered by stream.

    Args:
        baseline, compressed: [pairs], True where the arm recalled.
        streams: [pairs], the context of each pair. With one stream the pairs count as
            independent, since nothing can be said about the spread between streams.

    Raises:
        ValueError: no pairs, or arrays of different lengths.
    """
    pairs = len(baseline)
    if pairs == 0 or len(compressed) != pairs:
        raise ValueError(f"{pairs} baseline and {len(compressed)} compressed answers do not pair")
    difference = baseline.astype(float) - compressed.astype(float)
    count = len(np.unique(np.asarray(streams)))
    effect = design_effect(difference, streams)
    lost, gained = int((difference > 0).sum()), int((difference < 0).sum())
    return Tax(
        pairs=pairs,
        streams=count,
        lost=lost,
        gained=gained,
        errors=errors,
        baseline=float(baseline.mean()),
        compressed=float(compressed.mean()),
        design_effect=effect,
        freedom=count - 1 if count > 1 else max(1, pairs - 1),
        floor=floor,
        confidence=confidence,
        answerable=answerable,
    )


def tax_of(pairs: pd.DataFrame, floor: float = BASELINE_FLOOR, answerable: bool = True) -> Tax:
    """`estimate_tax` of a table made by `results.pair_arms`."""
    return estimate_tax(
        pairs["baseline"].to_numpy(),
        pairs["compressed"].to_numpy(),
        pairs["stream_id"].to_numpy(),
        errors=int((pairs["baseline_failed"] | pairs["compressed_failed"]).sum()),
        floor=floor,
        answerable=answerable,
    )


def design_effect(values: npt.NDArray[np.float64], streams: npt.ArrayLike) -> float:
    """How many times the variance of a mean grows because values of one stream go together.

    Clustered over independent variance of the mean (statsmodels), never below 1: with few
    streams a small ratio is luck.
    """
    _, codes = np.unique(np.asarray(streams), return_inverse=True)
    count = int(codes.max()) + 1
    if count < 2 or count == len(values) or np.ptp(values) == 0:
        return 1.0
    model = OLS(values, np.ones(len(values)))
    clustered = model.fit(cov_type="cluster", cov_kwds={"groups": codes}).bse[0] ** 2
    return max(1.0, float(clustered / model.fit().bse[0] ** 2))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm-adjusted p-values: the chance of one false alarm among all of them stays nominal."""
    if len(p_values) < 2:
        return dict(p_values)
    adjusted = multipletests(list(p_values.values()), method="holm")[1]
    return dict(zip(p_values, map(float, adjusted), strict=True))
