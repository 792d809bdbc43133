"""Compares the answers of two runs, key by key.

`python -m tests.same_answers results/bar runs/bar`: exit 0 where every question that both runs were
asked has the same answer, the same outcome and the same place. A key is a hash of the prompt's
tokens, the arm, its weights and its options, so equal keys are equal questions to equal models.
"""

import sys
from pathlib import Path

from niah.runs.row import Row
from niah.runs.store import read_rows

COMPARED = ("answer", "correct", "outcome", "needle_start", "length", "lost_by")
SHOWN = 5


def differences(before: list[Row], now: list[Row]) -> list[str]:
    """A line for each question that differs, or that one run alone was asked."""
    then = {row.key: row for row in before}
    later = {row.key: row for row in now}
    alone = [f"{key}: in one run alone" for key in then.keys() ^ later.keys()]
    return alone + [
        f"{key}: {name} was {getattr(then[key], name)!r}, is {getattr(later[key], name)!r}"
        for key in then.keys() & later.keys()
        for name in COMPARED
        if getattr(then[key], name) != getattr(later[key], name)
    ]


def main(before: Path, now: Path) -> int:
    rows = read_rows(before), read_rows(now)
    found = differences(*rows)
    print(f"{before}: {len(rows[0])} rows; {now}: {len(rows[1])} rows; {len(found)} differences")
    for line in found[:SHOWN]:
        print(line)
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main(*map(Path, sys.argv[1:3])))
