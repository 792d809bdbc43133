"""Judges the rows of runs again: `python -m tests.niah.scoring.judge_again results/*`.

Prints a line per row whose outcome changed, then the counts. Rivals and haystacks are rebuilt from
each run's own configuration. Rows without answers (references of `niah accept`) are left out.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from niah.errors import StoreError
from niah.runs.archive import Archive, open_archive
from niah.scoring.answer_values import Case
from niah.scoring.outcomes import contains, judge
from niah.sweep.prompts import Context


def cases(archive: Archive) -> Iterator[tuple[dict[str, Any], Case]]:
    """Every row that holds an answer, with the case that it was judged as."""
    contexts: dict[int, Context] = {}
    for row in archive.rows:
        if row["error"] is not None:
            continue
        stream, trial = archive.places[row["pair"]]
        if id(stream) not in contexts:
            contexts[id(stream)] = archive.context(stream)
        context = contexts[id(stream)]
        yield (
            row,
            Case(
                answer=row["answer"],
                gold=trial.fact.gold,
                answer_format=trial.fact.answer_format,
                in_order=trial.fact.answer_mode == "all in order",
                rivals=context.rivals(trial),
                cut_short=is_cut_short(row, trial.max_new_tokens),
                context=lambda context=context, trial=trial: archive.materials.tokenizer.decode(
                    context.text_ids(trial)
                ),
                question=trial.fact.question,
            ),
        )


def is_cut_short(row: dict[str, Any], limit: int) -> bool:
    """Rows of old runs do not say how an answer ended."""
    finish = row.get("finish")
    return row["answer_tokens"] >= limit if finish is None else finish == "length"


def main(folders: list[str]) -> None:
    for folder in map(Path, folders):
        try:
            archive = open_archive(folder)
        except StoreError as error:
            print(f"{folder}: left out: {error}"[:120])
            continue
        changes: Counter[str] = Counter()
        parted: Counter[str] = Counter()
        total = 0
        for row, case in cases(archive):
            total += 1
            outcome = judge(case)
            parted["exact only"] += outcome == "exact" and not contains(case)
            parted["contains only"] += outcome != "exact" and contains(case)
            if outcome != row["outcome"]:
                changes[f"{row['outcome']} -> {outcome}"] += 1
                print(
                    f"  {folder.name} {row['key']} {row['family']} {row['outcome']} -> {outcome}:"
                    f" {case.gold} {case.answer!r}"
                )
        print(f"{folder}: {total} answers, changed {dict(changes)}, {dict(parted)}")


if __name__ == "__main__":
    main(sys.argv[1:])
