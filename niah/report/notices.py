"""What a reader has to know before reading a number: errors, gaps, slices that show nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from niah.report.sentences import of_two_runs
from niah.report.tables import answers_by_arm
from niah.runs.tables import PHASES, Run
from niah.statistics.columns import EXACT, SLICES
from niah.statistics.comparisons import (
    MAX_NAMED,
    Comparison,
    Slice,
    left_out_text,
    slice_rows,
    undecidable_text,
)
from niah.statistics.intervals import CONFIDENCE, holm
from niah.statistics.noise import Noise, explained_by
from niah.statistics.overlap import overlap_text
from niah.statistics.saturation import saturated
from niah.statistics.trainings import trainings_of, trainings_text
from niah.text_format import counted, points

PARTED = 0.02  # of the answers: exact and contains differ by more
PLACES = ("at_depth", *PHASES)  # columns of which a fault of an engine may take some values alone
USES = {"prefix": "as_is", "concurrency": 1}  # options of a server that are uses of it
WINDOW_TAX = "That part of the tax is a difference between the models, not between their caches."
WINDOW_FAULT = "Both arms ask one model, so look at the window and at the newest entries."
NOUNS = {"length": "prompt length", "needle_start": "needle start"}


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
        *_read_otherwise(rows),
        *(_uncompared(rows, comparisons) if comparisons else ()),
        *_explained(comparisons, noises),
        *map(trainings_text, trainings_of(rows)),
        *_by_use(runs, comparisons, noises),
        *_by_comparison(rows, comparisons),
        *_in_window(runs, rows, comparisons),
        *_parted(rows),
        *_saturated(rows),
        *dict.fromkeys(_overlapping(rows)),
    ]
    return [*found, *_binned(rows)]


def _by_comparison(rows: pd.DataFrame, comparisons: Sequence[Comparison]) -> list[str]:
    """What is to be said of each comparison; said once of those of which it is the same."""
    titles: dict[str, list[str]] = {}
    for comparison in comparisons:
        for text in (*_about(comparison), *_all_in_one_place(rows, comparison)):
            titles.setdefault(text, []).append(comparison.title)
    every = f"All {len(comparisons)} comparisons"
    return [
        f"{every if len(of) == len(comparisons) > 2 else '; '.join(of)}: {text}"
        for text, of in titles.items()
    ]


def _unfinished(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        for text in run.lacks:
            yield f"{run.name} is incomplete: {text}. The same niah run goes on with it."


def _failed(rows: pd.DataFrame) -> Iterator[str]:
    for arm, failed in rows.groupby("arm", sort=False)["failed"].agg(["sum", "size"]).iterrows():
        if failed["sum"]:
            yield (
                f"{failed['sum']:,} of {counted(failed['size'], 'question')} to {arm} ended in an "
                "error. They count as not recalled; the same niah run asks them again."
            )


def _read_otherwise(rows: pd.DataFrame) -> Iterator[str]:
    """Texts that a server encoded as other tokens: no arm beside it read the same prompt."""
    answered = rows[rows["server_prompt_tokens"].notna() & ~rows["failed"]]
    arms: dict[tuple[int, int], list[str]] = {}
    for arm, asked in answered.groupby("arm", sort=False):
        count = int((asked["read_length"] != asked["length"]).sum())
        if count:
            arms.setdefault((count, len(asked)), []).append(str(arm))
    for (count, whole), of in arms.items():
        yield (
            f"{', '.join(of)}: the server read {count:,} of {counted(whole, 'prompt')} as more or "
            "fewer tokens than planned. Their lengths modulo 4 and 128 are those that it counted, "
            "and where their needles stand is not known."
        )


def _uncompared(rows: pd.DataFrame, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """An arm in no comparison is in the figures by length only, which has to be said."""
    compared = {arm for found in comparisons for arm in (found.baseline, found.compressed)}
    others = rows[~rows["role"].isin(["repeat", "retrained"])]
    for run, arms in others.groupby("run", sort=False)["arm"]:
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


def _in_window(
    runs: Sequence[Run], rows: pd.DataFrame, comparisons: Sequence[Comparison]
) -> Iterator[str]:
    """What a compressed arm loses of tokens that it still holds as they were is no cost of
    compression, and has to be told apart from it. In arms of one model it is a fault."""
    asked = _asked(runs)
    counts: dict[bool, list[str]] = {}
    for comparison in comparisons:
        lost = _lost_rows(rows, comparison)
        held = int((lost["lost_by"] == "window").sum())
        if held and not of_two_runs(comparison, rows):
            counts.setdefault(_same(asked, comparison), []).append(
                f"{comparison.title}, {held:,} of {counted(len(lost), 'lost question')}"
            )
    for is_one_model, found in counts.items():
        yield (
            "Lost although the needle still stands in the exact window, where nothing is "
            f"compressed: {'; '.join(found)}. {WINDOW_FAULT if is_one_model else WINDOW_TAX}"
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


def _by_use(
    runs: Sequence[Run], comparisons: Sequence[Comparison], noises: Sequence[Noise]
) -> Iterator[str]:
    """Arms of the baseline's model and options that answer otherwise after another use of it.

    Shown by Holm's p over all such arms, and by none that the noise floor explains.
    """
    asked = _asked(runs)
    used = {of.title: (of, _another_use(asked, of)) for of in comparisons if _same(asked, of)}
    taxes = {title: of.tax for title, (of, use) in used.items() if use and of.tax}
    for title, p_value in holm({t: tax.p_difference for t, tax in taxes.items()}).items():
        comparison, use = used[title]
        if p_value < 1 - CONFIDENCE and not explained_by(comparison, noises):
            tax = taxes[title]
            yield (
                f"{title}: one model, used in another way ({use}). A right cache answers the same; "
                f"here {tax.lost:,} of {counted(tax.pairs, 'question')} are lost and "
                f"{tax.gained:,} gained. Look for the fault in that use."
            )


class _Asked(NamedTuple):
    """What an arm asks, and how it uses it."""

    model: tuple[object, Mapping[str, object]]  # its name, and options
    use: Mapping[str, object]


def _asked(runs: Sequence[Run]) -> dict[str, _Asked]:
    """By the arms' labels, as far as the runs' sweeps are known."""
    found = {}
    for run in runs:
        arms = run.spec.get("arms")
        for arm in arms if isinstance(arms, list) else ():
            if isinstance(arm, dict) and "name" in arm:
                label = arm["name"] if len(runs) == 1 else f"{run.name}/{arm['name']}"
                options = {**(arm.get("options") or {})}
                ways = {name: options.pop(name, usual) for name, usual in USES.items()}
                use = ways | (arm.get("session") or {})
                found[label] = _Asked((arm.get("model"), options), use)
    return found


def _same(asked: Mapping[str, _Asked], comparison: Comparison) -> bool:
    """Whether both arms are known to ask one model with one set of options."""
    arms = [asked.get(arm) for arm in (comparison.baseline, comparison.compressed)]
    return arms[0] is not None and arms[1] is not None and arms[0].model == arms[1].model


def _another_use(asked: Mapping[str, _Asked], comparison: Comparison) -> str:
    """The fields by which the compressed arm's use is not the baseline's; empty if it is."""
    usual, other = asked[comparison.baseline].use, asked[comparison.compressed].use
    return ", ".join(f"{name} {other[name]}" for name in other if other[name] != usual.get(name))


def _all_in_one_place(rows: pd.DataFrame, comparison: Comparison) -> Iterator[str]:
    """Residues or depths that hold every lost question, each of them with a loss that Holm's p
    shows, where others that were asked hold none; and how the needles were lost, where known."""
    slices = slice_rows(comparison)
    places = [
        text
        for column in PLACES
        if (text := _place(column, [each for each in slices if each.what == SLICES[column]]))
    ]
    if places:
        yield f"every lost question has {' and '.join(places)}.{_lost_by(rows, comparison)}"


def _lost_by(rows: pd.DataFrame, comparison: Comparison) -> str:
    ways = _lost_rows(rows, comparison)["lost_by"].value_counts()
    said = ", ".join(f"{count:,} by {way}" for way, count in ways.items())
    return f" Lost by: {said}." if said else ""


def _lost_rows(rows: pd.DataFrame, comparison: Comparison) -> pd.DataFrame:
    """The compressed arm's rows of the questions that it loses."""
    pairs = comparison.answerable
    lost = pairs.loc[pairs["baseline"] & ~pairs["compressed"], "pair"]
    return rows[(rows["arm"] == comparison.compressed) & rows["pair"].isin(lost)]


def _place(column: str, slices: Sequence[Slice]) -> str:
    """Where in a column all losses are; empty if they are everywhere, nowhere or unproven."""
    defined = [each for each in slices if each.tax.defined]
    if any(each.tax.lost for each in slices if not each.tax.defined):
        return ""
    losing = [each for each in defined if each.tax.lost]
    others = [each for each in defined if not each.tax.lost]
    if not losing or not others:
        return ""
    if not all(each.tax.shows_loss and each.p_holm < 1 - CONFIDENCE for each in losing):
        return ""
    lost = sum(each.tax.lost for each in losing)
    asked, elsewhere = (sum(each.tax.pairs for each in part) for part in (losing, others))
    return (
        f"{_place_name(column, [each.value for each in losing], [each.value for each in defined])} "
        f"({lost:,} of {asked:,} lost; 0 of {elsewhere:,} at others)"
    )


def _place_name(column: str, values: Sequence[str], asked: Sequence[str]) -> str:
    said = " or ".join(filter(None, [", ".join(values[:-1]), values[-1]]))
    if column not in PHASES:
        return f"a depth of {said}"
    _, of, modulus = PHASES[column]
    blocks = {int(value) % 4 for value in values}
    same = [value for value in asked if int(value) % 4 in blocks]
    if len(blocks) == 1 and modulus > 4 and same == list(values):
        return f"a {NOUNS[of]} of {blocks.pop()} modulo 4 ({said} modulo {modulus})"
    return f"a {NOUNS[of]} of {said} modulo {modulus}"


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


def _overlapping(rows: pd.DataFrame) -> Iterator[str]:
    """Corpora of whose streams each reads much of another's text."""
    asked = rows[rows["offset"].notna() & rows["control"].isna()]
    for _, run in asked.groupby("run", sort=False):
        for corpus, group in run.groupby("corpus", sort=False):
            streams = group.groupby("stream_id").agg(
                start=("offset", "min"), read=("length", "max")
            )
            starts = streams["start"].to_numpy(dtype=int)
            text = overlap_text(str(corpus), starts, starts + streams["read"].to_numpy(dtype=int))
            if text:
                yield text


def _binned(rows: pd.DataFrame) -> Iterator[str]:
    for axis, exact in EXACT.items():
        if exact in rows and (rows[axis] != rows[exact])[rows[exact].notna()].any():
            yield (
                f"{rows[exact].nunique()} {exact.removeprefix('exact_')}s were asked, more than an "
                f"axis shows: neighbours are put together, and labels say which."
            )
