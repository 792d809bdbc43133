"""What the harness adds to the models' time, as a share: planting, forking, scoring, storing."""

from pathlib import Path

import pytest

from niah.materials import Bench
from niah.plan import make_plan
from niah.run import Tally, jobs_left, open_store, run_jobs
from tests.niah.fakes import RecallModel, sweep_of, tiny_materials

# The nano pair's pace on two cores.
SECONDS_PER_TOKEN = 1 / 6000
SECONDS_PER_ANSWER = 0.05


@pytest.mark.benchmark
@pytest.mark.slow
def test_the_harness_takes_at_most_a_fiftieth_of_a_run(tmp_path: Path) -> None:
    sweep = sweep_of(lengths=["1K", "4K"], depths=5, repeats=1)
    models = {
        arm.name: RecallModel(
            name=arm.name,
            memory=1 << 30 if arm.role == "baseline" else 2048,
            fingerprint=arm.name,
            seconds_per_token=SECONDS_PER_TOKEN,
            seconds_per_answer=SECONDS_PER_ANSWER,
        )
        for arm in sweep.arms
    }
    bench = Bench(models, tiny_materials())
    plan = make_plan(sweep, bench.materials)
    tally = Tally()
    with open_store(tmp_path, sweep, bench) as store:
        jobs = jobs_left(plan, bench, store, lambda arm, tokens: None)
        run_jobs(jobs, bench, store, tally)
    outside = 1 - tally.model_seconds / tally.seconds
    print(f"outside the models: {outside:.2%} of {tally.seconds:.1f} s, {tally.rows} rows")
    assert outside <= 0.02
