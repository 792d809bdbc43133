"""Writes tests/slow_tests.txt, the tests that `make quick` leaves out, by measured time.

    python -m pytest -q --durations=0 --durations-min=0.02 > times.log
    python -m tests.mark_slow times.log --budget 40

The dearest tests are left out until the rest takes at most `budget` seconds of those measured. A
test function counts with all its parameters; a fixture's time counts for its whole file.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

TARGET = Path(__file__).parent / "slow_tests.txt"
LINE = re.compile(r"^([\d.]+)s (call|setup|teardown)\s+(\S+?\.py)::([^\[\s]+)")
FIXTURE_SECONDS = 1.0  # of a set-up: from here on its whole file is left out


def measured(log: str) -> tuple[dict[str, float], set[str]]:
    """Seconds by test function, and the files with a fixture that takes long."""
    seconds: dict[str, float] = defaultdict(float)
    dear: set[str] = set()
    for line in log.splitlines():
        if found := LINE.match(line):
            spent, phase, path, function = found.groups()
            seconds[f"{path}::{function}"] += float(spent)
            if phase == "setup" and float(spent) >= FIXTURE_SECONDS:
                dear.add(path)
    return seconds, dear


def left_out(log: str, budget: float) -> list[str]:
    """Files and test functions to leave out, sorted."""
    seconds, dear = measured(log)
    others = {name: spent for name, spent in seconds.items() if name.split("::")[0] not in dear}
    rest = sum(others.values())
    gone = sorted(dear)
    for name, spent in sorted(others.items(), key=lambda item: -item[1]):
        if rest <= budget:
            break
        rest -= spent
        gone.append(name)
    return sorted(gone)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--budget", type=float, default=40.0)
    options = parser.parse_args()
    gone = left_out(options.log.read_text(encoding="utf-8"), options.budget)
    TARGET.write_text("".join(f"{name}\n" for name in gone), encoding="utf-8")
    print(f"{len(gone)} files and tests are left out of `make quick`")


if __name__ == "__main__":
    main()
