"""The verdict on a run: is the recall lost shown to be within a margin, beyond it, or neither?

Owns the decision and what it takes to reach one. How it is printed is `gate_text.py`; whether two
runs may be compared at all is `gate_match.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd
from scipy.special import stdtrit

from niah.errors import NiahError
from niah.gate.pairing import compare_runs
from niah.runs.tables import PHASES, load_run
from niah.statistics.comparisons import SLICES, Comparison, left_out_text, load_comparisons
from niah.statistics.intervals import BASELINE_FLOOR, Tax, holm, tax_of
from niah.statistics.power import ALPHA, POWER, pairs_needed
from niah.text_format import percent, points, slice_text

Verdict = Literal["pass", "fail", "inconclusive", "undefined"]
EXIT_CODES: dict[Verdict, int] = {"pass": 0, "fail": 1, "inconclusive": 3, "undefined": 3}
OVERALL = "overall"
DEFAULT_SLICES = ("at_length", "family", "corpus", *PHASES)  # phases where the sweep asks for them
UNREACHABLE = 0.001  # a tax this close to the margin would take a million pairs to settle


class GateError(NiahError):
    """A gate that cannot be put to these runs."""


@dataclass(frozen=True)
class Check:
    """One test of the gate. `decides`: whether its verdict counts, or is for information.

    `tax` is of the questions put to both arms. `worst` and `best` are of all that were planned,
    and take every error and missing answer against and for the gate; where there is none they
    equal `tax`.
    """

    comparison: str
    what: str
    value: str
    tax: Tax
    worst: Tax
    best: Tax
    margin: float
    verdict: Verdict
    decides: bool
    reason: str
    more_pairs: int | None = None

    @property
    def name(self) -> str:
        return f"{self.what} {self.value}".strip()


@dataclass(frozen=True)
class GateResult:
    """The checks, and the verdict that follows from those that decide."""

    run: str
    against: str | None
    max_tax: float
    alpha: float
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

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
        slices: columns of `compare.SLICES`. A slice can fail the gate (adjusted for the number
            of slices); it has to pass only with `require_slices`.
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
    comparisons, notes = _comparisons(run, against, floor)
    known = [comparison.compressed for comparison in comparisons]
    unknown = sorted(set(arms) - set(known))
    if unknown:
        raise GateError(f"arm {unknown[0]!r} is not in {run}; there is {', '.join(known)}")
    wanted = [found for found in comparisons if not arms or found.compressed in arms]
    return GateResult(
        run=str(run),
        against=None if against is None else str(against),
        max_tax=max_tax,
        alpha=alpha,
        checks=judge(wanted, slices, (max_tax, slice_tax), alpha, require_slices),
        notes=tuple(notes + [note for found in wanted for note in _notes(found)]),
    )


def judge(
    comparisons: Sequence[Comparison],
    slices: Sequence[str],
    margins: tuple[float, float],
    alpha: float,
    require_slices: bool = False,
) -> tuple[Check, ...]:
    """Every check of every comparison; `margins` are those of all pairs and of a slice."""
    checks = [
        check
        for comparison in comparisons
        for check in _checks(comparison, slices, margins, alpha, require_slices)
    ]
    return tuple(_adjusted(checks, alpha))


def _comparisons(
    run: Path, against: Path | None, floor: float
) -> tuple[list[Comparison], list[str]]:
    if against is not None:
        # An earlier run that recalled little can still lose it: no floor here.
        return compare_runs(load_run(run), load_run(against))
    comparisons = load_comparisons([load_run(run)], floor)[1]
    if not comparisons:
        raise GateError(
            f"{run}: no baseline and compressed arm were asked the same questions; "
            "give an earlier run with --against, or a sweep with a baseline"
        )
    return comparisons, []


def _checks(
    comparison: Comparison,
    slices: Sequence[str],
    margins: tuple[float, float],
    alpha: float,
    require_slices: bool,
) -> Iterator[Check]:
    yield _judge(comparison, (OVERALL, ""), comparison.pairs, margins[0], alpha, decides=True)
    for column in slices:
        if column not in SLICES:
            raise GateError(f"slice {column!r} is not one of {', '.join(SLICES)}")
        groups = list(comparison.pairs.groupby(column, sort=True))
        for value, pairs in groups if len(groups) > 1 else []:
            named = (SLICES[column], slice_text(column, value))
            yield _judge(comparison, named, pairs, margins[1], alpha, require_slices)


def _judge(
    comparison: Comparison,
    named: tuple[str, str],
    pairs: pd.DataFrame,
    margin: float,
    alpha: float,
    decides: bool,
) -> Check:
    """A check before the failures of slices are adjusted for their number."""
    tax = comparison.tax_within(pairs)
    worst, best = _extremes(comparison, pairs, tax)
    verdict, reason = _verdict(tax, worst, best, margin, alpha)
    return Check(
        comparison=comparison.title,
        what=named[0],
        value=named[1],
        tax=tax,
        worst=worst,
        best=best,
        margin=margin,
        verdict=verdict,
        decides=decides,
        reason=reason,
        more_pairs=_more_pairs(tax, margin, alpha) if verdict == "inconclusive" else None,
    )


def _extremes(comparison: Comparison, pairs: pd.DataFrame, tax: Tax) -> tuple[Tax, Tax]:
    """The tax with every error and missing answer taken against the gate, and for it."""
    found = pairs[pairs.index.isin(comparison.perhaps_answerable.index)]
    failed = found["baseline_failed"] | found["compressed_failed"]
    if not len(found) or (len(found) == tax.pairs and not failed.any()):
        return tax, tax
    worst, best = (
        tax_of(
            found.assign(
                baseline=found["baseline"].mask(found["baseline_failed"], lose),
                compressed=found["compressed"].mask(found["compressed_failed"], not lose),
            ),
            comparison.floor,
        )
        for lose in (True, False)
    )
    return worst, best


def _verdict(tax: Tax, worst: Tax, best: Tax, margin: float, alpha: float) -> tuple[Verdict, str]:
    turn = f"{worst.errors:,} errors or missing answers could turn the verdict"
    if not tax.defined and worst.errors and worst.defined:
        return "inconclusive", turn
    if not tax.defined:
        return "undefined", (
            f"the baseline recalls only {points(tax.baseline)}%, below the floor of "
            f"{percent(tax.floor)}"
            if tax.baseline < tax.floor
            else f"the baseline recalls less than {percent(tax.floor)} of every kind of question"
        )
    if worst.streams == 1:
        return "inconclusive", "all pairs share one stream; sweep with repeats: 2 or more"
    if worst.p_at_most(margin) < alpha:
        return "pass", f"at most {points(margin)} points lost"
    if best.p_above(margin) < alpha:
        return "fail", f"more than {points(margin)} points lost"
    if worst.errors and (tax.p_at_most(margin) < alpha or tax.p_above(margin) < alpha):
        return "inconclusive", turn
    return "inconclusive", f"neither shown to be within {points(margin)} points nor beyond"


def _adjusted(checks: Sequence[Check], alpha: float) -> Iterator[Check]:
    """Failures survive only if they hold for the number of tests made (Holm).

    The overall tests (one an arm) and the slices are two families: overall keeps its power
    however many slices are looked at. Passes need no adjustment: all deciding checks must pass.
    """
    tests = {
        str(number): check
        for number, check in enumerate(checks)
        if check.verdict != "undefined" and check.worst.streams > 1
    }
    p_adjusted: dict[str, float] = {}
    for overall in (True, False):
        family = {n: check for n, check in tests.items() if (check.what == OVERALL) is overall}
        p_adjusted |= holm({n: c.best.p_above(c.margin) for n, c in family.items()})
    for number, check in enumerate(checks):
        if check.verdict != "fail":
            yield check
        elif p_adjusted[str(number)] < alpha:
            yield replace(check, decides=True)
        else:
            reason = f"beyond {points(check.margin)} points alone, not among all that were tested"
            yield replace(check, verdict="inconclusive", reason=reason)


def on_margin(tax: Tax, margin: float) -> bool:
    """Whether the tax is so close to the margin that no number of pairs would settle it."""
    return abs(tax.value - margin) < UNREACHABLE


def _more_pairs(tax: Tax, margin: float, alpha: float) -> int | None:
    """Pairs beyond these for a verdict in four of five such runs, if the true tax is as seen.

    None if the tax lies on the margin, where no number of pairs would settle it.
    """
    if on_margin(tax, margin):
        return None
    # Few streams make Student's quantile larger than the normal one that the planning uses.
    wider = (stdtrit(tax.freedom, 1 - alpha) / stdtrit(math.inf, 1 - alpha)) ** 2
    discordance = (tax.lost + tax.gained + 1) / (tax.pairs + 2)
    needed = pairs_needed(
        tax.value, discordance, margin, alpha, POWER, tax.design_effect * float(wider)
    )
    return max(needed - tax.pairs, -(-tax.pairs // 10))


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
