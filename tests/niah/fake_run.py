"""Runs the small sweep with fake models in a process of its own: `python -m ... OUT SECONDS`."""

import sys
from pathlib import Path

from niah.execution.jobs import Tally, open_store
from niah.execution.sweeps import ask_what_is_left
from niah.sweep.planner import make_plan
from tests.niah.fakes import fake_bench, sweep_of, tiny_materials


def main(folder: Path, seconds_per_answer: float) -> None:
    sweep = sweep_of(controls=["no_needle"], chunk_tokens=256)
    bench = fake_bench(sweep, tiny_materials(), seconds_per_answer=seconds_per_answer)
    plan = make_plan(sweep, bench.materials)
    with open_store(folder, plan, bench) as store:
        ask_what_is_left(plan, bench, store, lambda arm, tokens: None, Tally())


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
