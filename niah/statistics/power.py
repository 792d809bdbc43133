"""How small a tax a sweep can show, and how many pairs it would take to show one.

Owns the planning side of the statistics: one-sided z tests of the paired difference, in closed
form. Knows nothing about rows; every number is an assumption of the caller's.
"""

from __future__ import annotations

import math

from scipy.special import stdtrit

ALPHA = 0.05
POWER = 0.8


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
    only and discordance grows with the tax. `freedom` is streams - 1, for Student's quantiles as
    the gate takes them; other arguments as in `pairs_needed`.
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


def _quantiles(alpha: float, power: float, freedom: float = math.inf) -> float:
    """How many standard errors of the mean a true effect has to be away from the margin."""
    return float(stdtrit(freedom, 1 - alpha) + stdtrit(freedom, power))


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it is a share between 0 and 1")
