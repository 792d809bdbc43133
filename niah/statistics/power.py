"""How small a tax a sweep can show, and how many streams a verdict takes.

Planning figures. They come from the gate's own tests, put to runs that are drawn from what the
caller assumes (`niah.statistics.simulated`). With hundreds of streams a z test gives the same
figures, and gives them at once.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy.special import ndtri

from niah.statistics.clusters import DECIDABLE, Ints, growth, satterthwaite_freedom
from niah.statistics.intervals import Tax, tax_of_counts
from niah.statistics.simulated import draw, shown

ALPHA = 0.05
POWER = 0.8
MOST_SIMULATED = 200  # streams; of more the closed form says the same
UNREACHABLE = 0.001  # a tax this close to the margin would take a million pairs to settle
PRECISION = 0.01  # of a smallest tax, as a share of it


def smallest_detectable_tax(
    sizes: Sequence[int],
    discordance: float,
    correlation: float = 0.0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> float | None:
    """The smallest true tax that streams of these sizes show to be above zero in `power` of runs.

    None where no tax is: too few streams.

    Args:
        discordance: expected share of the pairs on which the arms disagree. Where the tax exceeds
            it, they disagree in one direction only and it grows with the tax.
        correlation: of the questions of a stream.

    Raises:
        ValueError: no pairs, or a discordance that is no share.
    """
    _check_share("discordance", discordance)
    if sum(sizes) < 1:
        raise ValueError(f"sizes are {list(sizes)}; at least one pair is needed")
    return _smallest(tuple(sorted(sizes)), discordance, correlation, alpha, power)


@lru_cache(maxsize=1024)
def _smallest(
    sizes: tuple[int, ...], discordance: float, correlation: float, alpha: float, power: float
) -> float | None:
    if satterthwaite_freedom(np.array(sizes, dtype=float)) < DECIDABLE:
        return None
    about = _closed_form(sizes, discordance, correlation, alpha, power)
    if len(sizes) > MOST_SIMULATED:
        return about

    def enough(tax: float) -> bool:
        runs = draw(sizes, tax, discordance, correlation)
        return bool(shown(runs, 0.0, alpha).above.mean() >= power)

    if not enough(1.0):
        return None
    low, high = about / 2, about
    while not enough(high):
        low, high = high, min(1.0, 1.5 * high)
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _closed_form(
    sizes: Sequence[int], discordance: float, correlation: float, alpha: float, power: float
) -> float:
    """The smallest tax that a z test of the paired difference shows."""
    spread = 1 + growth(np.array(sizes)) * correlation
    effect = _quantiles(alpha, power) * math.sqrt(spread / sum(sizes))
    # effect = tax / sqrt(discordance - tax^2), solved for the tax
    one_way = effect**2 / (1 + effect**2)
    return math.sqrt(discordance * one_way) if discordance > one_way else one_way


def more_samples(tax: Tax, factors: Sequence[int] = (1, 2, 4, 10)) -> dict[int, float | None]:
    """What more streams like those of `tax` buy: pairs -> smallest detectable tax, by factor."""
    seen = correlation_of(tax)
    return {
        tax.pairs * factor: smallest_detectable_tax(
            tax.counts.sizes * factor, tax.discordance, seen
        )
        for factor in factors
    }


def correlation_of(tax: Tax) -> float:
    """The correlation within streams that gives the design effect of `tax`."""
    extra = growth(np.array(tax.counts.sizes))
    return (tax.design_effect - 1) / extra if extra > 0 else 0.0


def can_pass(sizes: Sequence[int], margin: float, alpha: float = ALPHA) -> bool:
    """Whether a run of streams of these sizes passes a gate if no pair at all differs.

    Streams that cannot do that cannot pass, whatever the model.
    """
    none = [0] * len(sizes)
    return tax_of_counts(sizes, none, none).p_at_most(margin) < alpha


def copies_to_pass(
    sizes: Sequence[int],
    margin: float,
    discordance: float = 0.0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> int:
    """How many times the streams of these sizes a pass takes, if the true tax is zero.

    At least so many that a run in which no pair differs passes. With a `discordance` above 0 also
    so many that four of five such runs pass (`power`), where questions of a stream are independent.

    Raises:
        ValueError: a margin of 0 or less (no number of streams shows that nothing is lost), or a
            discordance that is no share.
    """
    _check_share("discordance", discordance)
    if margin <= 0:
        raise ValueError(f"margin is {margin}; no number of streams shows a tax below it")

    def enough(times: int) -> bool:
        streams = np.tile(sizes, times)
        possible = can_pass(streams.tolist(), margin, alpha)
        return possible and (
            discordance == 0 or _decided(streams, 0.0, margin, discordance, 0.0, alpha, power)
        )

    return _least(enough, 1)


def on_margin(tax: Tax, margin: float) -> bool:
    """Whether the tax is so close to the margin that no number of pairs would settle it."""
    return abs(tax.value - margin) < UNREACHABLE


def streams_to_decide(
    tax: Tax, margin: float, alpha: float = ALPHA, power: float = POWER
) -> list[int] | None:
    """Sizes of as many streams like those of `tax` as give a verdict in `power` of runs.

    The tax, the discordance and the correlation within streams are taken as they were seen. None
    where the tax lies on the margin, or where these streams cannot tell.
    """
    if not tax.decidable or on_margin(tax, margin):
        return None
    sizes, seen = np.array(tax.counts.sizes), correlation_of(tax)

    def enough(streams: int) -> bool:
        some = np.resize(sizes, streams)
        return _decided(some, tax.value, margin, tax.discordance, seen, alpha, power)

    return [int(size) for size in np.resize(sizes, _least(enough, len(sizes) + 1))]


def _decided(
    sizes: Ints,
    tax: float,
    margin: float,
    discordance: float,
    correlation: float,
    alpha: float,
    power: float,
) -> bool:
    """Whether runs of this true tax get a verdict about the margin with chance `power`."""
    if len(sizes) > MOST_SIMULATED:
        spread = 1 + growth(sizes) * correlation
        variance = spread * (max(discordance, abs(tax)) - tax**2) / sum(sizes)
        return abs(tax - margin) >= _quantiles(alpha, power) * math.sqrt(variance)
    found = shown(draw(sizes, tax, discordance, correlation), margin, alpha)
    return bool((found.below | found.above).mean() >= power)


def _least(enough: Callable[[int], bool], start: int) -> int:
    """The smallest number from `start` on that is enough."""
    most = start
    while not enough(most):
        most *= 2
    if most == start:
        return start
    return bisect_left(range(most + 1), True, lo=most // 2 + 1, key=enough)


def _quantiles(alpha: float, power: float) -> float:
    """How many standard errors of the mean a true effect has to be away from the margin."""
    return float(ndtri(1 - alpha) + ndtri(power))


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it is a share between 0 and 1")
