"""The page's JSON: cells by filter, and the questions behind a cell.

Text is cut to a size, and says so. The JSON may stand inside a script element, whatever text it
holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from niah.report.heatmap import Heatmap, filter_texts
from niah.report.html.cells import cell_line
from niah.runs.tables import questions
from niah.statistics.columns import FILTERS
from niah.text_format import loss_text

MAX_QUESTION_BYTES = 3_000_000
EXCERPT_SHARE = 0.4  # of those bytes, for the text around needles
MAX_TEXT = 400  # characters of a question or an answer
TOGETHER = 1000  # questions whose lines are made at once
# What could end the element or a line of it, and halves of characters, which no file can hold.
UNSAFE = re.compile("[<>&'\u2028\u2029\ud800-\udfff]")


def page_views(arms: Sequence[str], heatmap: Heatmap, limit: float) -> dict[str, Any]:
    """A comparison: arms, axes, filters and, by chosen filters, [row, column, *numbers] a cell.

    `lengths` and `depths` are labels; `at_length` and `at_depth` what they stand for in the
    questions. `combined`: whether every choice of several filters was computed.
    """
    return {
        "arms": arms,
        "lengths": heatmap.lengths,
        "depths": heatmap.depths,
        "at_length": heatmap.at_length,
        "at_depth": heatmap.at_depth,
        "limit": limit,
        "filters": [{"name": f.name, "label": f.title} for f in heatmap.filters],
        "options": heatmap.options,
        "combined": heatmap.combined,
        "layout": layout(heatmap),
        "views": {
            chosen: [
                [row, column, *cell_line(cell, limit)] for (row, column), cell in cells.items()
            ]
            for chosen, cells in heatmap.views.items()
        },
    }


def layout(heatmap: Heatmap) -> dict[str, Any]:
    """What the style sheet needs to know: classes, characters of a label, columns.

    `wide`: many columns; `dense`: their counts would not fit into them.
    """
    columns = len(heatmap.lengths)
    counts = [len(f"{c.baseline.correct}/{c.baseline.asked}") for c in heatmap.whole.values()]
    wide = " wide" * (columns > 8)
    dense = " dense" * (columns * (5.6 * max(counts, default=0) + 3) > 360)
    label = max(map(len, heatmap.depths), default=0)
    return {"classes": f"maps{wide}{dense}", "label": label, "columns": columns}


def page_questions(rows: pd.DataFrame, max_bytes: int = MAX_QUESTION_BYTES) -> dict[str, Any]:
    """The questions with every arm's answer, those that went wrong first.

    Returns `asked` (how many there are), `arms`, `filters` and `lines`; as many lines as fit into
    `max_bytes` of the page, each with the text around its needle while that fits too. `tables`
    holds the names and places that a line refers to by number.
    """
    asked = questions(rows)
    arms = list(asked["arm"].unique())
    asked = asked.assign(**filter_texts(asked))
    tables = {name: asked[name].unique().tolist() for name in _tabled()}
    lines: list[list[object]] = []
    size = text_size = 0
    for line, excerpt in _lines(asked, arms, tables):
        if text_size + page_bytes(excerpt) <= EXCERPT_SHARE * max_bytes:
            line[-1] = excerpt
            text_size += page_bytes(excerpt)
        size += page_bytes(line) + 1
        if size > max_bytes:
            break
        lines.append(line)
    names = [found.name for found in FILTERS]
    count = int(asked["pair"].nunique())
    return {"asked": count, "arms": arms, "filters": names, "tables": tables, "lines": lines}


def cut(text: object) -> str:
    """Text for a reader; a cut one says how long it was."""
    whole = str(text)
    return whole if len(whole) <= MAX_TEXT else f"{whole[:MAX_TEXT]}… ({len(whole):,} characters)"


def _lines(
    asked: pd.DataFrame, arms: Sequence[str], tables: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[list[object], list[str]]]:
    """Every question's line and its excerpt, made as far as they are read."""
    index = {name: {value: n for n, value in enumerate(found)} for name, found in tables.items()}
    order = asked.groupby("pair", sort=False)["recalled"].min().sort_values(kind="stable").index
    first = asked.drop_duplicates("pair").set_index("pair")
    for start in range(0, len(order), TOGETHER):
        pairs = order[start : start + TOGETHER]
        answers = _answers(asked[asked["pair"].isin(pairs)], arms, index["outcome"])
        for pair, row in zip(pairs, first.loc[pairs].to_dict("records"), strict=True):
            yield _line(row, index, answers[pair]), _excerpt(row["excerpt"])


def _tabled() -> list[str]:
    return ["at_length", "at_depth", *(f.name for f in FILTERS), "outcome", "run"]


def _line(
    row: Mapping[str, Any], index: Mapping[str, Mapping[Any, int]], answers: list[object]
) -> list[object]:
    """A question without the text around its needle."""
    return [
        index["at_length"][row["at_length"]],
        index["at_depth"][row["at_depth"]],
        [index[found.name][row[found.name]] for found in FILTERS],
        int(row["length"]),
        -1 if pd.isna(row["needle_start"]) else int(row["needle_start"]),
        cut(row["question"]),
        cut(_gold(row["gold"])),
        index["run"][row["run"]],
        str(row["key"]),
        answers,
        [],
    ]


def _answers(
    asked: pd.DataFrame, arms: Sequence[str], outcomes: Mapping[str, int]
) -> dict[str, list[object]]:
    """By pair: [answer or error, outcome, recalled, where it was lost, whether a wrong one contains
    the gold] an arm, or None where it was not asked."""
    place = {arm: number for number, arm in enumerate(arms)}
    found: dict[str, list[object]] = {}
    names = ["pair", "arm", "answer", "error", "outcome", "recalled", "failed", "contains"]
    columns = asked[[*names, "lost_by", "selection"]].itertuples(index=False)
    for pair, arm, answer, error, outcome, recalled, failed, holds, lost_by, selection in columns:
        said = cut(error if failed else answer)
        found.setdefault(pair, [None] * len(arms))[place[arm]] = [
            said,
            outcomes[outcome],
            int(recalled),
            loss_text(lost_by, selection),
            int(not (recalled or pd.isna(holds)) and bool(holds)),
        ]
    return found


def _gold(gold: object) -> str:
    return ", ".join(map(str, gold)) if isinstance(gold, list | tuple) else str(gold)


def _excerpt(excerpt: object) -> list[str]:
    """Text before the needle, the needle, text after it; empty where a row has none."""
    if not isinstance(excerpt, dict):
        return []
    return [cut(excerpt[part]) for part in ("before", "needle", "after")]


def page_json(value: object) -> Markup:
    """`value` as compact JSON; every other character stays as it is."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def page_bytes(value: object) -> int:
    """How many bytes of a page `page_json` takes."""
    return len(page_json(value).encode())
