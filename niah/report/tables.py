"""The tables behind the figures: recall, tax, bytes, seconds and kinds of error by length, phases.

Owns the aggregation of rows; a figure, a table on the page and a CSV are all drawn from these
frames. Knows nothing about how they are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pandas as pd

from niah.runs.row import LostBy
from niah.runs.tables import BYTES, MAX_RESIDUES, PHASES, cache_kinds, questions
from niah.scoring.outcomes import Outcome
from niah.statistics.columns import SLICES
from niah.statistics.comparisons import Comparison
from niah.statistics.intervals import Tax, estimate_recall

OUTCOMES: tuple[str, ...] = get_args(Outcome)
LOST_BY: tuple[str, ...] = get_args(LostBy)
BIN = 8  # residues put together where there are more than MAX_RESIDUES


def recall_by_length(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, length, correct, asked, errors, recall, low, high (Wilson, clustered by stream)."""
    groups = questions(rows).groupby(["arm", "at_length"], sort=False)
    found = [
        {"arm": arm, "length": length, **_recall_fields(group)} for (arm, length), group in groups
    ]
    return _sorted(pd.DataFrame(found), rows)


def tax_by_length(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """comparison, arm, length, pairs, lost, gained, tax, low, high, defined, decidable."""
    found = []
    for comparison in comparisons:
        for length, tax in comparison.slices("at_length").items():
            where = {"comparison": comparison.title, "arm": comparison.compressed}
            counts = {"pairs": tax.pairs, "lost": tax.lost, "gained": tax.gained}
            found.append({**where, "length": length, **counts, **_span(tax)})
    return pd.DataFrame(found)


def tax_by_text(rows: pd.DataFrame, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """comparison, arm, haystack, ratio (zlib's, mean over streams: how far the text can be
    compressed), pairs, baseline, compressed, tax, low, high, defined, decidable; the most
    compressible text first."""
    found = []
    for comparison in comparisons:
        of_arms = rows[rows["arm"].isin([comparison.baseline, comparison.compressed])]
        by_stream = of_arms.groupby(["corpus", "stream_id"])["compression_ratio"].mean()
        ratios = by_stream.groupby("corpus").mean()
        for corpus, tax in comparison.slices("corpus").items():
            where = {"comparison": comparison.title, "arm": comparison.compressed}
            text = {"haystack": corpus, "ratio": ratios[corpus]}
            found.append({**where, **text, **_recalls(tax), **_span(tax)})
    frame = pd.DataFrame(found)
    return frame.sort_values(["comparison", "ratio"], ascending=[True, False]) if found else frame


def tax_by_family(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """comparison, arm, family, pairs, baseline, compressed, tax, low, high, defined, decidable."""
    return pd.DataFrame(
        [
            {"comparison": found.title, "arm": found.compressed, "family": family}
            | _recalls(tax)
            | _span(tax)
            for found in comparisons
            for family, tax in found.slices("family").items()
        ]
    )


def bytes_by_length(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, length, mean bytes held by kind and in total when the question was asked."""
    held = rows[(rows["bytes_total"] > 0) & rows["control"].isna()]
    columns = [f"{BYTES}{kind}" for kind in (*cache_kinds(held), "total")]
    found = held.groupby(["arm", "at_length"], sort=False)[columns].mean().reset_index()
    found = found.rename(columns={"at_length": "length"})
    return _sorted(found.rename(columns=lambda name: name.removeprefix(BYTES)), rows)


def seconds_by_length(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, length, answers, median seconds of a prefill from nothing and of decoding."""
    answered = questions(rows)
    answered = answered[~answered["failed"]]
    found = answered.groupby(["arm", "at_length"], sort=False).agg(
        answers=("key", "size"),
        prefill_seconds=("cold_prefill_seconds", "median"),
        decode_seconds=("decode_seconds", "median"),
    )
    return _sorted(found.reset_index().rename(columns={"at_length": "length"}), rows)


def outcomes_by_length(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, length, asked, and a column of counts for every outcome seen."""
    asked = questions(rows)
    counts = asked.groupby(["arm", "at_length", "outcome"], sort=False).size().unstack(fill_value=0)
    known = [name for name in OUTCOMES if name in counts]
    counts = counts[known + [name for name in counts if name not in known]]
    counts.insert(0, "asked", counts.sum(axis=1))
    return _sorted(counts.reset_index().rename(columns={"at_length": "length"}), rows)


def losses_by_length(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, length, asked, and counts of wrong answers by where the needle was lost, for arms whose
    rows can tell; `elsewhere` are those of no one place."""
    asked = questions(rows)
    tell = set(asked.loc[asked["lost_by"].notna(), "arm"])
    asked = asked[asked["arm"].isin(tell)]
    if asked.empty:
        return pd.DataFrame()
    lost = asked["lost_by"].where(asked["lost_by"].notna(), "elsewhere")
    lost = lost.where(~asked["recalled"], "recalled")
    counts = asked.groupby(["arm", "at_length", lost], sort=False).size().unstack(fill_value=0)
    counts.insert(0, "asked", counts.sum(axis=1))
    kinds = [kind for kind in (*LOST_BY, "elsewhere") if kind in counts]
    counts = counts[["asked", *kinds]]
    return _sorted(counts.reset_index().rename(columns={"at_length": "length"}), rows)


def recall_by_phase(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, phase, residue, correct, asked, errors, recall, low, high.

    A residue is a point of its own; more than MAX_RESIDUES of them are put together by BIN.
    Where a sweep asked only for residues below 4, those modulo 128 are the same and left out.
    """
    asked = questions(rows)
    asked = asked[asked["needle_start"].notna()]
    found = []
    for phase, (_, of, modulus) in PHASES.items():
        residues = asked[of].astype(int) % modulus
        if residues.nunique() < 2 or (modulus > 4 and residues.max() < 4):
            continue
        if residues.nunique() > MAX_RESIDUES:
            residues = residues // BIN * BIN
        for (arm, at), group in asked.groupby([asked["arm"], residues], sort=False):
            where = {"arm": arm, "phase": SLICES[phase], "residue": at}
            found.append({**where, **_recall_fields(group)})
    frame = pd.DataFrame(found)
    return frame.sort_values(["phase", "residue"], kind="stable") if found else frame


def controls(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, control, asked, and counts by outcome, for questions without a needle to find."""
    asked = rows[rows["control"].notna()]
    if asked.empty:
        return pd.DataFrame()
    counts = asked.groupby(["control", "arm", "outcome"], sort=False).size().unstack(fill_value=0)
    counts.insert(0, "asked", counts.sum(axis=1))
    return counts.reset_index()


def _recall_fields(group: pd.DataFrame) -> dict[str, float]:
    recall = estimate_recall(
        group["recalled"].to_numpy(), group["stream_id"].to_numpy(), int(group["failed"].sum())
    )
    counts = {"correct": recall.correct, "asked": recall.asked, "errors": recall.errors}
    low, high = recall.interval
    return {**counts, "recall": recall.value, "low": low, "high": high}


def _recalls(tax: Tax) -> dict[str, float]:
    return {"pairs": tax.pairs, "baseline": tax.baseline, "compressed": tax.compressed}


def _span(tax: Tax) -> dict[str, float]:
    low, high = tax.interval
    shown = {"defined": tax.defined, "decidable": tax.decidable}
    return {"tax": tax.value, "low": low, "high": high, **shown}


def _sorted(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Baselines first, then arms in order of appearance, then by length."""
    arms = rows.drop_duplicates("arm").sort_values("role", kind="stable")["arm"]
    rank = {arm: number for number, arm in enumerate(arms)}
    order = frame.assign(_rank=frame["arm"].map(rank)).sort_values(["_rank", "length"])
    return order.drop(columns="_rank").reset_index(drop=True)
