"""Intervals and tests for recall and for the compression tax.

Computes every number with an uncertainty that a report or a gate shows, from arrays of right and
wrong answers and the streams they came from.

The tax is baseline recall minus compressed recall on the same questions: positive is loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import bdtr, ndtri, stdtr, stdtrit

from niah.statistics.clusters import DECIDABLE, Bools, design_effect, satterthwaite_freedom
from niah.statistics.score import (
    StreamCounts,
    robust,
    robust_error,
    score,
    score_ends,
    share_ends,
    wilson_ends,
)

CONFIDENCE = 0.95
BASELINE_FLOOR = 0.5


class Interval(NamedTuple):
    """Two-sided, in units of recall (0 to 1; a tax may be negative)."""

    low: float
    high: float


@dataclass(frozen=True)
class Recall:
    """Exact recall of one arm. An error counts as asked and not recalled; `errors` counts them.

    `freedom` as in `Tax`; infinite where every question has a stream of its own.
    """

    correct: int
    asked: int
    errors: int
    interval: Interval
    freedom: float = math.inf

    @property
    def value(self) -> float:
        return self.correct / self.asked

    @property
    def decidable(self) -> bool:
        """Whether there are streams enough to say how much they differ."""
        return self.freedom >= DECIDABLE


@dataclass(frozen=True)
class Tax:
    """Paired compression tax of `pairs` questions in `streams` contexts.

    `lost`: baseline right, compressed wrong; `gained`: the other way round. `counts` has them by
    stream, where they cluster.

    Interval and tests take two statistics (`niah.statistics.score`): a score statistic with the
    most likely correlation within streams, and the mean over its CR2 standard error. A tax is shown
    where both show it, so that the interval is the union of theirs. The quantile is Student's with
    `freedom` degrees (Satterthwaite's). A score test stays honest where no pair disagrees, where an
    interval built on the observed spread has width zero; the robust one stays honest where streams
    differ more than the correlations that the score allows for.
    """

    counts: StreamCounts
    errors: int
    baseline: float
    compressed: float
    design_effect: float
    freedom: float
    floor: float = BASELINE_FLOOR
    confidence: float = CONFIDENCE
    answerable: bool = True

    @property
    def pairs(self) -> int:
        return sum(self.counts.sizes)

    @property
    def streams(self) -> int:
        return len(self.counts.sizes)

    @property
    def lost(self) -> int:
        return sum(self.counts.lost)

    @property
    def gained(self) -> int:
        return sum(self.counts.gained)

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
    def decidable(self) -> bool:
        """Whether there are streams enough, and of sizes alike enough, to show anything.

        With less than two degrees of freedom the spread between streams is hardly known. Then
        nothing is decided, and no interval counts as one that excludes zero.
        """
        return self.freedom >= DECIDABLE

    @property
    def discordance(self) -> float:
        """Share of the pairs on which the arms disagree; it sets how many pairs a gate needs."""
        return (self.lost + self.gained) / self.pairs

    @cached_property
    def interval(self) -> Interval:
        return self.interval_at(self.confidence)

    @property
    def shows_loss(self) -> bool:
        """Whether the interval lies above zero, of a tax that can be decided."""
        return self.decidable and self.interval.low > 0

    @property
    def shows_gain(self) -> bool:
        """Whether the interval lies below zero, of a tax that can be decided."""
        return self.decidable and self.interval.high < 0

    def interval_at(self, confidence: float) -> Interval:
        """The taxes that a two-sided test at 1 - confidence does not reject."""
        reach = student_quantile(self.freedom, (1 + confidence) / 2)
        low, high = score_ends(self.counts, reach)
        half = reach * robust_error(self.counts)
        low, high = min(low, self.value - half), max(high, self.value + half)
        return Interval(max(low, -1.0), min(high, 1.0))

    def statistics(self, margin: float) -> tuple[float, float]:
        """The score and the robust statistic: standard errors from `margin` to the tax."""
        return float(score(self.counts, np.array([margin]))[0]), robust(self.counts, margin)

    def p_at_most(self, margin: float) -> float:
        """One-sided p-value against "the tax is `margin` or more": small shows it is below.

        1 where nothing can be decided.
        """
        return student_tail(-max(self.statistics(margin)), self.freedom)

    def p_above(self, margin: float) -> float:
        """One-sided p-value against "the tax is `margin` or less": small shows it is above.

        1 where nothing can be decided.
        """
        return student_tail(min(self.statistics(margin)), self.freedom)

    @property
    def p_difference(self) -> float:
        """Two-sided p-value against "no tax", clustered by stream."""
        return min(1.0, 2 * min(self.p_at_most(0.0), self.p_above(0.0)))

    @property
    def p_mcnemar(self) -> float:
        """Exact McNemar, two-sided; it takes the pairs as independent."""
        fewer, differ = min(self.lost, self.gained), self.lost + self.gained
        return min(1.0, 2 * float(bdtr(fewer, differ, 0.5)))


def student_quantile(freedom: float, share: float) -> float:
    """Student's quantile; the normal one without streams to count, where one value is left."""
    return float(stdtrit(freedom, share) if freedom else ndtri(share))


def student_tail(statistic: float, freedom: float) -> float:
    """The chance of a larger statistic; 1 where the freedom is too small to decide anything."""
    return float(stdtr(freedom, -statistic)) if freedom >= DECIDABLE else 1.0


def wilson(correct: float, asked: float, alpha: float = 1 - CONFIDENCE) -> Interval:
    """Wilson score interval of a proportion, two-sided at 1 - `alpha`; counts may be effective
    (fractional) ones."""
    return Interval(*wilson_ends(correct / asked, asked, float(ndtri(1 - alpha / 2))))


def estimate_recall(
    recalled: Bools,
    streams: npt.ArrayLike | None = None,
    errors: int = 0,
    confidence: float = CONFIDENCE,
) -> Recall:
    """Recall with a Wilson interval that allows for questions that share streams.

    Where they do, the correlation within streams is the most likely one, the quantile is Student's
    with Satterthwaite's degrees of freedom, and the interval holds that of the CR2 standard error
    too. The questions of a single stream may be all alike: they count as one. With a question a
    stream Wilson's interval stands as it is.

    Args:
        recalled: [questions], True where the answer was right; errors are False.
        streams: [questions], the context each question was put to; None for independent ones.

    Raises:
        ValueError: no questions. "No data" is not a recall of zero.
    """
    if len(recalled) == 0:
        raise ValueError("recall of no questions is undefined")
    correct, asked = int(recalled.sum()), len(recalled)
    codes = np.arange(asked) if streams is None else stream_codes(streams)
    sizes = np.bincount(codes)
    if len(sizes) == asked:
        return Recall(correct, asked, errors, wilson(correct, asked, 1 - confidence))
    freedom = satterthwaite_freedom(sizes.astype(float))
    reach = student_quantile(freedom, (1 + confidence) / 2)
    counts = by_stream(codes, recalled, np.zeros(asked, bool))
    low, high = share_ends(counts.sizes, counts.lost, reach)
    half = reach * robust_error(counts)
    value = correct / asked
    interval = Interval(max(0.0, min(low, value - half)), min(1.0, max(high, value + half)))
    return Recall(correct, asked, errors, interval, freedom)


def stream_codes(streams: npt.ArrayLike) -> npt.NDArray[np.int_]:
    """The number of each value's stream, from 0."""
    return np.asarray(pd.factorize(np.asarray(streams))[0], dtype=int)


def by_stream(codes: npt.NDArray[np.int_], lost: Bools, gained: Bools) -> StreamCounts:
    """Counts of each stream, sorted.

    Args:
        codes: [pairs], the number of the stream, from 0.
    """
    found = [np.bincount(codes), *(np.bincount(codes, part) for part in (lost, gained))]
    return sorted_counts(np.stack(found).astype(int))


def sorted_counts(found: npt.NDArray[np.int_]) -> StreamCounts:
    """From [sizes, lost, gained] by streams."""
    return StreamCounts(*(tuple(part) for part in found[:, np.lexsort(found[::-1])].tolist()))


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
        streams: [pairs], the context of each pair. The pairs of a single stream may be all alike:
            they count as one.

    Raises:
        ValueError: no pairs, or arrays of different lengths.
    """
    pairs = len(baseline)
    if pairs == 0 or len(compressed) != pairs:
        raise ValueError(f"{pairs} baseline and {len(compressed)} compressed answers do not pair")
    lost, gained = baseline & ~compressed, compressed & ~baseline
    tax = tax_of_counts(*by_stream(stream_codes(streams), lost, gained))
    return replace(
        tax,
        errors=errors,
        baseline=float(baseline.mean()),
        compressed=float(compressed.mean()),
        floor=floor,
        confidence=confidence,
        answerable=answerable,
    )


def tax_of_counts(sizes: npt.ArrayLike, lost: npt.ArrayLike, gained: npt.ArrayLike) -> Tax:
    """The tax of streams with these numbers of pairs, lost and gained; the baseline recalls the
    rest."""
    found = np.stack([np.asarray(part, dtype=int) for part in (sizes, lost, gained)])
    counts = sorted_counts(found)
    pairs, differences = float(found[0].sum()), found[1] - found[2]
    mean = differences.sum() / pairs
    squares = found[1:].sum() - pairs * mean**2
    return Tax(
        counts=counts,
        errors=0,
        baseline=1 - found[2].sum() / pairs,
        compressed=1 - found[1].sum() / pairs,
        design_effect=design_effect(
            differences.astype(float), found[0].astype(float), squares / max(1.0, pairs - 1)
        ),
        freedom=satterthwaite_freedom(found[0].astype(float)),
    )


def tax_of(pairs: pd.DataFrame, floor: float = BASELINE_FLOOR, answerable: bool = True) -> Tax:
    """`estimate_tax` of a table made by `niah.runs.tables.pair_arms`."""
    return estimate_tax(
        pairs["baseline"].to_numpy(),
        pairs["compressed"].to_numpy(),
        pairs["stream_id"].to_numpy(),
        errors=int((pairs["baseline_failed"] | pairs["compressed_failed"]).sum()),
        floor=floor,
        answerable=answerable,
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm-adjusted p-values: the chance of one false alarm among all of them stays nominal."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted: dict[str, float] = {}
    least = 0.0
    for number, name in enumerate(ordered):
        least = max(least, min(1.0, (len(ordered) - number) * p_values[name]))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}
