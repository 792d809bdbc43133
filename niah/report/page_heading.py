"""The title of a page about several comparisons: what they show between them.

Owns what is counted there: a loss or a gain only where the interval says so, and an arm against
itself in another run apart from what compression costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from niah.report.headline import of_two_runs
from niah.statistics.comparisons import Comparison
from niah.statistics.intervals import Tax
from niah.text_format import counted, points


def overall(comparisons: Sequence[Comparison], rows: pd.DataFrame) -> str:
    """Several comparisons in a title: what is shown of compressed arms, then of arms against
    themselves in another run. Each has a sentence of its own below it."""
    runs = [found for found in comparisons if of_two_runs(found, rows)]
    arms = [found for found in comparisons if not of_two_runs(found, rows)]
    return " ".join(f"{said}." for said in (_of_arms(arms), _of_runs(runs)) if said)


def _of_arms(comparisons: Sequence[Comparison]) -> str:
    """How many compressed arms are shown to lose recall, and by how much; then how many gain."""
    count, taxes = len(comparisons), _taxes(comparisons)
    if not taxes:
        return f"No tax is defined in {counted(count, 'comparison')}" if count else ""
    lost = [(tax.value, *tax.interval) for tax in taxes if tax.shows_loss]
    gained = [
        (-tax.value, -tax.interval.high, -tax.interval.low) for tax in taxes if tax.shows_gain
    ]
    if lost:
        parts = [f"{_subject(len(lost), count)} recall: {_range(lost)}"]
    else:
        parts = [f"No loss is shown in {_any(count)}"]
    if gained:
        parts.append(f"{len(gained):,} recall{'s' * (len(gained) == 1)} more: {_range(gained)}")
    return "; ".join([*parts, *_undecided(taxes), *_undefined(count - len(taxes))])


def _of_runs(comparisons: Sequence[Comparison]) -> str:
    """How many arms answer differently in another run."""
    count, taxes = len(comparisons), _taxes(comparisons)
    differ = sum(tax.shows_loss or tax.shows_gain for tax in taxes)
    if not count:
        return ""
    shown = f"in {differ:,} of {count:,} comparisons" if differ else f"in {_any(count)}"
    said = f"{'A' if differ else 'No'} difference between runs is shown {shown}"
    return "; ".join([said, *_undecided(taxes), *_undefined(count - len(taxes))])


def _taxes(comparisons: Sequence[Comparison]) -> list[Tax]:
    return [comparison.tax for comparison in comparisons if comparison.tax]


def _subject(number: int, count: int) -> str:
    """1 of 3 compressed arms loses; all 3 compressed arms lose."""
    if count == 1:
        return "The compressed arm loses"
    if number == count:
        return f"{'Both' if count == 2 else f'All {count:,}'} compressed arms lose"
    return f"{number:,} of {count:,} compressed arms lose{'s' * (number == 1)}"


def _range(found: Sequence[tuple[float, float, float]]) -> str:
    """Of (value, low, high): one with its interval, several from the least to the most."""
    if len(found) == 1:
        value, low, high = map(points, found[0])
        return f"{value} points (95%: {low} to {high})"
    values = [value for value, _, _ in found]
    least, most = points(min(values)), points(max(values))
    return f"{least} points each" if least == most else f"{least} to {most} points"


def _any(count: int) -> str:
    return "1 comparison" if count == 1 else f"any of {count:,} comparisons"


def _undecided(taxes: Sequence[Tax]) -> list[str]:
    """Comparisons with too few streams to show either."""
    number = sum(not tax.decidable for tax in taxes)
    return [f"{number:,} {'has' if number == 1 else 'have'} too few streams"] if number else []


def _undefined(number: int) -> list[str]:
    """Comparisons without a tax: they show neither a loss nor that there is none."""
    return [f"{number:,} {'is' if number == 1 else 'are'} undefined"] if number else []
