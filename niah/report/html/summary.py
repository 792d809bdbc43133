"""A comparison with its heatmap and its sentence, as the top of the page shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from niah.report.drawing.heatmap import Side, tax_limit
from niah.report.heatmap import Heatmap, make_heatmap
from niah.report.html.cells import Shown, shown_cell
from niah.report.html.data import layout, page_views
from niah.runs.tables import pair_arms, questions
from niah.statistics.comparisons import Comparison
from niah.statistics.intervals import Tax, estimate_recall
from niah.statistics.power import more_samples
from niah.text_format import length_text, points


@dataclass(frozen=True)
class Summary:
    """`alone`: an arm without another to compare it with, set against itself for its recall."""

    comparison: Comparison
    heatmap: Heatmap
    sentence: str
    saving: tuple[float, float] | None = None
    alone: bool = False

    @property
    def tax(self) -> Tax | None:
        return self.comparison.tax

    @property
    def limit(self) -> float:
        return tax_limit(self.heatmap)

    @property
    def sides(self) -> list[tuple[Side, str, str]]:
        """The heatmaps: side, name, and what they show."""
        found: list[tuple[Side, str, str]] = [
            ("baseline", self.comparison.baseline, "recall, %"),
            ("compressed", self.comparison.compressed, "recall, %"),
            ("tax", "Tax", "points of recall lost"),
        ]
        return found[:1] if self.alone else found

    @property
    def saved_at(self) -> str:
        """The length of `saving`, as text."""
        return length_text(self.saving[0]) if self.saving else ""

    def cell(self, side: Side, row: int, column: int) -> Shown | None:
        found = self.heatmap.whole.get((row, column))
        return shown_cell(found, side, self.limit) if found else None

    @property
    def layout(self) -> dict[str, Any]:
        return layout(self.heatmap)

    def page_data(self) -> dict[str, Any]:
        arms = [self.comparison.baseline, self.comparison.compressed]
        return page_views(arms, self.heatmap, self.limit) | {"alone": self.alone}

    def power(self) -> list[tuple[int, float | None]]:
        """(pairs, smallest tax that so many would show), for this sweep and larger ones."""
        if self.tax is None or not self.tax.decidable:
            return []
        return list(more_samples(self.tax).items())


def alone_summaries(rows: pd.DataFrame) -> Iterator[Summary]:
    """The arms of a run in which no two can be compared."""
    for arm, group in questions(rows).groupby("arm", sort=False):
        recall = estimate_recall(group["recalled"].to_numpy(), group["stream_id"].to_numpy())
        low, high = recall.interval
        sentence = (
            f"{arm} recalls {points(recall.value)}% of {recall.asked:,} questions "
            f"(95%: {points(low)} to {points(high)}); no other arm was asked them, so there is "
            "no tax to show."
        )
        name = str(arm)
        itself = Comparison(name, name, name, pair_arms(rows, name, name))
        yield Summary(itself, make_heatmap(itself), sentence, alone=True)
