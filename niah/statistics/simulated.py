"""Runs drawn from assumed shares, and the gate's own tests of the tax on all of them at once.

What a test shows, and how often, is found by doing it: with few streams no closed form tells,
because the tests allow for what questions of a stream may share (`niah.statistics.score`).
Shapes: R runs, S streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from niah.statistics.clusters import (
    CORRELATIONS,
    DECIDABLE,
    EDGE,
    Bools,
    Floats,
    Ints,
    cr2_variance,
    growth,
    log_likelihoods,
    satterthwaite_freedom,
)
from niah.statistics.intervals import student_quantile
from niah.statistics.score import gained_share, standardised

RUNS = 300
SEED = 0
MOST_CORRELATED = 0.9


class Runs(NamedTuple):
    """Runs of streams of the same sizes [S]: lost and gained pairs [R, S]."""

    sizes: Ints
    lost: Ints
    gained: Ints


class Shown(NamedTuple):
    """[R], what each run shows at one level: a tax below the margin, or one above it."""

    below: Bools
    above: Bools


def draw(
    sizes: Sequence[int] | Ints,
    tax: float,
    discordance: float,
    correlation: float = 0.0,
    runs: int = RUNS,
) -> Runs:
    """Runs of one true tax; the same arguments give the same runs.

    Args:
        discordance: share of the pairs on which the arms disagree; they disagree in one direction
            only where it is smaller than the tax, and it grows with it then.
        correlation: of the questions of a stream. Each stream draws its shares of lost, gained and
            equal pairs from a Dirichlet distribution.
    """
    rng = np.random.default_rng(SEED)
    differ = max(discordance, abs(tax))
    shares = np.array([(differ + tax) / 2, (differ - tax) / 2, 1 - differ])
    each, shape = np.array(sizes, dtype=int), (runs, len(sizes))
    if correlation > 0:
        held = min(correlation, MOST_CORRELATED)
        weights = rng.standard_gamma(shares * (1 - held) / held, size=(*shape, 3))
        shares = weights / np.maximum(weights.sum(-1, keepdims=True), np.finfo(float).tiny)
        shares[..., 2] = np.maximum(0.0, 1 - shares[..., 0] - shares[..., 1])
        found = rng.multinomial(each, shares)
    else:
        found = rng.multinomial(each, shares, size=shape)
    return Runs(each, found[..., 0], found[..., 1])


def shown(runs: Runs, margin: float, alpha: float) -> Shown:
    """Which runs have `Tax.p_at_most(margin)`, and which `Tax.p_above(margin)`, below `alpha`."""
    freedom = satterthwaite_freedom(runs.sizes.astype(float))
    if freedom < DECIDABLE:
        nothing = np.zeros(len(runs.lost), bool)
        return Shown(nothing, nothing)
    both = scores(runs, margin), robusts(runs, margin)
    reach = student_quantile(freedom, 1 - alpha)
    return Shown(np.maximum(*both) < -reach, np.minimum(*both) > reach)


def scores(runs: Runs, tax: float) -> Floats:
    """`niah.statistics.score.score` of each run: [R]."""
    pairs, lost, gained = float(runs.sizes.sum()), runs.lost.sum(-1), runs.gained.sum(-1)
    restricted = gained_share(pairs, lost.astype(float), gained.astype(float), tax)
    extra = growth(runs.sizes)
    more_lost = 1 + extra * likeliest_correlations(runs.sizes, runs.lost, restricted + tax)
    more_gained = 1 + extra * likeliest_correlations(runs.sizes, runs.gained, restricted)
    return standardised(pairs, lost, gained, tax, restricted, more_lost, more_gained)


def robusts(runs: Runs, tax: float) -> Floats:
    """`niah.statistics.score.robust` of each run: [R]."""
    difference, sizes = (runs.lost - runs.gained).astype(float), runs.sizes.astype(float)
    away = difference.sum(-1) / sizes.sum() - tax
    with np.errstate(divide="ignore", invalid="ignore"):
        found = away / np.sqrt(cr2_variance(difference, sizes))
    return np.where(away == 0, 0.0, found)


def likeliest_correlations(sizes: Ints, counts: Ints, shares: Floats) -> Floats:
    """`likeliest_correlation` of many runs, each with its own supposed share: [R].

    Args:
        sizes: [S]
        counts: [R, S]
        shares: [R], means of the counts' beta distributions.
    """
    stride = int(sizes.max()) + 1
    kinds, kind = np.unique(counts + stride * sizes, return_inverse=True)
    runs = np.arange(len(counts))[:, None]
    number = np.bincount((kind.reshape(counts.shape) + len(kinds) * runs).ravel())
    number = np.pad(number, (0, len(counts) * len(kinds) - len(number)))
    supposed, share = np.unique(np.clip(shares, EDGE, 1 - EDGE), return_inverse=True)
    each = log_likelihoods(kinds // stride, kinds % stride, supposed)[:, :, share]
    found = np.einsum("rk,kcr->rc", number.reshape(len(counts), -1), each)
    last = len(CORRELATIONS) - 1 - found[:, ::-1].argmax(axis=1)
    return np.asarray(CORRELATIONS[last])
