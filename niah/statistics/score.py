"""The two statistics behind every interval and verdict about a paired difference.

Both measure how far the observed tax lies from a supposed one, in standard errors, and both are
compared with Student's quantile at Satterthwaite's degrees of freedom:

- `score`: Tango's (1998) score statistic. Its variance is the one under the supposed tax, with the
  most likely shares of lost and gained pairs. Here losses and gains of a stream are beta-binomial,
  and their correlation is the most likely one under the supposed tax too, from 0 to 0.1.
- `robust`: the mean over its CR2 standard error, which supposes nothing about the streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from niah.statistics.clusters import (
    CORRELATIONS,
    Floats,
    cr2_variance,
    growth,
    likeliest_correlation,
)

Counts = tuple[int, ...]
STEPS, ROUNDS = 20, 2  # of a search for an end of an interval, each within the last one's step


class StreamCounts(NamedTuple):
    """Pairs, lost pairs and gained pairs of each stream, sorted: equal samples are equal."""

    sizes: Counts
    lost: Counts
    gained: Counts

    @property
    def clustered(self) -> bool:
        """Whether some stream has more than one pair."""
        return max(self.sizes) > 1

    @property
    def totals(self) -> tuple[float, float, float]:
        """Pairs, lost and gained; those of a single stream may be all alike and count as one."""
        pairs, lost, gained = (float(sum(part)) for part in self)
        each = pairs if len(self.sizes) == 1 else 1.0
        return pairs / each, lost / each, gained / each


def robust(counts: StreamCounts, tax: float) -> float:
    """Distance of the mean from `tax` in CR2 standard errors.

    Infinite where streams are all alike; 0 for a single stream, which says nothing of the spread.
    """
    if len(counts.sizes) < 2:
        return 0.0
    away = (sum(counts.lost) - sum(counts.gained)) / sum(counts.sizes) - tax
    error = robust_error(counts)
    return away / error if error else math.copysign(math.inf, away) if away else 0.0


def robust_error(counts: StreamCounts) -> float:
    """CR2 standard error of the mean; 0 where it cannot be known, of a single stream."""
    sizes, lost, gained = (np.array(part, dtype=float) for part in counts)
    return math.sqrt(cr2_variance(lost - gained, sizes)) if len(sizes) > 1 else 0.0


def score(counts: StreamCounts, taxes: Floats) -> Floats:
    """Tango's statistic with the variance of beta-binomial counts: [taxes]."""
    restricted = gained_share(*counts.totals, taxes)
    if len(counts.sizes) < 2:
        return standardised(*counts.totals, taxes, restricted)
    sizes, lost, gained = (np.array(part) for part in counts)
    extra = growth(sizes)
    more_lost = 1 + extra * likeliest_correlation(sizes, lost, lost, restricted + taxes)
    more_gained = 1 + extra * likeliest_correlation(sizes, gained, gained, restricted)
    return standardised(*counts.totals, taxes, restricted, more_lost, more_gained)


def standardised(
    pairs: float,
    lost: float | Floats,
    gained: float | Floats,
    tax: float | Floats,
    share: Floats,
    more_lost: float | Floats = 1.0,
    more_gained: float | Floats = 1.0,
) -> Floats:
    """(observed - tax) over its standard error if `share` of the pairs were gained.

    Args:
        more_lost, more_gained: by what the variance of the lost and gained counts is multiplied.
    """
    also = share + tax
    variance = also * (1 - also) * more_lost + share * (1 - share) * more_gained + 2 * also * share
    return np.asarray(
        ((lost - gained) / pairs - tax) / np.sqrt(np.maximum(variance / pairs, 1e-12 / pairs**2))
    )


def gained_share(
    pairs: float, lost: float | Floats, gained: float | Floats, tax: float | Floats
) -> Floats:
    """Most likely share of gained pairs if the true tax were `tax` (Tango 1998)."""
    b = (2 * pairs - lost + gained) * tax - lost - gained
    c = -gained * tax * (1 - tax)
    root = (np.sqrt(np.maximum(b * b - 8 * pairs * c, 0.0)) - b) / (4 * pairs)
    return np.asarray(np.maximum(root, np.maximum(0.0, -np.asarray(tax))))


@lru_cache(maxsize=16384)  # the cells of a heatmap repeat a few counts
def score_ends(counts: StreamCounts, reach: float) -> tuple[float, float]:
    """The smallest and the largest tax whose score is within `reach` of zero."""
    least = plain_ends(*counts.totals, 1.0, reach)
    if not counts.clustered or len(counts.sizes) < 2:
        return least
    largest = 1 + growth(np.array(counts.sizes)) * float(CORRELATIONS[-1])
    most = plain_ends(*counts.totals, largest, reach)
    return outermost(lambda taxes: np.abs(score(counts, taxes)) < reach, least, most)


def plain_ends(
    pairs: float, lost: float, gained: float, more: float, reach: float
) -> tuple[float, float]:
    """The ends where both variances are multiplied by the same number."""

    def at(tax: float) -> float:
        share = gained_share(pairs, lost, gained, tax)
        return float(standardised(pairs, lost, gained, tax, share, more, more))

    edge = 1 - 1e-9
    low = -1.0 if at(-edge) <= reach else float(brentq(lambda tax: at(tax) - reach, -edge, edge))
    high = 1.0 if at(edge) >= -reach else float(brentq(lambda tax: at(tax) + reach, -edge, edge))
    return low, high


def outermost(
    inside: Callable[[Floats], npt.NDArray[np.bool_]],
    near: tuple[float, float],
    far: tuple[float, float],
) -> tuple[float, float]:
    """For either end the value farthest from `near` towards `far` that is `inside`, within
    STEPS ** -ROUNDS of the way."""
    start, stop = np.array(near), np.array(far)
    rows = np.arange(2)
    for _ in range(ROUNDS):
        tried = np.linspace(start, stop, STEPS + 1, axis=1)
        found = inside(tried.ravel()).reshape(tried.shape)
        found[:, 0] = True
        last = STEPS - found[:, ::-1].argmax(axis=1)
        start, stop = tried[rows, last], tried[rows, np.minimum(last + 1, STEPS)]
    return float(stop[0]), float(stop[1])


@lru_cache(maxsize=16384)
def share_ends(sizes: Counts, counts: Counts, reach: float) -> tuple[float, float]:
    """The smallest and the largest share whose score is within `reach` of zero.

    Wilson's interval, with the variance of a beta-binomial count and the most likely correlation
    under the supposed share.

    Args:
        sizes, counts: questions of each stream, and how many of them count; sorted.
    """
    asked = np.array(sizes)
    total = 1.0 if len(sizes) == 1 else float(asked.sum())
    share = sum(counts) / float(asked.sum())
    least = wilson_ends(share, total, reach)
    extra = growth(asked)
    if extra == 0 or len(sizes) == 1:
        return least
    most = wilson_ends(share, total / (1 + extra * float(CORRELATIONS[-1])), reach)

    def inside(shares: Floats) -> npt.NDArray[np.bool_]:
        found = np.array(counts)
        more = 1 + extra * likeliest_correlation(asked, found, found, shares)
        variance = shares * (1 - shares) * more / total
        return np.asarray((share - shares) ** 2 <= reach**2 * variance)

    return outermost(inside, least, most)


def wilson_ends(share: float, asked: float, reach: float) -> tuple[float, float]:
    """Wilson's score interval; `asked` may be an effective (fractional) number."""
    spread = reach**2 / asked
    middle = (share + spread / 2) / (1 + spread)
    half = float(np.sqrt(share * (1 - share) * spread + spread**2 / 4)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
