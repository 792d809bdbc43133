"""Aggregates rows into the frames of which figures, tables of the page and CSV files are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import pandas as pd

from niah.runs.row import LostBy
from niah.runs.tables import BYTES, MAX_RESIDUES, PHASES, READ, cache_kinds, questions
from niah.scoring.outcomes import Outcome
from niah.statistics.columns import SLICES
from niah.statistics.comparisons import Comparison, changed_at_question
from niah.statistics.graded import graded_by, parting_by
from niah.statistics.intervals import BASELINE_FLOOR, Tax, estimate_recall
from niah.statistics.noise import Noise
from niah.statistics.trainings import trainings_of

OUTCOMES: tuple[str, ...] = get_args(Outcome)
LOST_BY: tuple[str, ...] = get_args(LostBy)
BIN = 8  # residues put together where there are more than MAX_RESIDUES


def recall_by_length(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, length, correct, asked, errors, recall (exact), low, high (95%, clustered by stream),
    contains (share of the answers that hold the gold; NaN: not known)."""
    groups = questions(rows).groupby(["arm", "at_length"], sort=False)
    found = [
        {"arm": arm, "length": length, **_recall_fields(group), "contains": contains_share(group)}
        for (arm, length), group in groups
    ]
    return _sorted(pd.DataFrame(found), rows)


def contains_share(asked: pd.DataFrame) -> float:
    """Share of the questions whose answer contains the gold; an error does not. NaN: not known."""
    answered = asked.loc[~asked["failed"], "contains"]
    return float("nan") if answered.isna().any() else float(answered.sum()) / len(asked)


def answers_by_arm(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, asked, errors, exact, contains: both rules by which answers are judged, as shares."""
    asked = questions(rows)
    found = [
        {
            "arm": arm,
            "asked": len(group),
            "errors": int(group["failed"].sum()),
            "exact": float(group["recalled"].mean()),
            "contains": contains_share(group),
        }
        for arm, group in asked.groupby("arm", sort=False)
    ]
    rank = {arm: number for number, arm in enumerate(arms_in_order(rows))}
    return pd.DataFrame(sorted(found, key=lambda line: rank[line["arm"]]))


def asked_by_length(rows: pd.DataFrame) -> pd.DataFrame:
    """run (where there are several), length, questions, streams, rivals (median number of other
    values that a prompt held; NaN: not known)."""
    asked = questions(rows).drop_duplicates(["run", "pair"])
    by = ["run", "at_length"] if rows["run"].nunique() > 1 else ["at_length"]
    found = asked.groupby(by).agg(
        questions=("pair", "size"), streams=("stream_id", "nunique"), rivals=("rivals", "median")
    )
    return found.reset_index().rename(columns={"at_length": "length"})


def logprob_by_length(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """comparison, arm, length, pairs, streams, baseline, compressed (mean log-probability of the
    gold answer, nats), difference, low, high (95%, clustered by stream), decidable."""
    return pd.DataFrame(
        [
            {
                **_compared(comparison),
                "length": length,
                "pairs": found.pairs,
                "streams": found.streams,
                "baseline": found.baseline,
                "compressed": found.compressed,
                "difference": found.difference,
                "low": found.interval.low,
                "high": found.interval.high,
                "decidable": found.decidable,
            }
            for comparison in comparisons
            for length, found in graded_by(comparison, "at_length").items()
        ]
    )


def parting_by_length(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """comparison, length, pairs, same_answer, first_difference (median index, from 0, of the
    first token at which the two answers part, where they do)."""
    return pd.DataFrame(
        [
            {
                "comparison": comparison.title,
                "length": length,
                "pairs": found.pairs,
                "same_answer": found.same,
                "first_difference": float("nan") if found.median is None else found.median,
            }
            for comparison in comparisons
            for length, found in parting_by(comparison, "at_length").items()
        ]
    )


def noise_table(noises: Sequence[Noise]) -> pd.DataFrame:
    """arm, repeats (the baseline), asked, differ, discordance, low, high (95%), lost, gained."""
    return pd.DataFrame(
        [
            {
                "arm": noise.arm,
                "repeats": noise.baseline,
                "asked": noise.discordance.asked,
                "differ": noise.discordance.correct,
                "discordance": noise.discordance.value,
                "low": noise.discordance.interval.low,
                "high": noise.discordance.interval.high,
                "lost": float("nan") if noise.tax is None else noise.tax.lost,
                "gained": float("nan") if noise.tax is None else noise.tax.gained,
            }
            for noise in noises
        ]
    )


def tax_by_training(rows: pd.DataFrame) -> pd.DataFrame:
    """technique, arm, against (a training of the baseline), asked, baseline, compressed, tax."""
    return pd.DataFrame(
        [
            {
                "technique": found.technique,
                "arm": arm,
                "against": other,
                "asked": found.asked,
                "baseline": before,
                "compressed": recall,
                "tax": before - recall,
            }
            for found in trainings_of(rows)
            for arm, recall in found.compressed.items()
            for other, before in found.baselines.items()
        ]
    )


def tax_by_length(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """comparison, arm, length, pairs, lost, gained, tax, low, high, defined, decidable."""
    found = []
    for comparison in comparisons:
        for length, tax in comparison.slices("at_length").items():
            counts = {"pairs": tax.pairs, "lost": tax.lost, "gained": tax.gained}
            found.append({**_compared(comparison), "length": length, **counts, **_span(tax)})
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
            text = {"haystack": corpus, "ratio": ratios.get(corpus, float("nan"))}
            found.append({**_compared(comparison), **text, **_recalls(tax), **_span(tax)})
    frame = pd.DataFrame(found)
    return frame.sort_values(["comparison", "ratio"], ascending=[True, False]) if found else frame


def tax_by_family(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """comparison, arm, family, pairs, baseline, compressed, tax, low, high, defined, decidable."""
    return pd.DataFrame(
        [
            {**_compared(found), "family": family, **_recalls(tax), **_span(tax)}
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


def pareto_by_length(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, technique, length, bytes_per_token (held when the question was asked, mean), recall,
    low, high (95%, clustered by stream), frontier: no other arm holds as little and recalls as
    much. Sorted by technique in order of appearance; nothing for fewer than three arms. Arms that
    change when the question begins are left out: their text was read with more."""
    rows = rows[rows["intact"] == ""]
    held = bytes_by_length(rows)
    if held["arm"].nunique() < 3:
        return pd.DataFrame()
    found = recall_by_length(rows).merge(held[["arm", "length", "total"]], on=["arm", "length"])
    techniques = rows.drop_duplicates("arm").set_index("arm")["technique"]
    found["technique"] = found["arm"].map(techniques)
    found["bytes_per_token"] = found["total"] / found["length"]
    found["frontier"] = [_undominated(point, found) for _, point in found.iterrows()]
    order = list(dict.fromkeys(found["technique"]))
    found = found.sort_values("technique", key=lambda of: of.map(order.index), kind="stable")
    columns = ["arm", "technique", "length", "bytes_per_token", "recall", "low", "high", "frontier"]
    return found[columns].reset_index(drop=True)


def memories_by_length(rows: pd.DataFrame, floor: float = BASELINE_FLOOR) -> pd.DataFrame:
    """What arms lose that change when the question begins, against the arm that does not.

    arm, against, length, bytes by kind that are gone (mean), gone (all kinds), family, pairs, whole
    and left (recall without the change and with it), tax, low, high, defined, decidable.
    """
    comparisons = list(changed_at_question(rows, floor))
    if not comparisons:
        return pd.DataFrame()
    held = bytes_by_length(rows).set_index(["arm", "length"])
    found = []
    for comparison in comparisons:
        for (length, family), pairs in comparison.complete.groupby(["at_length", "family"]):
            sides = [(arm, length) for arm in (comparison.baseline, comparison.compressed)]
            if not all(side in held.index for side in sides):
                continue
            whole, left = (held.loc[side] for side in sides)
            gone = (whole - left).rename({"total": "gone"})
            tax = comparison.tax_within(pairs)
            arms = {"arm": comparison.compressed, "against": comparison.baseline}
            recalls = {"pairs": tax.pairs, "whole": tax.baseline, "left": tax.compressed}
            place = {**arms, "length": length, **gone, "family": family}
            found.append({**place, **recalls, **_span(tax)})
    return pd.DataFrame(found)


def _undominated(point: pd.Series, found: pd.DataFrame) -> bool:
    """Whether no other arm is as good in both at this length, and better in one."""
    others = found[found["length"] == point["length"]]
    fits = (others["total"] <= point["total"]) & (others["recall"] >= point["recall"])
    better = (others["total"] < point["total"]) | (others["recall"] > point["recall"])
    return not bool((fits & better).any())


def seconds_by_length(rows: pd.DataFrame) -> pd.DataFrame:
    """arm, length, answers, median seconds of a prefill from nothing and of decoding."""
    answered = questions(rows)
    answered = answered[~answered["failed"]]
    found = answered.groupby(["arm", "at_length"], sort=False).agg(
        answers=("key", "size"),
        prefill_seconds=("cold_prefill_seconds", "median"),
        decode_seconds=("decode_seconds", "median"),
    )
    found = found.dropna(subset=["prefill_seconds", "decode_seconds"], how="all")
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
        residues = asked[READ[of]].dropna().astype(int) % modulus
        if residues.nunique() < 2 or (modulus > 4 and residues.max() < 4):
            continue
        if residues.nunique() > MAX_RESIDUES:
            residues = residues // BIN * BIN
        known = asked.loc[residues.index]
        for (arm, at), group in known.groupby([known["arm"], residues], sort=False):
            where = {"arm": arm, "phase": SLICES[phase], "residue": at}
            found.append({**where, **_recall_fields(group)})
    frame = pd.DataFrame(found)
    return frame.sort_values(["phase", "residue"], kind="stable") if found else frame


def controls(rows: pd.DataFrame) -> pd.DataFrame:
    """control, family (where there are several), arm, asked, and counts by outcome, for questions
    without a needle to find."""
    asked = rows[rows["control"].notna()]
    if asked.empty:
        return pd.DataFrame()
    family = ["family"] if asked["family"].nunique() > 1 else []
    by = ["control", *family, "arm", "outcome"]
    counts = asked.groupby(by, sort=False).size().unstack(fill_value=0)
    counts.insert(0, "asked", counts.sum(axis=1))
    return counts.reset_index()


def _recall_fields(group: pd.DataFrame) -> dict[str, float]:
    recall = estimate_recall(
        group["recalled"].to_numpy(), group["stream_id"].to_numpy(), int(group["failed"].sum())
    )
    counts = {"correct": recall.correct, "asked": recall.asked, "errors": recall.errors}
    low, high = recall.interval
    return {**counts, "recall": recall.value, "low": low, "high": high}


def _compared(comparison: Comparison) -> dict[str, str]:
    return {"comparison": comparison.title, "arm": comparison.compressed}


def _recalls(tax: Tax) -> dict[str, float]:
    return {"pairs": tax.pairs, "baseline": tax.baseline, "compressed": tax.compressed}


def _span(tax: Tax) -> dict[str, float]:
    low, high = tax.interval
    shown = {"defined": tax.defined, "decidable": tax.decidable}
    return {"tax": tax.value, "low": low, "high": high, **shown}


def arms_in_order(rows: pd.DataFrame) -> list[str]:
    """Baselines, then compressed arms, then repeats, each in order of appearance."""
    return list(rows.drop_duplicates("arm").sort_values("role", kind="stable")["arm"])


def _sorted(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """By arm, then by length."""
    rank = {arm: number for number, arm in enumerate(arms_in_order(rows))}
    order = frame.assign(_rank=frame["arm"].map(rank)).sort_values(["_rank", "length"])
    return order.drop(columns="_rank").reset_index(drop=True)
