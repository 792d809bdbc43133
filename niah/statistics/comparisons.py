"""Which arms are set against each other, on which axes, and which pairs count in a tax.

Turns runs into comparisons: labels of arms, shared axes, and the floor below which a baseline has
too little to lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from niah.runs.tables import ResultsError, Run, load_runs, pair_arms
from niah.statistics.columns import EXACT, GROUP, SLICES, axis_labels, slice_text
from niah.statistics.intervals import BASELINE_FLOOR, Tax, holm, tax_of
from niah.text_format import counted, percent

MAX_TICKS = 16  # values an axis shows one by one before they are put in bins
MAX_NAMED = 6  # groups that a sentence lists before it counts the rest


@dataclass(frozen=True)
class Comparison:
    """Two arms on the same questions. `pairs` is made by `niah.runs.tables.pair_arms`: every
    question, asked or planned, with every row on the axes.

    The floor: where the baseline recalls less than `floor` of a group of questions (one
    family, length, text and kind of templates), there is little to lose. Such pairs would thin
    out the tax of whatever they are pooled with, and count in none.
    """

    title: str
    baseline: str
    compressed: str
    pairs: pd.DataFrame
    floor: float = BASELINE_FLOOR

    @cached_property
    def complete(self) -> pd.DataFrame:
        """The pairs that were put to both arms."""
        return self.pairs[~self.pairs["incomplete"]]

    @cached_property
    def answerable(self) -> pd.DataFrame:
        """The complete pairs of the groups of which the baseline recalls the floor or more."""
        return self.complete[self._reaches_floor(self.complete, self.complete["baseline"])]

    @cached_property
    def perhaps_answerable(self) -> pd.DataFrame:
        """What `answerable` may become once every error and missing answer is there."""
        recalled = self.pairs["baseline"] | self.pairs["baseline_failed"]
        return self.pairs[self._reaches_floor(self.pairs, recalled)]

    @cached_property
    def surely_answerable(self) -> pd.DataFrame:
        """What is in `answerable` however errors and missing answers turn out."""
        recalled = self.pairs["baseline"] & ~self.pairs["baseline_failed"]
        return self.pairs[self._reaches_floor(self.pairs, recalled)]

    def _reaches_floor(self, pairs: pd.DataFrame, recalled: pd.Series) -> pd.Series:
        groups = pairs.assign(recalled=recalled).groupby(GROUP, dropna=False)
        return groups["recalled"].transform("mean") >= self.floor

    @cached_property
    def left_out(self) -> list[tuple[str, float, str, str]]:
        """The groups (family, length, corpus, templates) for which the tax is undefined."""
        out = self.complete.drop(self.answerable.index)
        return sorted(set(out[GROUP].itertuples(index=False, name=None)))

    @cached_property
    def tax(self) -> Tax | None:
        """Overall, where it is defined; None where the baseline recalls too little anywhere."""
        return tax_of(self.answerable, self.floor) if len(self.answerable) else None

    def slices(self, column: str) -> dict[object, Tax]:
        """The tax by each value of a column, in sorted order."""
        groups = self.complete.groupby(column, sort=True)
        return {value: self.tax_within(group) for value, group in groups}

    def tax_within(self, pairs: pd.DataFrame) -> Tax:
        """The tax of those of `pairs` that are answerable; if none is, an undefined one of all."""
        found = pairs[pairs.index.isin(self.answerable.index)]
        if len(found):
            return tax_of(found, self.floor)
        complete = pairs[~pairs["incomplete"]]
        return tax_of(complete if len(complete) else pairs, self.floor, answerable=False)


class Repeat(NamedTuple):
    """An arm that is the baseline once more.

    `against`: it, in the place of a compressed arm, against the baseline. `instead`: every
    compressed arm against it, in the place of the baseline, by the compressed arm's name.
    """

    arm: str
    against: Comparison
    instead: Mapping[str, Comparison]


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
    rows, planned = _on_axes(runs)
    return rows, list(_paired(rows, planned, _matches(rows, names), floor))


def changed_at_question(rows: pd.DataFrame, floor: float = BASELINE_FLOOR) -> Iterator[Comparison]:
    """The arms that change when the question begins, each against the arm that does not."""
    changed = rows.loc[rows["intact"] != "", ["intact", "arm"]].drop_duplicates()
    for intact, arm in changed.itertuples(index=False):
        pairs = pair_arms(rows, intact, arm)
        if not pairs["incomplete"].all():
            yield Comparison(f"{arm} against {intact}", intact, arm, pairs, floor)


def compare(folders: Sequence[Path], floor: float = BASELINE_FLOOR) -> list[Comparison]:
    """Every comparison that the runs in `folders` allow, as `load_comparisons` pairs them.

    Raises:
        NiahError: a folder without a readable run, or a floor that is no share.
    """
    return load_comparisons(load_runs(folders), floor)[1]


def load_repeats(run: Run, floor: float = BASELINE_FLOOR) -> list[Repeat]:
    """The arms of role `repeat` of a run, each set against its baseline and in its place."""
    rows, planned = _on_axes([run])
    found = []
    for arm in run.repeats:
        matches = [(f"{arm} against {other}", other, arm) for other in run.baselines]
        matches += [(f"{other} against {arm}", arm, other) for other in run.compressed]
        against, *instead = _paired(rows, planned, matches, floor) if run.baselines else (None,)
        if against is not None and against.compressed == arm:
            found.append(Repeat(arm, against, {of.compressed: of for of in instead}))
    return found


def _on_axes(runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of all runs, and the questions they planned, with places on shared axes."""
    rows = pd.concat([_labelled(run, alone=len(runs) == 1) for run in runs], ignore_index=True)
    planned = pd.concat([run.planned.assign(run=run.name) for run in runs], ignore_index=True)
    for axis in ("at_length", "at_depth"):
        asked = pd.concat([frame[axis] for frame in (rows, planned) if len(frame)])
        placed = axis_values(asked, axis)
        rows[axis] = placed.iloc[: len(rows)]
        if len(planned):
            planned[axis] = placed.iloc[len(rows) :]
    return rows, planned


def _paired(
    rows: pd.DataFrame,
    planned: pd.DataFrame,
    matches: Iterable[tuple[str, str, str]],
    floor: float,
) -> Iterator[Comparison]:
    """The comparisons of the (title, baseline, compressed) that were asked the same questions."""
    for title, baseline, compressed in matches:
        asking = rows.loc[rows["arm"].isin([baseline, compressed]), "run"].unique()
        pairs = pair_arms(rows, baseline, compressed, planned[planned["run"].isin(asking)])
        if not pairs["incomplete"].all():
            yield Comparison(title, baseline, compressed, pairs, floor)


def axis_values(values: pd.Series, kind: str) -> pd.Series:
    """Values as bins to draw by: themselves if few, else powers of two (lengths) or tenths."""
    if values.nunique() <= MAX_TICKS:
        return values
    if kind == "at_length":
        return 2 ** np.floor(np.log2(values) + 1e-9)
    return np.floor(values * 10 + 0.5) / 10


def slice_rows(comparison: Comparison) -> list[Slice]:
    """The tax of every slice with more than one value to it, adjusted for looking at them all."""
    found = [
        (SLICES[column], value, tax)
        for column in SLICES
        for value, tax in _named(comparison, column)
    ]
    defined = {f"{what} {value}": tax.p_difference for what, value, tax in found if tax.defined}
    adjusted = holm(defined)
    return [
        Slice(what, value, tax, adjusted.get(f"{what} {value}", 1.0)) for what, value, tax in found
    ]


def left_out_text(comparison: Comparison) -> str:
    """How many pairs the tax leaves out, of which groups and why; empty if none."""
    pairs, left_out = comparison.complete, comparison.left_out
    if not left_out:
        return ""
    named = [c for c in GROUP if c in ("family", "at_length") or pairs[c].nunique() > 1]
    groups = list(
        dict.fromkeys(
            ", ".join(slice_text(c, v) for c, v in zip(GROUP, group, strict=True) if c in named)
            for group in left_out
        )
    )
    rest = f"; and {len(groups) - MAX_NAMED} more" if len(groups) > MAX_NAMED else ""
    return (
        f"{len(pairs) - len(comparison.answerable):,} of {len(pairs):,} pairs are left out of the "
        f"tax, because the baseline recalls less than {percent(comparison.floor)} of their like "
        f"({'; '.join(groups[:MAX_NAMED])}{rest})"
    )


def few_streams_text(tax: Tax) -> str:
    """Why nothing is decided where a tax is not decidable."""
    if tax.streams == 1:
        return "all questions share one stream, where 3 are needed"
    return (
        f"the questions sit in {tax.streams} streams whose sizes make them worth "
        f"{tax.freedom + 1:.1f}, where 3 are needed"
    )


def undecidable_text(comparison: Comparison) -> str:
    """What can show nothing because its streams are too few; empty where everything can."""
    tax = comparison.tax
    if tax is not None and not tax.decidable:
        return (
            f"{few_streams_text(tax)}: nothing is decided and nothing is bold. "
            "Use repeats: 3 or more, and streams of like sizes."
        )
    few = [
        f"{SLICES[column]} {name}"
        for column in SLICES
        for name, found in _named(comparison, column)
        if found.defined and not found.decidable
    ]
    if not few:
        return ""
    rest = f"; and {len(few) - MAX_NAMED} more" if len(few) > MAX_NAMED else ""
    return (
        f"too few streams to decide anything in {counted(len(few), 'slice')} "
        f"({'; '.join(few[:MAX_NAMED])}{rest})."
    )


def _labelled(run: Run, alone: bool) -> pd.DataFrame:
    rows = run.rows.assign(run=run.name)
    if not alone:
        for name in ("arm", "intact"):
            rows[name] = (run.name + "/" + rows[name]).where(rows[name] != "", "")
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
    later = arms[(arms["run"] != names[0]) & (arms["role"] != "repeat")]
    for arm, run in later[["arm", "run"]].itertuples(index=False):
        before = f"{names[0]}/{arm.removeprefix(f'{run}/')}"
        if before in known:
            yield f"{arm} against {before}", before, arm


def _named(comparison: Comparison, column: str) -> list[tuple[str, Tax]]:
    """Slices by what a reader calls them; none where there is only one."""
    slices = comparison.slices(column)
    found = axis_labels(comparison.complete, column) if column in EXACT else {}
    labels: Mapping[object, str] = dict(found.items())
    named = [(labels.get(value, slice_text(column, value)), tax) for value, tax in slices.items()]
    return named if len(named) > 1 else []
