"""Lists what a report shows below its heatmaps: figures and tables with their captions.

The page and the files are made from these lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from niah.report import tables
from niah.report.drawing import figures
from niah.report.drawing.look import Look, look_of
from niah.report.drawing.theme import inline_svg, style
from niah.statistics.comparisons import Comparison
from niah.statistics.intervals import BASELINE_FLOOR
from niah.statistics.noise import Noise
from niah.text_format import length_text, nats, points

SHARES = frozenset({"recall", "low", "high", "exact", "contains", "discordance", "whole", "left"})
NATS = frozenset({"baseline", "compressed", "difference", "low", "high"})
MEDIANS = frozenset({"rivals", "first_difference"})


@dataclass(frozen=True)
class Table:
    """Numbers with a title and a caption."""

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    look: Look

    def table(self) -> tuple[list[str], list[list[str]]]:
        return text_table(self.frame, self.look)


@dataclass(frozen=True)
class Plate(Table):
    """A table that is drawn as a figure, too."""

    draw: Callable[[pd.DataFrame, Look], Figure]

    def figure(self) -> Figure:
        with style():
            return self.draw(self.frame, self.look)

    def svg(self) -> str:
        return inline_svg(self.figure(), self.name, self.title)


def make_plates(rows: pd.DataFrame, comparisons: Sequence[Comparison]) -> list[Plate]:
    """The plates that these rows can fill, in the order of the page.

    Repeat arms are drawn beside the baseline in recall and seconds only.
    """
    look, arms = look_of(rows), without_repeats(rows)
    floor = comparisons[0].floor if comparisons else BASELINE_FLOOR
    found = [
        Plate(
            "recall",
            "Recall by length",
            "Exact answers of all that were asked; bars are 95% intervals clustered by stream. The "
            "numbers below tell how many answers contain the right value.",
            tables.recall_by_length(rows),
            look,
            figures.draw_recall,
        ),
        Plate(
            "tax",
            "Tax by length",
            "Points of recall lost on the same questions, with 95% paired intervals. Lengths at "
            "which the baseline recalls too little have none: the line breaks there. A point "
            "without an interval has too few streams to decide anything.",
            tables.tax_by_length(comparisons),
            look,
            figures.draw_tax,
        ),
        Plate(
            "logprob",
            "Gold log-probability",
            "How much less likely the right answer becomes: its log-probability in the compressed "
            "arm minus that in the baseline, on the same questions, in nats (−0.7 halves the "
            "probability). It can fall before recall does. Bars are 95% paired intervals.",
            tables.logprob_by_length(comparisons),
            look,
            figures.draw_logprob,
        ),
        Plate(
            "families",
            "Tax by needle family",
            "What is to be remembered, a kind a line. Bars are 95% paired intervals; undefined is "
            "a kind that the baseline itself recalls too little of.",
            _of_several(tables.tax_by_family(comparisons), "family"),
            look,
            figures.draw_families,
        ),
        Plate(
            "texts",
            "Tax by haystack",
            "Beside each text, how many times smaller zlib makes it: text that is hard to compress "
            "is where a compressed cache is said to fail. Bars are 95% paired intervals.",
            _of_several(tables.tax_by_text(rows, comparisons), "haystack"),
            look,
            figures.draw_texts,
        ),
        Plate(
            "outcomes",
            "Kinds of error",
            "How the wrong answers were wrong, as a share of everything asked.",
            tables.outcomes_by_length(arms),
            look,
            figures.draw_outcomes,
        ),
        Plate(
            "losses",
            "Where needles were lost",
            "The wrong answers of arms that select entries. Selection: no layer selected an entry "
            "that holds the wanted token. Compression: one did, and it was not read out of it. "
            "Window: the token was still in the exact window. Elsewhere: of no one place.",
            tables.losses_by_length(arms),
            look,
            figures.draw_losses,
        ),
        Plate(
            "bytes",
            "Cache held",
            "Bytes of the tensors held when the question was asked: in all, by length, and by kind "
            "at the longest length of all arms.",
            tables.bytes_by_length(arms),
            look,
            figures.draw_bytes,
        ),
        Plate(
            "pareto",
            "Recall against bytes",
            "Each point is an arm: what it holds for a token of the prompt, and what it recalls of "
            "all that was asked. The line joins the arms that no other arm beats in both; arms of "
            "one technique have one colour. Bars are 95% intervals clustered by stream.",
            tables.pareto_by_length(arms),
            look,
            figures.draw_pareto,
        ),
        Plate(
            "memories",
            "What each memory holds and carries",
            "One memory is taken away, or queries select fewer or more entries, when the question "
            "begins. Left: the bytes that are gone. Right: the points of recall lost against the "
            "same arm with all of its memory, on the same questions, with 95% paired intervals. "
            "One memory can stand in for another, so losses do not add up. No interval: too few "
            "streams. No point: the arm recalls too little with all of its memory.",
            tables.memories_by_length(rows, floor),
            look,
            figures.draw_memories,
        ),
        Plate(
            "seconds",
            "Seconds",
            "Medians. Prefill is what the whole prompt would take from nothing; a sweep shares it.",
            tables.seconds_by_length(rows),
            look,
            figures.draw_seconds,
        ),
        Plate(
            "phases",
            "Phase",
            "Recall by what the prompt's length and the needle's start leave when divided by 4 and "
            "128. Compression works in blocks of these sizes. A residue whose interval lies below "
            "those of the others may point to a defect; with few questions one dips by chance.",
            tables.recall_by_phase(arms),
            look,
            figures.draw_phases,
        ),
    ]
    return [plate for plate in found if len(plate.frame)]


def make_tables(
    rows: pd.DataFrame, comparisons: Sequence[Comparison], noises: Sequence[Noise]
) -> list[Table]:
    """The tables without a figure that these rows can fill, in the order of the page."""
    look = look_of(rows)
    found = [
        Table(
            "asked",
            "What was asked",
            "Questions and their streams by length; rivals are values in the prompt that answer "
            "another question (median).",
            tables.asked_by_length(rows),
            look,
        ),
        Table(
            "answers",
            "Exact and contains",
            "Two rules: an exact answer is the planted value and no other; one that contains it "
            "may say anything beside it. Tax and recall count exact answers.",
            tables.answers_by_arm(rows),
            look,
        ),
        Table(
            "noise",
            "Noise floor",
            "The baseline asked once more. A tax that is no larger than this is no finding.",
            tables.noise_table(noises),
            look,
        ),
        Table(
            "trainings",
            "Luck of training",
            "Each compressed training against each training of the baseline, on the questions that "
            "all were asked.",
            tables.tax_by_training(rows),
            look,
        ),
        Table(
            "parting",
            "Where answers part",
            "Pairs whose two answers are the same, token by token; of the others, the index from 0 "
            "of the first token that differs (median).",
            tables.parting_by_length(comparisons),
            look,
        ),
    ]
    return [table for table in found if len(table.frame)]


def without_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of baselines and compressed arms; all rows where there is no such arm."""
    kept = rows[rows["role"] != "repeat"]
    return kept if len(kept) else rows


def _of_several(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table, or nothing where the column has one value only."""
    return frame if len(frame) and frame[column].nunique() > 1 else frame.iloc[:0]


def text_table(frame: pd.DataFrame, look: Look | None = None) -> tuple[list[str], list[list[str]]]:
    """Headers and cells as text: counts plain, shares in percent, bytes grouped, times rounded."""
    units = {str(column): _unit(str(column), frame) for column in frame.columns}
    headers = [_header(column, unit) for column, unit in units.items()]
    columns = [
        [_text(column, unit, value, look) for value in frame[column]]
        for column, unit in units.items()
    ]
    return headers, [list(line) for line in zip(*columns, strict=True)]


def _unit(column: str, frame: pd.DataFrame) -> str:
    """Of a share: an interval is in points where it is that of a tax, and `compressed` is a recall
    beside that of the baseline, else a kind of bytes."""
    if "difference" in frame:
        return "nats" if column in NATS else ""
    if column == "tax" or ("tax" in frame and column in ("low", "high")):
        return "points"
    recalls = ("baseline", "compressed") if "baseline" in frame else ()
    return "%" if column in SHARES or column in recalls else ""


def _header(column: str, unit: str) -> str:
    name = column.replace("_seconds", ", s").replace("_", " ")
    return f"{name}, {unit}" if unit else name


def _text(column: str, unit: str, value: object, look: Look | None) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, int | float | np.number):
        return str(value)
    number = float(value)
    if np.isnan(number):
        return "–"
    if column == "length":
        return look.length(number) if look else length_text(number)
    if unit:
        return nats(number) if unit == "nats" else points(number)
    if column in MEDIANS:
        return f"{number:,.1f}".removesuffix(".0")
    if column == "ratio":
        return f"{number:,.2f}"
    if column.endswith("_seconds"):
        return f"{number:.3f}"
    return f"{number:,.0f}"
