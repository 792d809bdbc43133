"""How small a tax a sweep can show, and how many pairs and streams it would take to show one.

Planning figures: one-sided z tests of the paired difference in closed form, from what the caller
assumes; and the gate's own tests on the most favourable answers, which no assumption enters.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from niah.statistics.clusters import DECIDABLE, satterthwaite_freedom
from niah.statistics.intervals import student_quantile, student_tail, tax_of_counts

ALPHA = 0.05
POWER = 0.8
CORRELATION_PRICE = 4 / 3  # found by simulation (tests/niah/statistics/test_power.py)


def pairs_needed(
    tax: float,
    discordance: float,
    margin: float = 0.0,
    alpha: float = ALPHA,
    power: float = POWER,
    design_effect: float = 1.0,
) -> int:
    """Pairs for a one-sided test to tell a true `tax` from `margin`, above or below it.

    Args:
        tax, margin: recall lost, 0 to 1.
        discordance: expected share of the pairs on which the arms disagree.
        design_effect: variance growth because questions share streams; 1 for none.

    Raises:
        ValueError: a tax equal to the margin (no number of pairs tells them apart), or a share
            out of range.
    """
    _check_share("discordance", discordance)
    _check_share("tax", abs(tax))
    if math.isclose(tax, margin, abs_tol=1e-12):
        raise ValueError(f"a tax of {tax} equal to the margin cannot be told from it")
    variance = max(discordance, abs(tax)) - tax**2  # 0 if every pair is lost: one pair shows it
    pairs = variance * (_quantiles(alpha, power) / (tax - margin)) ** 2
    return max(1, math.ceil(pairs * design_effect))


def smallest_detectable_tax(
    pairs: int,
    discordance: float,
    alpha: float = ALPHA,
    power: float = POWER,
    design_effect: float = 1.0,
    freedom: float = math.inf,
) -> float:
    """The smallest true tax that `pairs` questions show to be above zero, with chance `power`.

    Where the answer would exceed `discordance`, the arms are taken to disagree in one direction
    only and discordance grows with the tax. `freedom` is Satterthwaite's, for Student's quantiles
    as the gate takes them; other arguments as in `pairs_needed`.
    """
    _check_share("discordance", discordance)
    if pairs < 1:
        raise ValueError(f"pairs is {pairs}; at least 1 is needed")
    effect = _quantiles(alpha, power, freedom) * math.sqrt(design_effect / pairs)
    # effect = tax / sqrt(discordance - tax^2), solved for the tax
    one_way = effect**2 / (1 + effect**2)
    return math.sqrt(discordance * one_way) if discordance > one_way else one_way


def more_samples(
    pairs: int,
    discordance: float,
    factors: tuple[int, ...] = (1, 2, 4, 10),
    design_effect: float = 1.0,
) -> dict[int, float]:
    """What more samples buy: pairs -> smallest detectable tax, for multiples of `pairs`."""
    return {
        pairs * factor: smallest_detectable_tax(
            pairs * factor, discordance, design_effect=design_effect
        )
        for factor in factors
    }


def can_pass(sizes: Sequence[int], margin: float, alpha: float = ALPHA) -> bool:
    """Whether a run of streams of these sizes passes a gate if no pair at all differs.

    Streams that cannot do that cannot pass, whatever the model.
    """
    return _undisturbed(sizes, margin) < alpha


def copies_to_pass(
    sizes: Sequence[int],
    margin: float,
    discordance: float = 0.0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> int:
    """How many times the streams of these sizes a pass takes, if the true tax is zero.

    At least so many that a run in which no pair differs passes. With a `discordance` above 0 also
    so many that four of five such runs pass (`power`), where questions of a stream are independent:
    CORRELATION_PRICE times what it would take if that were known.

    Raises:
        ValueError: a margin of 0 or less (no number of streams shows that nothing is lost), or a
            discordance that is no share.
    """
    _check_share("discordance", discordance)
    if margin <= 0:
        raise ValueError(f"margin is {margin}; no number of streams shows a tax below it")

    def enough(times: int) -> bool:
        streams = list(sizes) * times
        freedom = satterthwaite_freedom(np.array(streams, dtype=float))
        if freedom < DECIDABLE:
            return False
        price = CORRELATION_PRICE if discordance else 1.0
        reach = student_quantile(freedom, 1 - alpha) * math.sqrt(price)
        effect = _quantiles(alpha, power, freedom) * math.sqrt(price * discordance / sum(streams))
        return can_pass(streams, margin, student_tail(reach, freedom)) and effect <= margin

    most = 1
    while not enough(most):
        most *= 2
    return bisect_left(range(most + 1), True, lo=most // 2 + 1, key=enough) if most > 1 else 1


def _undisturbed(sizes: Sequence[int], margin: float) -> float:
    none = [0] * len(sizes)
    return tax_of_counts(sizes, none, none).p_at_most(margin)


def _quantiles(alpha: float, power: float, freedom: float = math.inf) -> float:
    """How many standard errors of the mean a true effect has to be away from the margin."""
    return float(stdtrit(freedom, 1 - alpha) + stdtrit(freedom, power))


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it is a share between 0 and 1")
