"""The graded signal: how likely two arms find the right answer, and where their answers part.

A cache that is about to fail shows it in the probability of the right answer before recall falls.
Differences are paired, compressed minus baseline, in nats. Their interval is clustered by stream:
CR2 variance and Student's quantile at Satterthwaite's freedom, as for the tax.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd

from niah.statistics.clusters import (
    DECIDABLE,
    FEW_STREAMS,
    cr2_variance,
    satterthwaite_freedom,
)
from niah.statistics.comparisons import Comparison
from niah.statistics.intervals import CONFIDENCE, Interval, stream_codes, student_quantile
from niah.text_format import counted, nats


class Graded(NamedTuple):
    """The log-probability of the gold answer, over the pairs in which both arms scored it.

    `baseline`, `compressed`: means, in nats. `interval`: of the difference, 95%; NaN with a single
    stream, which says nothing of the spread between streams.
    """

    pairs: int
    streams: int
    baseline: float
    compressed: float
    interval: Interval
    freedom: float

    @property
    def difference(self) -> float:
        """Compressed minus baseline: below zero where compression makes the answer less likely."""
        return self.compressed - self.baseline

    @property
    def decidable(self) -> bool:
        """Whether there are streams enough to say how much they differ."""
        return self.freedom >= DECIDABLE


class Parting(NamedTuple):
    """Where the answers of two arms part, over the pairs of which the tokens are known.

    `same`: pairs with the same tokens. `median`: of the others, the index of the first token that
    differs, from 0; None if there are no others.
    """

    pairs: int
    same: int
    median: float | None


def graded_of(pairs: pd.DataFrame, confidence: float = CONFIDENCE) -> Graded | None:
    """Of pairs made by `niah.runs.tables.pair_arms`; None where no pair is measured."""
    known = pairs[pairs["baseline_logprob"].notna() & pairs["compressed_logprob"].notna()]
    if known.empty:
        return None
    baseline, compressed = (
        known[f"{side}_logprob"].to_numpy(dtype=float) for side in ("baseline", "compressed")
    )
    codes, difference = stream_codes(known["stream_id"]), compressed - baseline
    sizes = np.bincount(codes).astype(float)
    freedom = satterthwaite_freedom(sizes)
    half = float("nan")
    if len(sizes) > 1:
        variance = cr2_variance(np.asarray(np.bincount(codes, difference), dtype=float), sizes)
        half = student_quantile(freedom, (1 + confidence) / 2) * float(np.sqrt(variance))
    mean = float(difference.mean())
    interval = Interval(mean - half, mean + half)
    means = float(baseline.mean()), float(compressed.mean())
    return Graded(len(known), len(sizes), *means, interval, freedom)


def graded_by(comparison: Comparison, column: str) -> dict[object, Graded]:
    """By value of a column, in sorted order; only where something is measured."""
    groups = comparison.complete.groupby(column, sort=True)
    found = {value: graded_of(group) for value, group in groups}
    return {value: of for value, of in found.items() if of is not None}


def graded_text(title: str, found: Graded) -> str:
    """The difference of the comparison called `title` in a line."""
    low, high = found.interval
    span = f"95%: {nats(low)} to {nats(high)}" if found.decidable else FEW_STREAMS
    return (
        f"{title}: {nats(found.difference)} nats ({span}) over "
        f"{counted(found.pairs, 'pair')}; means {nats(found.baseline)} and "
        f"{nats(found.compressed)}"
    )


def parting_by(comparison: Comparison, column: str) -> dict[object, Parting]:
    """By value of a column, in sorted order; only where tokens of both answers are known."""
    groups = comparison.complete.groupby(column, sort=True)
    found = {value: parting_of(group) for value, group in groups}
    return {value: of for value, of in found.items() if of is not None}


def parting_of(pairs: pd.DataFrame) -> Parting | None:
    """Of pairs made by `niah.runs.tables.pair_arms`; None where no pair's tokens are known."""
    known = pairs[pairs["baseline_ids"].notna() & pairs["compressed_ids"].notna()]
    if known.empty:
        return None
    sides = zip(known["baseline_ids"], known["compressed_ids"], strict=True)
    parted = [at for one, other in sides if (at := first_difference(one, other)) is not None]
    return Parting(len(known), len(known) - len(parted), median(parted) if parted else None)


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The index of the first token that differs; where one answer is the beginning of the other,
    the index behind its end. None if they are the same."""
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return at
    return None if len(one) == len(other) else min(len(one), len(other))
