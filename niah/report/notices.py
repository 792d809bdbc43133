"""What a reader has to know before reading a number: errors, gaps, slices that show nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from niah.report.sentences import of_two_runs
from niah.report.tables import answers_by_arm
from niah.runs.tables import Run
from niah.statistics.columns import EXACT
from niah.statistics.comparisons import (
    MAX_NAMED,
    Comparison,
    left_out_text,
    undecidable_text,
)
from niah.statistics.noise import Noise, explained_by
from niah.statistics.saturation import saturated
from niah.text_format import counted, points

PARTED = 0.02  # of the answers: exact and contains differ by more


def notices(
    runs: Sequence[Run],
    rows: pd.DataFrame,
    comparisons: Sequence[Comparison],
    noises: Sequence[Noise] = (),
) -> list[str]:
    """Sentences in the order of how much they put in doubt."""
    found = [
        *_unfinished(runs),
        *_failed(rows),
        *(_uncompared(rows, comparisons) if comparisons else ()),
        *_explained(comparisons, noises),
        *_by_comparison(rows, comparisons),
        *_parted(rows),
        *_saturated(rows),
    ]
    return [*found, *_binned(rows)]


def _by_comparison(rows: pd.DataFrame, comparisons: Sequence[Comparison]) -> list[str]:
    """What is to be said of each comparison; said once of those of which it is the same."""
    titles: dict[str, list[str]] = {}
    for comparison in comparisons:
        for text in (*_about(comparison), *_in_window(rows, comparison)):
            titles.setdefault(text, []).append(comparison.title)
    return [f"{'; '.join(of)}: {text}" for text, of in titles.items()]


def _unfinished(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        for arm, (answered, planned) in run.unfinished.items():
            yield (
                f"{run.name} is incomplete: {arm} answered {answered:,} of "
                f"{counted(planned, 'question')}. The same niah run goes on with it."
            )


def _failed(rows: pd.DataFrame) -> Iterator[str]:
    for arm, failed in rows.groupby("arm", sort=False)["failed"].agg(["sum", "size"]).iterrows():
        if failed["sum"]:
            yield (
                f"{failed['sum']:,} of {counted(failed['size'], 'question')} to {arm} ended in an "
                "error. They count as not recalled; the same niah run asks them again."
            )


def _uncompared(rows: pd.DataFrame, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """An arm in no comparison is in the figures by length only, which has to be said."""
    compared = {arm for found in comparisons for arm in (found.baseline, found.compressed)}
    for run, arms in rows[rows["role"] != "repeat"].groupby("run", sort=False)["arm"]:
        alone = [arm for arm in dict.fromkeys(arms) if arm not in compared]
        if alone:
            yield (
                f"In no comparison: {', '.join(alone)} of {run}. No baseline, and no arm of that "
                "name in the first run, was asked the same questions. Only the figures by length "
                "and phase show it."
            )


def _about(comparison: Comparison) -> Iterator[str]:
    missing = int(comparison.pairs["incomplete"].sum())
    if missing:
        yield (
            f"{missing:,} of {counted(len(comparison.pairs), 'question')} were not put to both "
            "arms and are left out of heatmaps and tax."
        )
    if text := undecidable_text(comparison):
        yield text
    if comparison.left_out:
        yield f"{left_out_text(comparison)}."


def _in_window(rows: pd.DataFrame, comparison: Comparison) -> Iterator[str]:
    """What a compressed arm loses of tokens that it still holds as they were is no cost of
    compression, and has to be told apart from it."""
    if of_two_runs(comparison, rows):
        return
    pairs = comparison.answerable
    lost = pairs.loc[pairs["baseline"] & ~pairs["compressed"], "pair"]
    of_arm = rows[(rows["arm"] == comparison.compressed) & (rows["lost_by"] == "window")]
    held = int(lost.isin(of_arm["pair"]).sum())
    if held:
        yield (
            f"{held:,} of {counted(len(lost), 'lost question')} ask for needles still in the exact "
            "window, where nothing is compressed: that part of the tax is a difference between the "
            "models, not between their caches."
        )


def _explained(comparisons: Sequence[Comparison], noises: Sequence[Noise]) -> Iterator[str]:
    """Taxes that are no larger than what the baseline, asked once more, differs from itself."""
    for comparison in comparisons:
        if tax := comparison.tax:
            for noise in explained_by(comparison, noises):
                yield (
                    f"{comparison.title}: the noise floor explains a tax of {points(tax.value)} "
                    f"points. {noise.arm}, the baseline asked once more, differs from the "
                    f"baseline on {points(noise.discordance.value)}% of the questions."
                )


def _parted(rows: pd.DataFrame) -> Iterator[str]:
    """Arms in which the two rules of judging answers part by more than two points."""
    for arm, asked, _, exact, contains in answers_by_arm(rows).itertuples(index=False):
        if abs(exact - contains) > PARTED:
            yield (
                f"{arm}: {points(exact)}% of {counted(asked, 'answer')} are exact and "
                f"{points(contains)}% contain the right value. The tax counts exact answers; read "
                "those that differ before you trust it."
            )


def _saturated(rows: pd.DataFrame) -> Iterator[str]:
    """Slices in which all arms are right everywhere, or nowhere."""
    found = saturated(rows[rows["role"] != "repeat"])
    for at, said in (("ceiling", "all"), ("floor", "none")):
        names = [slice_.name for slice_ in found if slice_.at == at]
        more = f"; and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        if names:
            yield (
                f"Every arm is right in {said} of the questions of {counted(len(names), 'slice')}, "
                f"which cannot tell arms apart: {'; '.join(names[:MAX_NAMED])}{more}."
            )


def _binned(rows: pd.DataFrame) -> Iterator[str]:
    for axis, exact in EXACT.items():
        if exact in rows and (rows[axis] != rows[exact])[rows[exact].notna()].any():
            yield (
                f"{rows[exact].nunique()} {exact.removeprefix('exact_')}s were asked, more than an "
                f"axis shows: neighbours are put together, and labels say which."
            )
