"""Which arms are set against each other, on which axes, and the sentence that sums it up.

Owns the step from runs to comparisons: labels, shared axes, the ceiling rule, the headline.
Knows results and statistics; nothing about HTML, colours or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from niah.results import ResultsError, Run, pair_arms
from niah.stats import BASELINE_FLOOR, Tax, holm, tax_by, tax_of
from niah.wording import length_text, points, slice_text

MAX_TICKS = 16  # values an axis shows one by one before they are put in bins
SLICES = {
    "at_length": "Length",
    "at_depth": "Depth",
    "family": "Needle family",
    "corpus": "Haystack",
    "template_split": "Sentence templates",
}


@dataclass(frozen=True)
class Comparison:
    """Two arms on the same questions. `pairs` is `results.pair_arms` with every row on the axes."""

    title: str
    baseline: str
    compressed: str
    pairs: pd.DataFrame
    floor: float = BASELINE_FLOOR

    @cached_property
    def answerable(self) -> pd.DataFrame:
        """The pairs of every family and length at which the baseline's recall reaches the floor.

        Elsewhere there is little to lose; counting such pairs would thin out the tax.
        """
        recall = self.pairs.groupby(["family", "at_length"])["baseline"].transform("mean")
        return self.pairs[recall >= self.floor]

    @cached_property
    def left_out(self) -> list[tuple[str, float]]:
        """The (family, length) for which the tax is undefined."""
        out = self.pairs.drop(self.answerable.index)
        return sorted(set(zip(out["family"], out["at_length"], strict=True)))

    @cached_property
    def tax(self) -> Tax | None:
        """Overall, where it is defined; None where the baseline recalls too little anywhere."""
        return tax_of(self.answerable, self.floor) if len(self.answerable) else None

    def slices(self, column: str) -> dict[object, Tax]:
        return tax_by(self.pairs, column, self.floor)


class Slice(NamedTuple):
    """The tax of the questions that share one value; `p_holm` is two-sided and adjusted."""

    what: str
    value: str
    tax: Tax
    p_holm: float


def load_comparisons(
    runs: Sequence[Run], floor: float = BASELINE_FLOOR
) -> tuple[pd.DataFrame, list[Comparison]]:
    """All rows under labels unique over the runs, and every comparison that they allow.

    Each compressed arm meets the baseline of its run, or of an earlier run that was asked the
    same questions; then each arm of a later run meets the first run's arm of the same name.

    Raises:
        ResultsError: a floor that is no share, or two folders of one name, since their arms could
            not be told apart.
    """
    if not 0 <= floor <= 1:
        raise ResultsError(f"floor is {floor}; a share from 0 to 1 is needed (0.5 is 50%)")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ResultsError(f"folders to compare should have different names, not {names}")
    rows = pd.concat([_labelled(run, alone=len(runs) == 1) for run in runs], ignore_index=True)
    for axis in ("at_length", "at_depth"):
        rows[axis] = axis_values(rows[axis], axis)
    found = []
    for title, baseline, compressed in _matches(rows, names):
        pairs = pair_arms(rows, baseline, compressed)
        if len(pairs) and not pairs["incomplete"].all():
            found.append(Comparison(title, baseline, compressed, pairs, floor))
    return rows, found


def axis_values(values: pd.Series, kind: str) -> pd.Series:
    """Values as bins to draw by: themselves if few, else powers of two (lengths) or tenths."""
    if values.nunique() <= MAX_TICKS:
        return values
    if kind == "at_length":
        return 2 ** np.floor(np.log2(values) + 1e-9)
    return values.round(1)


def slice_rows(comparison: Comparison) -> list[Slice]:
    """The tax of every slice with more than one value to it, adjusted for looking at them all."""
    found = [
        (SLICES[column], slice_text(column, value), tax)
        for column in SLICES
        for value, tax in _several(comparison.slices(column))
    ]
    defined = {f"{what} {value}": tax.p_difference for what, value, tax in found if tax.defined}
    adjusted = holm(defined)
    return [
        Slice(what, value, tax, adjusted.get(f"{what} {value}", 1.0)) for what, value, tax in found
    ]


def headline(comparison: Comparison, rows: pd.DataFrame) -> str:
    """One sentence or two: the tax with its interval, and what the cache saves."""
    return f"{_tax_sentence(comparison)} {_saving_sentence(comparison, rows)}".strip()


def saving(rows: pd.DataFrame, baseline: str, compressed: str) -> tuple[float, float] | None:
    """(longest length both arms reached, share of the baseline's bytes held there), if measured."""
    sides = [
        rows[(rows["arm"] == arm) & (rows["bytes_total"] > 0)] for arm in (baseline, compressed)
    ]
    means = [side.groupby("at_length")["bytes_total"].mean() for side in sides]
    both = means[0].index.intersection(means[1].index)
    if not len(both):
        return None
    return float(both.max()), float(means[1][both.max()] / means[0][both.max()])


def _tax_sentence(comparison: Comparison) -> str:
    tax, name = comparison.tax, comparison.compressed
    if tax is None:
        recall = points(float(comparison.pairs["baseline"].mean()))
        return (
            f"The tax of {name} is undefined: its baseline, {comparison.baseline}, "
            f"recalls only {recall}% itself."
        )
    low, high = tax.interval
    where = _where(comparison)
    span = f"95%: {points(low)} to {points(high)}"
    if low > 0:
        return f"{where}, {name} loses {points(tax.value)} points of recall ({span})."
    if high < 0:
        return f"{where}, {name} recalls {points(-tax.value)} points more (tax {span})."
    return (
        f"{where}, no difference in recall between {name} and {comparison.baseline} is shown: "
        f"the tax is {points(tax.value)} points, and anything from {points(low)} to "
        f"{points(high)} fits the {tax.pairs:,} paired questions."
    )


def _where(comparison: Comparison) -> str:
    lengths = sorted(set(comparison.answerable["at_length"]))
    if len(lengths) == 1:
        return f"At {length_text(lengths[0])} tokens"
    return f"Over {length_text(lengths[0])} to {length_text(lengths[-1])} tokens"


def _saving_sentence(comparison: Comparison, rows: pd.DataFrame) -> str:
    found = saving(rows, comparison.baseline, comparison.compressed)
    if found is None:
        return ""
    length, share = found
    digits = 0 if share >= 0.1 else 1
    return (
        f"At {length_text(length)} tokens {comparison.compressed} keeps "
        f"{100 * share:.{digits}f}% of the cache bytes."
    )


def _labelled(run: Run, alone: bool) -> pd.DataFrame:
    rows = run.rows.assign(run=run.name)
    if not alone:
        rows["arm"] = run.name + "/" + rows["arm"]
    return rows


def _matches(rows: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(title, baseline, compressed) worth trying."""
    arms = rows[["run", "arm", "role"]].drop_duplicates()
    baselines = arms[arms["role"] == "baseline"]
    for run, arm in arms.loc[arms["role"] == "compressed", ["run", "arm"]].itertuples(index=False):
        own = baselines[baselines["run"] == run]
        choice = (own if len(own) else baselines)["arm"].head(1)
        yield from ((f"{arm} against {other}", other, arm) for other in choice)
    known = set(arms["arm"])
    for arm, run in arms.loc[arms["run"] != names[0], ["arm", "run"]].itertuples(index=False):
        before = f"{names[0]}/{arm.removeprefix(f'{run}/')}"
        if before in known:
            yield f"{arm} against {before}", before, arm


def _several(slices: dict[object, Tax]) -> list[tuple[object, Tax]]:
    return list(slices.items()) if len(slices) > 1 else []
