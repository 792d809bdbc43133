"""The sentence that sums a comparison up, and what its cache saves.

Owns how a tax is said: as a loss only where one is shown, at the lengths it is of, with the saving
at the longest of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from niah.axes import EXACT
from niah.compare import Comparison
from niah.wording import counted, length_text, points


def headline(comparison: Comparison, rows: pd.DataFrame) -> str:
    """The tax with its interval and the saving, then what it leaves out."""
    sentences = (
        _tax_sentence(comparison, _keeps(comparison, rows)),
        _left_out_sentence(comparison),
    )
    return " ".join(filter(None, sentences))


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


def overall(comparisons: Sequence[Comparison]) -> str:
    """Several comparisons in a title; each has a sentence of its own below it."""
    taxes = [comparison.tax.value for comparison in comparisons if comparison.tax]
    count = f"{len(comparisons)} comparisons"
    if not taxes:
        return f"{count}, none with a tax: the baselines recall too little"
    low, high = points(min(taxes)), points(max(taxes))
    lost = low if low == high else f"between {low} and {high}"
    undefined = len(comparisons) - len(taxes)
    taxes_undefined = "1 tax" if undefined == 1 else f"{undefined:,} taxes"
    rest = f"; {taxes_undefined} undefined" if undefined else ""
    return f"{count}: {lost} points of recall lost{rest}"


def _tax_sentence(comparison: Comparison, keeps: str) -> str:
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
    if low > 0:
        return f"{where} {name} loses {points(tax.value)} points of recall ({span}){also}."
    if high < 0:
        return f"{where} {name} recalls {points(-tax.value)} points more (tax {span}){also}."
    kept = f" {name} {keeps}." if keeps else ""
    return (
        f"{where} no difference in recall between {name} and {comparison.baseline} is shown: "
        f"the tax is {points(tax.value)} points, and anything from {points(low)} to "
        f"{points(high)} fits {counted(tax.pairs, 'paired question')}.{kept}"
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
