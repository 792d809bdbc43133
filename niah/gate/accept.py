"""Replaces the reference, the small committed run that later runs are compared with.

Says what the replacement changes, and refuses one whose recall has fallen. Where streams are too
few to show it, any lower recall is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from niah.errors import NiahError
from niah.gate.pairing import arm_identity, run_identity
from niah.gate.reference_files import check_target, put_back, write_reference
from niah.runs.history import differences
from niah.runs.store import ROWS
from niah.runs.tables import Run, load_run, pair_arms, questions
from niah.statistics.intervals import Tax, estimate_recall, tax_of
from niah.text_format import points


class AcceptError(NiahError):
    """A run that should not become the reference."""


class Change(NamedTuple):
    """An arm then and now; `tax` is what was lost on the questions that both were asked."""

    arm: str
    before: pd.Series
    now: pd.Series
    tax: Tax | None

    @property
    def regressed(self) -> bool:
        """Whether recall is shown to have fallen, or has fallen where too few streams show it.

        Without a question in common: whether the intervals of then and now lie apart.
        """
        if self.tax is None:
            before, now = (estimate_recall(side.to_numpy()) for side in (self.before, self.now))
            return now.interval.high < before.interval.low
        return self.tax.shows_loss if self.tax.decidable else self.tax.value > 0


def accept(folder: Path, reference: Path, despite_regression: bool = False) -> list[str]:
    """Put the run in `folder` in the place of `reference`; returns what that changes, in lines.

    Raises:
        NiahError: no readable run, questions without an answer, a folder that holds something
            else, or recall that has fallen (unless `despite_regression`); nothing is written then.
    """
    put_back(reference)
    check_target(reference)
    run = load_run(folder)
    if run.rows["failed"].any():
        raise AcceptError(
            f"{folder}: {int(run.rows['failed'].sum())} questions ended in an error; run it again"
        )
    if run.incomplete:
        raise AcceptError(f"{folder}: {run.incomplete}")
    lines = [f"{reference}: there was none; it is {folder} now"]
    if (reference / ROWS).exists():
        before = load_run(reference)
        changes = list(arm_changes(run, before))
        lines = list(told(run, before, changes))
        fallen = [change.arm for change in changes if change.regressed]
        if fallen and not despite_regression:
            raise AcceptError(
                f"{folder}: recall of {', '.join(fallen)} has fallen since {reference} "
                f"({'; '.join(change_text(c) for c in changes if c.regressed)}); "
                "if that is meant, say --despite-regression"
            )
    write_reference(folder, reference)
    return lines


def arm_changes(run: Run, before: Run) -> Iterator[Change]:
    """Every arm that both runs have."""
    for arm in run.rows["arm"].unique():
        then = before.rows[before.rows["arm"] == arm].assign(arm="then")
        now = run.rows[run.rows["arm"] == arm].assign(arm="now")
        if not len(then):
            continue
        pairs = pair_arms(pd.concat([then, now]), "then", "now")
        both = pairs[~pairs["incomplete"]]
        tax = tax_of(both, 0.0) if len(both) else None
        yield Change(str(arm), questions(then)["recalled"], questions(now)["recalled"], tax)


def told(run: Run, before: Run, changes: list[Change]) -> Iterator[str]:
    """What differs in questions, weights and options, then what that did to recall."""
    yield from (
        f"asked: {change}" for change in differences(run_identity(before), run_identity(run))
    )
    for change in changes:
        then, now = arm_identity(before, change.arm), arm_identity(run, change.arm)
        for difference in differences(then, now):
            yield f"{change.arm}: {difference}"
        yield f"{change.arm}: {change_text(change)}"
    gone = sorted(set(before.rows["arm"]) - set(run.rows["arm"]))
    new = sorted(set(run.rows["arm"]) - set(before.rows["arm"]))
    yield from (f"{arm}: no longer asked" for arm in gone)
    yield from (f"{arm}: new" for arm in new)


def change_text(change: Change) -> str:
    """Recall then and now, and the loss on the same questions."""
    shares = [
        f"{points(recall.value)}% ({recall.correct} of {recall.asked})"
        for recall in (estimate_recall(side.to_numpy()) for side in (change.before, change.now))
    ]
    text = f"recall {shares[0]}, now {shares[1]}"
    if change.tax is None:
        return f"{text}; no question in common"
    low, high = change.tax.interval
    return (
        f"{text}; {change.tax.lost} lost and {change.tax.gained} gained of {change.tax.pairs} "
        f"pairs, {points(change.tax.value)} points lost (95%: {points(low)} to {points(high)})"
    )
