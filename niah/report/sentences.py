"""The sentences that sum up a comparison, and several comparisons.

A tax is called a loss or a gain only where its interval says so. An arm against itself in another
run is told apart from what compression costs.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from niah.statistics.columns import EXACT
from niah.statistics.comparisons import Comparison, few_streams_text
from niah.statistics.intervals import Tax
from niah.statistics.noise import Noise, explained_by
from niah.text_format import counted, length_text, points

NO_BREAK = "\N{NO-BREAK SPACE}"
MAX_TOLD_APART = 4  # comparisons that have a sentence each


def headline(
    comparison: Comparison,
    rows: pd.DataFrame,
    noises: Sequence[Noise] = (),
    left_out: bool = True,
) -> str:
    """The tax with its interval and the saving; then, if asked for, what the tax leaves out.

    A tax that the noise floor explains is neither a loss nor a gain.
    """
    if of_two_runs(comparison, rows):
        sentence = _run_sentence(comparison)
    else:
        sentence = _tax_sentence(comparison, _keeps(comparison, rows), noises)
    left = _left_out_sentence(comparison) if left_out else ""
    return f"{sentence} {left}".rstrip()


def summed_up(
    comparisons: Sequence[Comparison], rows: pd.DataFrame, noises: Sequence[Noise] = ()
) -> list[str]:
    """What stands under a title: a sentence of each comparison, or, of more than MAX_TOLD_APART,
    one of those that show a loss, one of those that show a gain, one of those that show neither."""
    together: dict[object, list[Comparison]] = {}
    for number, comparison in enumerate(comparisons):
        outcome = "" if of_two_runs(comparison, rows) else _outcome(comparison, noises)
        apart = len(comparisons) <= MAX_TOLD_APART or not outcome
        alike = number if apart else (outcome, comparison.baseline, _where(comparison))
        together.setdefault(alike, []).append(comparison)
    return [
        headline(found[0], rows, noises, left_out=False)
        if len(found) == 1
        else _several_sentence(found, _outcome(found[0], noises))
        for found in together.values()
    ]


def of_two_runs(comparison: Comparison, rows: pd.DataFrame) -> bool:
    """Whether an arm is set against itself in another run, which is no question of compression."""
    roles = rows.drop_duplicates("arm").set_index("arm")["role"]
    return bool(roles[comparison.baseline] == roles[comparison.compressed])


def saving(rows: pd.DataFrame, comparison: Comparison) -> tuple[float, float] | None:
    """(length, share of the baseline's bytes held there): the longest length at which the tax is
    defined and both arms were measured; None where there is none."""
    arms = (comparison.baseline, comparison.compressed)
    sides = [rows[(rows["arm"] == arm) & (rows["bytes_total"] > 0)] for arm in arms]
    means = [side.groupby("at_length")["bytes_total"].mean() for side in sides]
    both = means[0].index.intersection(means[1].index)
    if comparison.tax:
        both = both.intersection(comparison.answerable["at_length"])
    if not len(both):
        return None
    return float(both.max()), float(means[1][both.max()] / means[0][both.max()])


def _tax_sentence(comparison: Comparison, keeps: str, noises: Sequence[Noise]) -> str:
    tax, name = comparison.tax, comparison.compressed
    if tax is None:
        recall = points(float(comparison.complete["baseline"].mean()))
        kept = f" {name} {keeps}." if keeps else ""
        return (
            f"The tax of {name} is undefined: its baseline, {comparison.baseline}, "
            f"recalls only {recall}% itself.{kept}"
        )
    low, high = tax.interval
    where, span = _where(comparison), f"95%: {points(low)} to {points(high)}"
    also = f" and {keeps}" if keeps else ""
    kept = f" {name} {keeps}." if keeps else ""
    if not tax.decidable:
        return f"{where} {_undecided(tax, name)}{kept}"
    if (tax.shows_loss or tax.shows_gain) and (repeats := explained_by(comparison, noises)):
        noise = max(repeats, key=lambda repeat: repeat.discordance.value)
        return (
            f"{where} the tax of {name}, {points(tax.value)} points ({span}), is no larger than "
            f"the noise floor: {noise.arm}, the baseline asked once more, differs from it on "
            f"{points(noise.discordance.value)}% of the questions.{kept}"
        )
    if tax.shows_loss:
        return f"{where} {name} loses {points(tax.value)} points of recall ({span}){also}."
    if tax.shows_gain:
        return f"{where} {name} recalls {points(-tax.value)} points more (tax {span}){also}."
    return (
        f"{where} no difference in recall between {name} and {comparison.baseline} is shown: "
        f"the tax is {points(tax.value)} points, and anything from {points(low)} to "
        f"{points(high)} fits {counted(tax.pairs, 'paired question')}.{kept}"
    )


def _outcome(comparison: Comparison, noises: Sequence[Noise]) -> str:
    """Loss, gain or neither; empty where the tax has to be told in a sentence of its own."""
    tax = comparison.tax
    if tax is None or not tax.decidable:
        return ""
    if not (tax.shows_loss or tax.shows_gain):
        return "neither"
    if explained_by(comparison, noises):
        return ""
    return "loss" if tax.shows_loss else "gain"


def _several_sentence(comparisons: Sequence[Comparison], outcome: str) -> str:
    """Comparisons of one outcome with one baseline, the smallest figure first."""
    where, baseline = _where(comparisons[0]), comparisons[0].baseline
    figures = []
    for comparison in comparisons:
        if tax := comparison.tax:
            figure = {"loss": tax.value, "gain": -tax.value, "neither": tax.interval.high}[outcome]
            figures.append((figure, comparison.compressed))
    listed = ", ".join(f"{name}{NO_BREAK}{points(figure)}" for figure, name in sorted(figures))
    count = f"{len(figures):,} arms"
    if outcome == "loss":
        return f"{where} {count} lose recall against {baseline}, in points: {listed}."
    if outcome == "gain":
        return f"{where} {count} recall more than {baseline}, in points: {listed}."
    return (
        f"{where} no difference in recall from {baseline} is shown for {count}. "
        f"The largest loss that fits, in points: {listed}."
    )


def _run_sentence(comparison: Comparison) -> str:
    """The difference of an arm from itself in another run; nothing is lost by compression here."""
    tax, name, other = comparison.tax, comparison.compressed, comparison.baseline
    if tax is None:
        recall = points(float(comparison.complete["baseline"].mean()))
        return f"{name} cannot be set against {other}, which recalls only {recall}%."
    low, high = tax.interval
    if not tax.decidable:
        return f"{_where(comparison)} {_undecided(tax, name)}"
    if tax.shows_loss:
        shown, span = f"{points(tax.value)} points less", f"{points(low)} to {points(high)}"
    elif tax.shows_gain:
        shown, span = f"{points(-tax.value)} points more", f"{points(-high)} to {points(-low)}"
    else:
        return (
            f"{_where(comparison)} no difference in recall between {name} and {other} is shown: "
            f"anything from {points(high)} points less to {points(-low)} more fits "
            f"{counted(tax.pairs, 'paired question')}."
        )
    return f"{_where(comparison)} {name} recalls {shown} than {other} (95%: {span})."


def _undecided(tax: Tax, name: str) -> str:
    return (
        f"nothing is decided about {name}: the difference in recall is {points(tax.value)} points, "
        f"and {few_streams_text(tax)}."
    )


def _where(comparison: Comparison) -> str:
    """The lengths that the tax is of; those between them that it leaves out are named."""
    lengths = _lengths(comparison.answerable)
    low, high = min(lengths), max(lengths)
    if low == high:
        return f"At {length_text(low)} tokens"
    between = [n for n in _lengths(comparison.complete) if low < n < high and n not in lengths]
    without = f" (without {', '.join(map(length_text, between))})" if between else ""
    return f"Over {length_text(low)} to {length_text(high)} tokens{without}"


def _lengths(pairs: pd.DataFrame) -> list[float]:
    column = EXACT["at_length"] if EXACT["at_length"] in pairs else "at_length"
    return sorted(set(pairs[column]))


def _keeps(comparison: Comparison, rows: pd.DataFrame) -> str:
    found = saving(rows, comparison)
    if found is None:
        return ""
    length, share = found
    digits = 0 if share >= 0.1 else 1
    return f"keeps {100 * share:.{digits}f}% of the cache bytes at {length_text(length)}"


def _left_out_sentence(comparison: Comparison) -> str:
    if not comparison.left_out or comparison.tax is None:
        return ""
    out = len(comparison.complete) - len(comparison.answerable)
    return (
        f"Left out are {out:,} of {counted(len(comparison.complete), 'question')}, of a kind that "
        f"{comparison.baseline} itself does not answer."
    )


def overall(
    comparisons: Sequence[Comparison], rows: pd.DataFrame, noises: Sequence[Noise] = ()
) -> str:
    """Several comparisons in a title: what is shown of compressed arms, then of arms against
    themselves in another run. Each has a sentence of its own below it."""
    runs = [found for found in comparisons if of_two_runs(found, rows)]
    arms = [found for found in comparisons if not of_two_runs(found, rows)]
    return " ".join(f"{said}." for said in (_of_arms(arms, noises), _of_runs(runs)) if said)


def _of_arms(comparisons: Sequence[Comparison], noises: Sequence[Noise]) -> str:
    """How many compressed arms are shown to lose recall, and by how much; then how many gain."""
    count, taxes = len(comparisons), _taxes(comparisons)
    if not taxes:
        return f"No tax is defined in {counted(count, 'comparison')}" if count else ""
    told = _taxes([found for found in comparisons if not explained_by(found, noises)])
    lost = [(tax.value, *tax.interval) for tax in told if tax.shows_loss]
    gained = [(-tax.value, -tax.interval.high, -tax.interval.low) for tax in told if tax.shows_gain]
    if lost:
        parts = [f"{_subject(len(lost), count)} recall: {_range(lost)}"]
    else:
        parts = [f"No loss is shown in {_any(count)}"]
    if gained:
        parts.append(f"{len(gained):,} recall{'s' * (len(gained) == 1)} more: {_range(gained)}")
    return "; ".join([*parts, *_few_streams(taxes), *_undefined(count - len(taxes))])


def _of_runs(comparisons: Sequence[Comparison]) -> str:
    """How many arms answer differently in another run."""
    count, taxes = len(comparisons), _taxes(comparisons)
    differ = sum(tax.shows_loss or tax.shows_gain for tax in taxes)
    if not count:
        return ""
    shown = f"in {differ:,} of {count:,} comparisons" if differ else f"in {_any(count)}"
    said = f"{'A' if differ else 'No'} difference between runs is shown {shown}"
    return "; ".join([said, *_few_streams(taxes), *_undefined(count - len(taxes))])


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


def _few_streams(taxes: Sequence[Tax]) -> list[str]:
    """Comparisons with too few streams to show either."""
    number = sum(not tax.decidable for tax in taxes)
    return [f"{number:,} {'has' if number == 1 else 'have'} too few streams"] if number else []


def _undefined(number: int) -> list[str]:
    """Comparisons without a tax: they show neither a loss nor that there is none."""
    return [f"{number:,} {'is' if number == 1 else 'are'} undefined"] if number else []
