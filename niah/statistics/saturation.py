"""Slices that cannot tell arms apart: every arm is right everywhere, or wrong everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import pandas as pd

from niah.runs.tables import questions
from niah.statistics.columns import SLICES, slice_text
from niah.text_format import counted

COLUMNS = ("family", "at_length", "corpus")


class Saturated(NamedTuple):
    """A slice at the ceiling (all right in every arm) or at the floor (none right in any)."""

    column: str
    value: object
    at: Literal["ceiling", "floor"]
    asked: int  # questions to each arm, the most of them

    @property
    def name(self) -> str:
        return f"{SLICES[self.column]} {slice_text(self.column, self.value)}"

    @property
    def text(self) -> str:
        """A clause: what every arm does there."""
        said = "is right in all" if self.at == "ceiling" else "is right in none"
        return f"{self.name} cannot tell arms apart: every arm {said} of {_asked(self.asked)}"


def saturated(rows: pd.DataFrame, columns: Sequence[str] = COLUMNS) -> list[Saturated]:
    """The slices of a run's rows that are at the ceiling or the floor in every arm.

    An error is not a right answer, and says nothing of a floor either: a slice with errors is
    neither, and one in which some arm was not asked all questions. With one arm there is nothing
    to tell apart.

    Args:
        rows: `Run.rows`, or the rows of several runs.
        columns: of `niah.statistics.columns.SLICES`.
    """
    asked = questions(rows)
    if asked["arm"].nunique() < 2:
        return []
    return [found for column in columns for found in _of_column(asked, column)]


def _of_column(asked: pd.DataFrame, column: str) -> Iterator[Saturated]:
    arms = asked["arm"].nunique()
    for value, group in asked.groupby(column, sort=True):
        by_question = group.groupby("pair")["arm"].nunique()
        if group["failed"].any() or not (by_question == arms).all():
            continue
        most = len(by_question)
        if group["recalled"].all():
            yield Saturated(column, value, "ceiling", most)
        elif not group["recalled"].any():
            yield Saturated(column, value, "floor", most)


def _asked(number: int) -> str:
    return counted(number, "question")
