"""The verdict on a run: is the recall lost shown to be within a margin, beyond it, or neither?

Makes the checks (over all pairs and by slice), decides each of them, and says what it would take to
decide the others. A verdict holds for every way in which errors and missing answers could have gone
(`niah.statistics.assignments`), and with every repeat arm in the place of the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from niah.errors import NiahError
from niah.gate.pairing import compare_runs
from niah.runs.tables import PHASES, Run, load_run
from niah.statistics.assignments import Bounds, bounds_within, worst_of
from niah.statistics.columns import SLICES, slice_text
from niah.statistics.comparisons import (
    Comparison,
    Repeat,
    few_streams_text,
    left_out_text,
    load_comparisons,
    load_repeats,
)
from niah.statistics.graded import Graded, graded_of
from niah.statistics.intervals import BASELINE_FLOOR, Tax, holm
from niah.statistics.noise import Noise, noise_of
from niah.statistics.power import ALPHA, streams_to_decide
from niah.statistics.saturation import saturated
from niah.text_format import percent, points

Verdict = Literal["pass", "fail", "inconclusive", "undefined"]
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "inconclusive": 3, "undefined": 3}
OVERALL = "overall"
DEFAULT_SLICES = ("at_length", "family", "corpus", *PHASES)  # phases where the sweep asks for them


class GateError(NiahError):
    """A gate that cannot be put to these runs."""


@dataclass(frozen=True)
class Check:
    """One test of the gate. `decides`: whether its verdict counts, or is for information.

    `tax` is of the questions put to both arms. `bounds` are of all that were planned, over every
    way in which errors and missing answers could have gone, against the baseline and every repeat
    arm; without those they are the p-values of `tax`.
    """

    comparison: str
    what: str
    value: str
    tax: Tax
    bounds: Bounds
    margin: float
    verdict: Verdict
    decides: bool
    reason: str
    more_pairs: int | None = None

    @property
    def name(self) -> str:
        return f"{self.what} {self.value}".strip()

    @property
    def errors_decide(self) -> bool:
        """Whether it is inconclusive for errors or missing answers, not for too few pairs."""
        return self.verdict == "inconclusive" and self.reason == _turn(self.bounds)


@dataclass(frozen=True)
class GateResult:
    """The checks, and the verdict that follows from those that decide.

    `noise` and `graded` are for information: the noise floor, and the log-probability of the gold
    answer by title of a comparison.
    """

    run: str
    against: str | None
    max_tax: float
    alpha: float
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    noise: tuple[Noise, ...] = ()
    graded: tuple[tuple[str, Graded], ...] = ()

    @property
    def verdict(self) -> Verdict:
        """One failure fails; a pass takes all."""
        found = {check.verdict for check in self.checks if check.decides}
        order: tuple[Verdict, ...] = ("fail", "inconclusive", "undefined")
        return next((verdict for verdict in order if verdict in found), "pass")

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 3 inconclusive (2 is a wrong call, which raises instead)."""
        return EXIT_CODES[self.verdict]


def run_gate(
    run: Path,
    against: Path | None,
    max_tax: float,
    *,
    arms: Sequence[str] = (),
    slices: Sequence[str] = DEFAULT_SLICES,
    require_slices: bool = False,
    max_slice_tax: float | None = None,
    alpha: float = ALPHA,
    floor: float = BASELINE_FLOOR,
) -> GateResult:
    """Put the gate to a run: its compressed arms to its baseline, or its arms to an earlier run's.

    Args:
        max_tax: margin, the recall that may be lost, as a share (0.02 is two points).
        arms: compressed arms to look at; all of them if empty.
        slices: columns of `columns.SLICES`. A slice can fail the gate (adjusted for the number of
            slices); it has to pass only with `require_slices`.
        max_slice_tax: margin of a slice; `max_tax` if None.
        alpha: one-sided chance of a wrong pass, and of a wrong failure.
        floor: baseline recall below which a tax is undefined; not used with `against`.

    Raises:
        NiahError: unreadable results, a margin out of range, nothing to compare, or runs that do
            not pair; the message says what differs.
    """
    _check("max_tax", max_tax, 0 <= max_tax < 1, "from 0 to less than 1 is needed (0.02 is 2%)")
    _check("alpha", alpha, 0 < alpha < 0.5, "above 0 and below 0.5 is needed (0.05 is 5%)")
    slice_tax = max_tax if max_slice_tax is None else max_slice_tax
    in_range = 0 <= slice_tax < 1
    _check("max_slice_tax", slice_tax, in_range, "from 0 to less than 1 is needed (0.05 is 5%)")
    loaded = load_run(run)
    comparisons, notes = _comparisons(loaded, against, floor)
    known = [comparison.compressed for comparison in comparisons]
    unknown = sorted(set(arms) - set(known))
    if unknown:
        raise GateError(f"arm {unknown[0]!r} is not in {run}; there is {', '.join(known)}")
    wanted = [found for found in comparisons if not arms or found.compressed in arms]
    repeats = load_repeats(loaded, floor)
    judged = repeats if against is None else []
    notes += [note for found in wanted for note in _notes(found)]
    notes += [found.text for found in saturated(loaded.rows)]
    signals = [(found.title, graded_of(found.complete)) for found in wanted]
    return GateResult(
        run=str(run),
        against=None if against is None else str(against),
        max_tax=max_tax,
        alpha=alpha,
        checks=decide(wanted, slices, (max_tax, slice_tax), alpha, require_slices, judged),
        notes=tuple(notes),
        noise=tuple(noise_of(repeat.against) for repeat in repeats),
        graded=tuple((title, found) for title, found in signals if found is not None),
    )


def decide(
    comparisons: Sequence[Comparison],
    slices: Sequence[str],
    margins: tuple[float, float],
    alpha: float,
    require_slices: bool = False,
    repeats: Sequence[Repeat] = (),
) -> tuple[Check, ...]:
    """Every check of every comparison; `margins` are those of all pairs and of a slice."""
    checks = [
        check
        for comparison in comparisons
        for check in _checks(comparison, slices, margins, alpha, require_slices, repeats)
    ]
    return tuple(_turnable(list(_adjusted(checks, alpha)), alpha))


def _comparisons(
    run: Run, against: Path | None, floor: float
) -> tuple[list[Comparison], list[str]]:
    if against is not None:
        # An earlier run that recalled little can still lose it: no floor here.
        return compare_runs(run, load_run(against))
    comparisons = load_comparisons([run], floor)[1]
    if not comparisons and run.baselines and run.incomplete:
        raise GateError(f"{run.path}: {run.incomplete}")
    if not comparisons:
        raise GateError(
            f"{run.path}: no baseline and compressed arm were asked the same questions; "
            "give an earlier run with --against, or a sweep with a baseline"
        )
    return comparisons, []


def _checks(
    comparison: Comparison,
    slices: Sequence[str],
    margins: tuple[float, float],
    alpha: float,
    require_slices: bool,
    repeats: Sequence[Repeat],
) -> Iterator[Check]:
    yield _judge(comparison, OVERALL, None, margins[0], alpha, True, repeats)
    for column in slices:
        if column not in SLICES:
            raise GateError(f"slice {column!r} is not one of {', '.join(SLICES)}")
        values = sorted(comparison.pairs[column].dropna().unique())
        for value in values if len(values) > 1 else []:
            yield _judge(comparison, column, value, margins[1], alpha, require_slices, repeats)


def _judge(
    comparison: Comparison,
    column: str,
    value: object,
    margin: float,
    alpha: float,
    decides: bool,
    repeats: Sequence[Repeat],
) -> Check:
    """A check before the failures of slices are adjusted for their number."""

    def of(wanted: Comparison) -> pd.DataFrame:
        pairs = wanted.pairs
        return pairs if column == OVERALL else pairs[pairs[column] == value]

    tax = comparison.tax_within(of(comparison))
    alone = bounds_within(comparison, of(comparison), margin)
    verdict, reason = _verdict(tax, alone, margin, alpha)
    instead = {
        repeat.arm: repeat.instead[comparison.compressed]
        for repeat in repeats
        if comparison.compressed in repeat.instead
    }
    bounds = {arm: bounds_within(found, of(found), margin) for arm, found in instead.items()}
    noise = {repeat.arm: repeat.against.tax_within(of(repeat.against)) for repeat in repeats}
    if verdict in ("pass", "fail"):
        explained = _explained(verdict, bounds, noise, margin, alpha)
        verdict, reason = ("inconclusive", explained) if explained else (verdict, reason)
    return Check(
        comparison=comparison.title,
        what=OVERALL if column == OVERALL else SLICES[column],
        value="" if column == OVERALL else slice_text(column, value),
        tax=tax,
        bounds=worst_of([alone, *bounds.values()])._replace(unanswered=alone.unanswered),
        margin=margin,
        verdict=verdict,
        decides=decides,
        reason=reason,
        more_pairs=_more_pairs(tax, margin, alpha) if verdict == "inconclusive" else None,
    )


def _verdict(tax: Tax, bounds: Bounds, margin: float, alpha: float) -> tuple[Verdict, str]:
    if not tax.defined and not (bounds.unanswered and bounds.ever_defined):
        return "undefined", (
            f"the baseline recalls only {points(tax.baseline)}%, below the floor of "
            f"{percent(tax.floor)}"
            if tax.baseline < tax.floor
            else f"the baseline recalls less than {percent(tax.floor)} of every kind of question"
        )
    if not bounds.always_defined:
        return "inconclusive", _turn(bounds)
    if not bounds.decidable:
        few = _turn(bounds) if tax.decidable else few_streams_text(tax)
        return "inconclusive", few if tax.decidable else f"{few}; sweep with repeats: 3 or more"
    if bounds.p_at_most < alpha:
        return "pass", f"at most {points(margin)} points lost"
    if bounds.p_above < alpha:
        return "fail", f"more than {points(margin)} points lost"
    if bounds.unanswered and (tax.p_at_most(margin) < alpha or tax.p_above(margin) < alpha):
        return "inconclusive", _turn(bounds)
    return "inconclusive", f"neither shown to be within {points(margin)} points nor beyond"


def _turn(bounds: Bounds) -> str:
    return f"{bounds.unanswered:,} errors or missing answers could turn the verdict"


def _explained(
    verdict: Verdict,
    instead: Mapping[str, Bounds],
    noise: Mapping[str, Tax],
    margin: float,
    alpha: float,
) -> str:
    """Why the noise floor explains a verdict; empty where it does not.

    It does where the verdict is not the same with a repeat arm in the baseline's place. It also
    explains a pass where the baseline itself, asked once more, differs by more than the margin.
    """
    for arm, bounds in instead.items():
        p_value = bounds.p_at_most if verdict == "pass" else bounds.p_above
        if not bounds.always_defined or p_value >= alpha:
            return (
                f"the noise floor explains it: against {arm}, the baseline once more, no {verdict}"
            )
    for arm, tax in noise.items() if verdict == "pass" else ():
        if min(tax.p_above(margin), tax.p_at_most(-margin)) < alpha:
            return (
                f"the noise floor is above the margin: {arm}, the baseline once more, differs from "
                f"it by {points(abs(tax.value))} points"
            )
    return ""


def _adjusted(checks: Sequence[Check], alpha: float) -> Iterator[Check]:
    """Failures survive only if they hold for the number of tests made (Holm).

    The overall tests (one an arm) and the slices are two families: overall keeps its power
    however many slices are looked at. Passes need no adjustment: all deciding checks must pass.
    A check that errors may leave undefined counts as a test that shows nothing.
    """
    p_adjusted: dict[str, float] = {}
    for overall in (True, False):
        family = {
            str(number): check.bounds.p_above if check.bounds.always_defined else 1.0
            for number, check in enumerate(checks)
            if (check.what == OVERALL) is overall
            and check.bounds.ever_defined
            and check.bounds.decidable
        }
        p_adjusted |= holm(family)
    for number, check in enumerate(checks):
        if check.verdict != "fail":
            yield check
        elif p_adjusted[str(number)] < alpha:
            yield replace(check, decides=True)
        else:
            reason = f"beyond {points(check.margin)} points alone, not among all that were tested"
            yield replace(check, verdict="inconclusive", reason=reason)


def _turnable(checks: Sequence[Check], alpha: float) -> Iterator[Check]:
    """Slices that errors and missing answers could make fail decide: a pass must not hang on them.

    The smallest p-value of a family fails below alpha over the number of its tests, so that one
    that cannot get there makes nothing fail.
    """
    tests = sum(
        c.what != OVERALL and c.bounds.always_defined and c.bounds.decidable for c in checks
    )
    for check in checks:
        turnable = check.bounds.unanswered and check.bounds.least_p_above < alpha / max(1, tests)
        if check.what != OVERALL and not check.decides and check.verdict != "fail" and turnable:
            yield replace(check, verdict="inconclusive", decides=True, reason=_turn(check.bounds))
        else:
            yield check


def _more_pairs(tax: Tax, margin: float, alpha: float) -> int | None:
    """Pairs beyond these for a verdict in four of five such runs, if streams go on as seen.

    None as in `streams_to_decide`.
    """
    sizes = streams_to_decide(tax, margin, alpha)
    return sum(sizes) - tax.pairs if sizes else None


def _notes(comparison: Comparison) -> Iterator[str]:
    title, pairs, complete = comparison.title, comparison.pairs, comparison.complete
    if comparison.left_out:
        yield f"{title}: {left_out_text(comparison)}"
    whichever = "a verdict has to hold whichever way they would have gone"
    missing = len(pairs) - len(complete)
    if missing:
        yield (
            f"{title}: {missing:,} of {len(pairs):,} questions were not put to both arms; they are "
            f"not in the tax shown, but {whichever}"
        )
    failed = int((complete["baseline_failed"] | complete["compressed_failed"]).sum())
    if failed:
        yield (
            f"{title}: {failed:,} of {len(complete):,} pairs hold an error; they count as not "
            f"recalled, and {whichever}"
        )


def _check(name: str, value: float, right: bool, wanted: str) -> None:
    if not right:
        raise GateError(f"{name} is {value}; a share {wanted}")
