"""The noise floor: how far the baseline asked once more differs from itself.

An arm of role `repeat` has the baseline's weights and settings. Greedy decoding in one process
repeats itself; a server that batches requests may not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from niah.runs.tables import Run
from niah.statistics.comparisons import Comparison, load_repeats
from niah.statistics.intervals import BASELINE_FLOOR, Recall, Tax, estimate_recall
from niah.text_format import counted, points


class Noise(NamedTuple):
    """A repeat arm against its baseline.

    `tax`: lost and gained pairs, with the interval of their difference; None where undefined.
    `discordance`: share of the complete pairs on which the two disagree, with its interval.
    """

    arm: str
    baseline: str
    tax: Tax | None
    discordance: Recall


def noise_floor(run: Run, floor: float = BASELINE_FLOOR) -> list[Noise]:
    """The noise of every repeat arm of a run; empty where it has none."""
    return [noise_of(repeat.against) for repeat in load_repeats(run, floor)]


def noise_floors(runs: Sequence[Run], floor: float = BASELINE_FLOOR) -> list[Noise]:
    """The noise of all runs; arms are called RUN/ARM where there are several runs."""
    if len(runs) == 1:
        return noise_floor(runs[0], floor)
    return [
        noise._replace(arm=f"{run.name}/{noise.arm}", baseline=f"{run.name}/{noise.baseline}")
        for run in runs
        for noise in noise_floor(run, floor)
    ]


def noise_of(against: Comparison) -> Noise:
    """The noise of a repeat arm set against its baseline. An error disagrees with an answer."""
    pairs = against.complete
    failed = pairs["baseline_failed"] | pairs["compressed_failed"]
    differs = (pairs["baseline"] != pairs["compressed"]) | failed
    share = estimate_recall(differs.to_numpy(), pairs["stream_id"].to_numpy(), int(failed.sum()))
    return Noise(against.compressed, against.baseline, against.tax, share)


def explained_by(comparison: Comparison, noises: Sequence[Noise]) -> list[Noise]:
    """The repeat arms that differ from the baseline at least as often as the tax is large."""
    tax = comparison.tax
    if tax is None or not tax.value:
        return []
    return [
        noise
        for noise in noises
        if noise.baseline == comparison.baseline and abs(tax.value) <= noise.discordance.value
    ]


def noise_text(noise: Noise) -> str:
    """How far a repeat arm differs from the baseline."""
    share, (low, high) = noise.discordance, noise.discordance.interval
    text = (
        f"{noise.arm} repeats {noise.baseline} and differs from it on {share.correct:,} of "
        f"{counted(share.asked, 'question')} ({points(share.value)}%, 95%: {points(low)} to "
        f"{points(high)})"
    )
    if noise.tax is None:
        return text
    low, high = noise.tax.interval
    return (
        f"{text}; {noise.tax.lost:,} lost and {noise.tax.gained:,} gained, "
        f"{points(noise.tax.value)} points (95%: {points(low)} to {points(high)})"
    )
