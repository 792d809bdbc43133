"""What the page's script looks up: cells by filter, and the questions behind a cell.

Owns the compact JSON of the page and its size. Computes nothing; text is cut, never dropped
without saying so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from niah.series import questions
from niah.views import Heatmap
from niah.wording import length_text, loss_text, slice_text

MAX_QUESTION_BYTES = 3_000_000
MAX_EXCERPT_BYTES = 1_000_000
MAX_TEXT = 400  # characters of a question or an answer


def page_views(arms: Sequence[str], heatmap: Heatmap, limit: float) -> dict[str, Any]:
    """A comparison: arms, axes, filters and, by chosen filters, [row, column, *numbers] a cell."""
    return {
        "arms": arms,
        "lengths": heatmap.lengths,
        "depths": heatmap.depths,
        "limit": limit,
        "filters": [{"name": f.name, "label": f.label} for f in heatmap.filters],
        "options": heatmap.options,
        "views": {
            chosen: [[row, column, *cell.as_list()] for (row, column), cell in cells.items()]
            for chosen, cells in heatmap.views.items()
        },
    }


def page_questions(rows: pd.DataFrame, max_bytes: int = MAX_QUESTION_BYTES) -> dict[str, Any]:
    """The questions with every arm's answer, those that went wrong first.

    Returns `asked` (how many there are), `arms` and `lines`; as many lines as fit into
    `max_bytes`, each with the text around its needle while that fits too. `tables` holds the
    names that a line refers to by number.
    """
    asked = questions(rows)
    arms = list(dict.fromkeys(asked["arm"]))
    tables = {
        name: list(dict.fromkeys(map(str, asked[name])))
        for name in ("family", "corpus", "template_split", "outcome", "run")
    }
    lengths, depths = (
        asked["at_length"].map(length_text),
        asked["at_depth"].map(lambda depth: slice_text("at_depth", depth)),
    )
    tables |= {"length": list(dict.fromkeys(lengths)), "depth": list(dict.fromkeys(depths))}
    index = {name: {value: n for n, value in enumerate(found)} for name, found in tables.items()}
    order = asked.groupby("pair", sort=False)["recalled"].min().sort_values(kind="stable").index
    answers = _answers(asked, arms, index["outcome"])
    first = asked.assign(length_label=lengths, depth_label=depths).drop_duplicates("pair")
    lines: list[list[object]] = []
    size = text_size = 0
    for row in first.set_index("pair").loc[order].reset_index().to_dict("records"):
        excerpt = _excerpt(row["excerpt"])
        text_size += sum(len(part.encode()) for part in excerpt)
        line = [
            index["length"][row["length_label"]],
            index["depth"][row["depth_label"]],
            *(index[name][str(row[name])] for name in ("family", "corpus", "template_split")),
            int(row["length"]),
            -1 if pd.isna(row["needle_start"]) else int(row["needle_start"]),
            cut(row["question"]),
            cut(_gold(row["gold"])),
            index["run"][row["run"]],
            str(row["key"]),
            answers[row["pair"]],
            excerpt if text_size <= MAX_EXCERPT_BYTES else [],
        ]
        size += sum(len(str(part).encode()) + 4 for part in line)
        if size > max_bytes:
            break
        lines.append(line)
    return {"asked": len(first), "arms": arms, "tables": tables, "lines": lines}


def cut(text: object) -> str:
    """Text for a reader; a cut one says how long it was."""
    whole = str(text)
    return whole if len(whole) <= MAX_TEXT else f"{whole[:MAX_TEXT]}… ({len(whole):,} characters)"


def _answers(
    asked: pd.DataFrame, arms: Sequence[str], outcomes: dict[str, int]
) -> dict[str, list[object]]:
    """By pair: [answer or error, outcome, recalled, where it was lost] an arm, or None where it was
    not asked."""
    place = {arm: number for number, arm in enumerate(arms)}
    found: dict[str, list[object]] = {}
    names = ["pair", "arm", "answer", "error", "outcome", "recalled", "failed"]
    columns = asked[[*names, "lost_by", "selection"]].itertuples(index=False)
    for pair, arm, answer, error, outcome, recalled, failed, lost_by, selection in columns:
        said = cut(error if failed else answer)
        found.setdefault(pair, [None] * len(arms))[place[arm]] = [
            said,
            outcomes[str(outcome)],
            int(recalled),
            loss_text(lost_by, selection) if isinstance(selection, list) else "",
        ]
    return found


def _gold(gold: object) -> str:
    return ", ".join(map(str, gold)) if isinstance(gold, list | tuple) else str(gold)


def _excerpt(excerpt: object) -> list[str]:
    """Text before the needle, the needle, text after it; empty where a row has none."""
    if not isinstance(excerpt, dict):
        return []
    return [cut(excerpt[part]) for part in ("before", "needle", "after")]
