"""Fail unless an arm of a run recalls at least a share: `recall.py RUN ARM SHARE`.

A question that ended in an error counts as one that was not recalled.
"""

import sys
from pathlib import Path

from niah.runs.store import read_rows


def main(run: Path, arm: str, share: float) -> int:
    rows = [row for row in read_rows(run) if row.arm == arm and row.control is None]
    right = sum(bool(row.correct) for row in rows)
    print(f"{arm}: {right} of {len(rows)} right; at least {share:.0%} are wanted")
    return 0 if rows and right >= share * len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
