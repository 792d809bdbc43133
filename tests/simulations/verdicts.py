"""How often verdicts are wrong and intervals miss, over experiments with a known truth.

python -m tests.simulations.verdicts           # the table of docs/statistics.md, minutes
python -m tests.simulations.verdicts --draws 200

The true tax equals the margin, so that a pass is wrong and a failure is wrong. Streams draw their
own chance of a loss: from a beta distribution, or a few bad streams hold all the losses. Both have
the stated mean and intraclass correlation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from niah.statistics.intervals import Tax, student_quantile, tax_of_counts

Ints = npt.NDArray[np.int_]
Chances = Callable[[np.random.Generator, float, float, int], npt.NDArray[np.float64]]

GAINED = 0.01
MARGINS = (0.02, 0.05)
ALPHA = 0.05
CORRELATIONS = (0.0, 0.05, 0.1, 0.2)
DESIGNS: dict[str, list[int]] = {
    "4 × 40": [40] * 4,
    "8 × 40": [40] * 8,
    "8 × 200": [200] * 8,
    "12 × 20": [20] * 12,
    "16 × 40": [40] * 16,
    "24 × 40": [40] * 24,
    "48 × 20": [20] * 48,
    "96 × 10": [10] * 96,
    "120, 9, 9, 2": [120, 9, 9, 2],
    "80, 2 × 40, 3 × 20": [80, 40, 40, 20, 20, 20],
    "2 × 60, 2 × 40, 2 × 30, 2 × 20, 4 × 10": [60, 60, 40, 40, 30, 30, 20, 20, *[10] * 4],
    "4 × 80, 12 × 20": [*[80] * 4, *[20] * 12],
}


class Rates(NamedTuple):
    """Shares of the experiments."""

    wrong_pass: float
    wrong_fail: float
    covered: float


def beta_chances(
    rng: np.random.Generator, mean: float, correlation: float, streams: int
) -> npt.NDArray[np.float64]:
    """A beta distribution over streams."""
    if correlation == 0:
        return np.full(streams, mean)
    spread = 1 / correlation - 1
    return rng.beta(mean * spread, (1 - mean) * spread, streams)


def few_bad_streams(
    rng: np.random.Generator, mean: float, correlation: float, streams: int
) -> npt.NDArray[np.float64]:
    """A stream is bad by chance and then loses much, or it loses nothing."""
    bad = 1 / (1 + correlation * (1 - mean) / mean)
    return np.where(rng.random(streams) < bad, mean / bad, 0.0)


KINDS: dict[str, Chances] = {"beta": beta_chances, "few bad streams": few_bad_streams}


def experiment(
    rng: np.random.Generator, sizes: Ints, tax: float, chances: npt.NDArray[np.float64]
) -> Tax:
    """One run: losses by each stream's chance, gains by the same chance in every stream."""
    lost = rng.binomial(sizes, chances)
    gained = rng.binomial(sizes - lost, GAINED / (1 - tax - GAINED))
    return tax_of_counts(sizes, lost, gained)


def rates(
    sizes: list[int], tax: float, correlation: float, kind: str, draws: int, seed: int = 0
) -> Rates:
    """What a gate at the margin `tax` does where that is the true tax."""
    rng = np.random.default_rng([seed, len(sizes), sizes[0], round(1000 * correlation)])
    asked = np.array(sizes)
    found = []
    for _ in range(draws):
        chances = KINDS[kind](rng, tax + GAINED, correlation, len(sizes))
        result = experiment(rng, asked, tax, chances)
        low, high = result.p_at_most(tax), result.p_above(tax)
        found.append((low < ALPHA, high < ALPHA, covers(result, tax)))
    return Rates(*np.mean(found, axis=0).tolist())


def covers(found: Tax, tax: float) -> bool:
    """Whether the 95% interval holds `tax`, without searching for its ends."""
    reach = student_quantile(found.freedom, 0.975)
    statistics = found.statistics(tax)
    return not (max(statistics) < -reach or min(statistics) > reach)


def worst(sizes: list[int], correlation: float, draws: int) -> Rates:
    """The worst rates over margins and kinds of streams."""
    kinds = KINDS if correlation else ["beta"]
    every = [rates(sizes, tax, correlation, kind, draws) for tax in MARGINS for kind in kinds]
    passed, failed, covered = zip(*every, strict=True)
    return Rates(max(passed), max(failed), min(covered))


def table(draws: int) -> Iterator[str]:
    yield "| streams × questions | " + " | ".join(f"{value:g}" for value in CORRELATIONS) + " |"
    yield "|:--|" + "--:|" * len(CORRELATIONS)
    for name, sizes in DESIGNS.items():
        cells = [worst(sizes, correlation, draws) for correlation in CORRELATIONS]
        texts = [" / ".join(f"{100 * share:.1f}" for share in cell) for cell in cells]
        yield f"| {name} | " + " | ".join(texts) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    for line in table(parser.parse_args().draws):
        print(line, flush=True)


if __name__ == "__main__":
    main()
