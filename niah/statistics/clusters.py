"""How far values of one stream go together: variance, degrees of freedom, correlation.

Questions put to one stream of text share it, so they go right and wrong together. The mean is the
plain mean over all questions, as in an ordinary regression on a constant.

CR2 is the cluster-robust variance that is unbiased where values are independent (Bell & McCaffrey
2002). Its degrees of freedom are Satterthwaite's, from the same working model (Pustejovsky &
Tipton 2018). For a mean both have a closed form in the shares h_i = n_i / N of the streams.

The intraclass correlation is the most likely one of a beta-binomial count (Saha et al. 2015): each
stream draws its own chance from a beta distribution, and its questions go by that chance.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int_]
Bools = npt.NDArray[np.bool_]

DECIDABLE = 2.0  # degrees of freedom below which nothing is decided
FEW_STREAMS = "too few streams"  # what a reader sees there
CORRELATIONS: Floats = np.array([0, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.1])
EDGE = 1e-9  # shares are kept this far from 0 and 1, where logarithms end


def cr2_weights(sizes: Floats) -> Floats:
    """1 / (1 - h_i), the weight of a stream's squared sum of residuals: [streams], two or more."""
    return np.asarray(1 / (1 - sizes / sizes.sum()))


def cr2_variance(sums: Floats, sizes: Floats) -> Floats:
    """CR2 variance of the mean, from the sum of the values and their number in each stream.

    Args:
        sums: [..., streams], two or more streams.
        sizes: [streams]
    """
    total = sizes.sum()
    residuals = sums - sizes * (sums.sum(-1, keepdims=True) / total)
    return np.asarray((cr2_weights(sizes) * residuals**2).sum(-1) / total**2)


def satterthwaite_freedom(sizes: Floats) -> float:
    """Degrees of freedom of `cr2_variance`: streams - 1 where sizes are equal, never below 1.

    With one stream nothing is known of the spread between streams: 0.
    """
    if len(sizes) < 2:
        return 0.0
    shares = sizes / sizes.sum()
    cross = shares**2 / (1 - shares)
    return float(1 / ((shares**2).sum() + cross.sum() ** 2 - (cross**2).sum()))


def design_effect(sums: Floats, sizes: Floats, variance: float) -> float:
    """How many times the variance of the mean grows because values of a stream go together.

    CR2 variance over that of independent values, never below 1: with few streams a small ratio
    is luck. The values of a single stream may be all alike, so that they count as one.

    Args:
        variance: of the single values, with the divisor N - 1.
    """
    if len(sizes) < 2:
        return float(sizes.sum())
    if len(sizes) == sizes.sum() or variance <= 0:
        return 1.0
    return max(1.0, float(cr2_variance(sums, sizes)) * float(sizes.sum()) / variance)


def growth(sizes: Ints) -> float:
    """By how much the variance of the mean grows per unit of correlation: sum n_i^2 / N - 1."""
    return float(sizes @ sizes) / float(sizes.sum()) - 1


def likeliest_correlation(sizes: Ints, low: Ints, high: Ints, shares: Floats) -> Floats:
    """The most likely of `CORRELATIONS` for counts with these means: [shares].

    Where some answers are missing, a stream's count is anything from `low` to `high`. Then the
    largest correlation that is the most likely one of some assignment, or a larger one. It is
    possible only if no smaller correlation is more likely whatever the counts. A difference of two
    log-likelihoods is a sum over streams; with the larger correlation first it is convex in each
    count, so that its largest value is at `low` or `high`.

    Args:
        sizes, low, high: [streams]
        shares: [shares], means of the counts' beta distributions.
    """
    shares = np.clip(shares, EDGE, 1 - EDGE)
    kinds, number = np.unique(np.stack([sizes, low, high]), axis=1, return_counts=True)
    fixed = kinds[1] == kinds[2]
    likelihood = np.tensordot(
        number[fixed], log_likelihoods(kinds[0, fixed], kinds[1, fixed], shares), axes=1
    )
    advantage = likelihood[:, None] - likelihood[None, :]
    for (size, least, most), times in zip(kinds[:, ~fixed].T, number[~fixed], strict=True):
        each = log_likelihoods(np.array([size, size]), np.array([least, most]), shares)
        advantage += times * (each[:, :, None] - each[:, None, :]).max(axis=0)
    smaller = np.tri(len(CORRELATIONS), k=-1, dtype=bool)[:, :, None]
    possible = np.where(smaller, advantage, 0.0).min(axis=1) >= 0
    last = len(CORRELATIONS) - 1 - possible[::-1].argmax(axis=0)
    return np.asarray(CORRELATIONS[last])


def log_likelihoods(sizes: Ints, counts: Ints, shares: Floats) -> Floats:
    """Beta-binomial log-likelihood of each count of `sizes`, without the binomial coefficient.

    Returns:
        [counts, correlations, shares]
    """
    return rising(counts, shares) + rising(sizes - counts, 1 - shares) - rising(sizes, np.ones(1))


def rising(counts: Ints, start: Floats) -> Floats:
    """The sum of log(start + j * r / (1 - r)) over j below each count.

    Returns:
        [counts, correlations, start]
    """
    times = counts[:, None, None]
    ratio = (CORRELATIONS[1:] / (1 - CORRELATIONS[1:]))[:, None]
    correlated = gammaln(start / ratio + times) - gammaln(start / ratio) + times * np.log(ratio)
    return np.concatenate([times * np.log(start), correlated], axis=1)
