"""Carries out a whole sweep: load, plan, ask what is left, tell what was done."""

from collections.abc import Callable
from pathlib import Path

from niah.execution.jobs import Progress, Tally, jobs_left, open_store, run_jobs
from niah.execution.prepare import Prepared, prepare


def no_progress(arm: object, tokens: int) -> None:
    """Nobody watches."""


def run_sweep(
    config: Path,
    out: Path | None = None,
    progress: Progress = no_progress,
    prepared: Callable[[Prepared], None] = lambda _: None,
) -> Tally:
    """Run the sweep of a YAML file; the same call again resumes an interrupted run.

    Args:
        config: the sweep's YAML file.
        out: the run's folder; `runs/NAME` of the sweep if None.
        progress: called with the arm and the prompt tokens computed since its last call.
        prepared: called once with the plan and its estimates, before the first question.

    Raises:
        NiahError: the sweep cannot be carried out here, or the folder belongs to another sweep.
            A question that fails is a row with an error, not an exception.
    """
    found = prepare(config)
    prepared(found)
    folder = out or Path("runs") / found.plan.sweep.name
    tally = Tally()
    with open_store(folder, found.plan, found.bench) as store:
        run_jobs(jobs_left(found.plan, found.bench, store, progress), found.bench, store, tally)
    return tally
