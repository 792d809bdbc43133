"""Bounds of the tests over every way in which errors and missing answers could have gone.

An answer that is not there could be right or wrong. With u of them there are 2^u assignments, of
which neither "all for" nor "all against" has to be the worst: losses that gather in one stream
make the variance larger. The bounds here hold for all of them:

- robust statistic: for each total of lost minus gained pairs, the largest CR2 variance. It is a sum
  of convex functions of the streams' sums, so that a continuous knapsack bounds it: every stream is
  at one of its ends, but for one that is between them.
- score statistic: for each total of lost and of gained pairs, the largest correlation that is the
  most likely one of some assignment (`likeliest_correlation`).
- Tango's statistic without a correlation grows with every loss and falls with every gain, so that
  its extremes are at the ends. It is never nearer to zero than the score statistic.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from niah.statistics.clusters import (
    CORRELATIONS,
    DECIDABLE,
    Floats,
    Ints,
    cr2_weights,
    growth,
    likeliest_correlation,
    satterthwaite_freedom,
)
from niah.statistics.columns import GROUP
from niah.statistics.comparisons import Comparison
from niah.statistics.intervals import Tax, stream_codes, student_tail
from niah.statistics.score import gained_share, standardised

MAX_OPEN_GROUPS = 4  # groups that may or may not reach the floor: each doubles the work
MAX_TOTALS = 4096  # pairs of totals looked at one by one
CHUNK = 1 << 20  # numbers in memory at once

UNBOUNDED = (-np.inf, np.inf)


class Bounds(NamedTuple):
    """What holds for every assignment of the `unanswered` pairs.

    `always_defined`, `ever_defined`: whether a tax is defined in all, and in some. `freedom`: the
    smallest. `p_at_most`, `p_above`: the largest p-values. `least_p_above`: at most the smallest
    where that is below 0.5.
    """

    unanswered: int
    always_defined: bool
    ever_defined: bool
    freedom: float
    p_at_most: float
    p_above: float
    least_p_above: float

    @property
    def decidable(self) -> bool:
        return self.freedom >= DECIDABLE


class Ranges(NamedTuple):
    """By stream: pairs, and the least and most of lost, of gained, and of their difference."""

    sizes: Ints
    least_lost: Ints
    most_lost: Ints
    least_gained: Ints
    most_gained: Ints
    low: Ints
    high: Ints


def bounds_within(comparison: Comparison, pairs: pd.DataFrame, margin: float) -> Bounds:
    """The bounds for those of `pairs` (lines of `comparison.pairs`) that are answerable.

    A group of questions of which errors decide whether the baseline reaches the floor is once in
    and once out.
    """
    found = pairs[pairs.index.isin(comparison.perhaps_answerable.index)]
    failed = found["baseline_failed"] | found["compressed_failed"]
    unanswered = int(failed.sum())
    if not unanswered:
        return bounds_of_tax(comparison.tax_within(pairs), margin)
    surely = found.index.isin(comparison.surely_answerable.index)
    groups = found.groupby(GROUP, dropna=False).ngroup().to_numpy()
    opens = sorted(set(groups[~surely]))
    if len(opens) > MAX_OPEN_GROUPS:
        return Bounds(unanswered, False, True, 0.0, 1.0, 1.0, 0.0)
    every = []
    for kept in product((False, True), repeat=len(opens)):
        inside = {group for group, wanted in zip(opens, kept, strict=True) if wanted}
        every.append(bounds_of(found[surely | np.isin(groups, list(inside))], margin, comparison))
    return worst_of(every)._replace(unanswered=unanswered)


def bounds_of_tax(tax: Tax, margin: float) -> Bounds:
    """Of a tax without errors: its own p-values."""
    at_most, above = tax.p_at_most(margin), tax.p_above(margin)
    return Bounds(0, tax.defined, tax.defined, tax.freedom, at_most, above, above)


def worst_of(every: Iterable[Bounds]) -> Bounds:
    """Bounds that hold for all of several sets of assignments."""
    columns = list(zip(*every, strict=True))
    return Bounds(
        sum(columns[0]),
        all(columns[1]),
        any(columns[2]),
        min(columns[3]),
        max(columns[4]),
        max(columns[5]),
        min(columns[6]),
    )


def bounds_of(pairs: pd.DataFrame, margin: float, comparison: Comparison) -> Bounds:
    """The bounds where these pairs are the answerable ones."""
    if not len(pairs):
        return Bounds(0, False, False, np.inf, 1.0, 1.0, 1.0)
    ranges = ranges_of(pairs)
    freedom = satterthwaite_freedom(ranges.sizes.astype(float))
    known = pairs["baseline"] & ~pairs["baseline_failed"]
    always = known.mean() >= comparison.floor
    ever = (known | pairs["baseline_failed"]).mean() >= comparison.floor
    scores, robusts = score_range(ranges, margin), robust_range(ranges, margin)
    return Bounds(
        unanswered=int((pairs["baseline_failed"] | pairs["compressed_failed"]).sum()),
        always_defined=bool(always),
        ever_defined=bool(ever),
        freedom=freedom,
        p_at_most=largest_tail(-max(scores[1], robusts[1]), freedom),
        p_above=largest_tail(min(scores[0], robusts[0]), freedom),
        least_p_above=student_tail(most_plain_score(ranges, margin), freedom),
    )


def largest_tail(statistic: float, freedom: float) -> float:
    """The p-value of a bound that was computed with the largest variance.

    That variance makes a statistic on the wrong side of zero too small: its p-value is taken as 1.
    """
    return student_tail(statistic, freedom) if statistic > 0 else 1.0


def ranges_of(pairs: pd.DataFrame) -> Ranges:
    """What each stream's counts may be, of the answers that are there and those that are not."""
    codes = stream_codes(pairs["stream_id"])
    open_one, open_two = pairs["baseline_failed"].to_numpy(), pairs["compressed_failed"].to_numpy()
    least_one = pairs["baseline"].to_numpy() & ~open_one
    least_two = pairs["compressed"].to_numpy() & ~open_two
    most_one, most_two = least_one | open_one, least_two | open_two
    parts = (
        np.ones(len(pairs), dtype=bool),
        least_one & ~most_two,
        most_one & ~least_two,
        least_two & ~most_one,
        most_two & ~least_one,
    )
    counts = [np.bincount(codes, part).astype(int) for part in parts]
    low = np.bincount(codes, least_one.astype(int) - most_two).astype(int)
    high = np.bincount(codes, most_one.astype(int) - least_two).astype(int)
    return Ranges._make([*counts, low, high])


def robust_range(ranges: Ranges, margin: float) -> tuple[float, float]:
    """The values nearest to zero that the robust statistic may take, on either side.

    Unbounded where the mean may lie on the margin.
    """
    wanted = margin * int(ranges.sizes.sum())
    least, most = int(ranges.low.sum()), int(ranges.high.sum())
    if least <= wanted <= most or len(ranges.sizes) < 2:
        return UNBOUNDED
    totals = np.arange(least, most + 1)
    step = max(1, CHUNK // len(ranges.sizes))
    variances = np.concatenate(
        [
            most_squares(ranges, totals[at : at + step].astype(float))
            for at in range(0, len(totals), step)
        ]
    )
    away = totals - wanted
    with np.errstate(divide="ignore"):
        found = away / np.sqrt(np.maximum(variances, 0.0))
    return float(found.min()), float(found.max())


def most_squares(ranges: Ranges, totals: Floats) -> Floats:
    """At least the largest N^2 * CR2 variance of streams whose sums add up to `totals`: [totals].

    A stream's part is w (x - h T)^2. Between its ends it is at most the chord, so that the most is
    reached by filling streams in the order of the chords' slopes.
    """
    sizes = ranges.sizes.astype(float)
    shares, weights = sizes / sizes.sum(), cr2_weights(sizes)
    at_low = weights * (ranges.low - shares * totals[:, None]) ** 2
    slopes = weights * (ranges.low + ranges.high - 2 * shares * totals[:, None])
    order = np.argsort(-slopes, axis=1)
    widths = (ranges.high - ranges.low).astype(float)[order]
    before = np.cumsum(widths, axis=1) - widths
    filled = np.clip((totals - ranges.low.sum())[:, None] - before, 0, widths)
    gain = filled * np.take_along_axis(slopes, order, axis=1)
    return np.asarray(at_low.sum(axis=1) + gain.sum(axis=1))


def score_range(ranges: Ranges, margin: float) -> tuple[float, float]:
    """The values nearest to zero that the score statistic may take, on either side.

    Unbounded where the mean may lie on the margin.
    """
    pairs = int(ranges.sizes.sum())
    ends = [int(part.sum()) for part in ranges[1:5]]
    if ends[0] - ends[3] <= margin * pairs <= ends[1] - ends[2] or len(ranges.sizes) < 2:
        return UNBOUNDED
    if (ends[1] - ends[0] + 1) * (ends[3] - ends[2] + 1) > MAX_TOTALS:
        return coarse_score_range(pairs, ends, growth(ranges.sizes), margin)
    lost, gained = (
        part.ravel().astype(float)
        for part in np.meshgrid(np.arange(ends[0], ends[1] + 1), np.arange(ends[2], ends[3] + 1))
    )
    share = gained_share(pairs, lost, gained, margin)
    extra = growth(ranges.sizes)
    more_lost = 1 + extra * likeliest_correlation(*ranges[:3], share + margin)
    more_gained = 1 + extra * likeliest_correlation(ranges.sizes, *ranges[3:5], share)
    found = standardised(pairs, lost, gained, margin, share, more_lost, more_gained)
    return float(found.min()), float(found.max())


def coarse_score_range(
    pairs: int, ends: list[int], extra: float, margin: float
) -> tuple[float, float]:
    """The same with the largest correlation and the largest variance anywhere in the range.

    The likely share of gained pairs grows with the lost and with the gained ones.
    """
    least = float(gained_share(pairs, ends[0], ends[2], margin))
    most = float(gained_share(pairs, ends[1], ends[3], margin))
    largest = [
        0.25 if low <= 0.5 <= high else max(low * (1 - low), high * (1 - high))
        for low, high in ((least, most), (least + margin, most + margin))
    ]
    more = 1 + extra * float(CORRELATIONS[-1])
    variance = sum(largest) * more + 2 * most * (most + margin)
    away = [(ends[0] - ends[3]) / pairs - margin, (ends[1] - ends[2]) / pairs - margin]
    low, high = (float(part / np.sqrt(variance / pairs)) for part in away)
    return low, high


def most_plain_score(ranges: Ranges, margin: float) -> float:
    """Tango's statistic with every answer taken as a loss that may be one."""
    pairs = int(ranges.sizes.sum())
    lost, gained = int(ranges.most_lost.sum()), int(ranges.least_gained.sum())
    share = gained_share(pairs, lost, gained, margin)
    return float(standardised(pairs, lost, gained, margin, share))
