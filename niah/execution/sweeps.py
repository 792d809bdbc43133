"""Carries out a whole sweep: load, plan, ask what is left, tell what was done."""

from collections.abc import Callable
from pathlib import Path

from niah.execution.jobs import Progress, Tally, jobs_left, open_store, run_jobs
from niah.execution.loading import Bench, load_bench
from niah.execution.places import Here, Place, find_place
from niah.execution.prepare import Prepared, lay_out
from niah.runs.history import earlier_sweeps
from niah.runs.store import Store, is_finished
from niah.sweep.config import load_sweep
from niah.sweep.trials import Plan


def ask_what_is_left(
    plan: Plan,
    bench: Bench,
    store: Store,
    progress: Progress,
    tally: Tally,
    place: Place | None = None,
) -> None:
    """Ask, in this process or at `place`, what `store` has no answer to."""
    executor = (place or Here()).executor(plan, bench, store.folder, progress)
    run_jobs(jobs_left(plan, bench, store), executor, store, tally)


def no_progress(arm: object, tokens: int) -> None:
    """Nobody watches."""


def run_sweep(
    config: Path,
    out: Path | None = None,
    progress: Progress = no_progress,
    prepared: Callable[[Prepared], None] = lambda _: None,
    ray: str | None = None,
    gpus: float = 1,
) -> Tally:
    """Run the sweep of a YAML file; the same call again resumes an interrupted run.

    Args:
        config: the sweep's YAML file.
        out: the run's folder; `runs/NAME` of the sweep if None.
        progress: called with the arm and the prompt tokens computed since its last call.
        prepared: called once with the plan and its estimates, before the first question; not
            called where nothing is left to ask.
        ray: a Ray cluster whose workers ask the questions: `HOST:PORT`, `auto` (the one that this
            machine belongs to), or `local` (a new one on this machine). None: this process asks.
        gpus: GPUs of a worker, where the cluster has any.

    Raises:
        NiahError: the sweep cannot be carried out here, or lacks what the folder was asked.
            A question that fails is a row with an error, not an exception.
    """
    sweep = load_sweep(config)
    folder = out or Path("runs") / sweep.name
    before = earlier_sweeps(folder, sweep)  # refuses a changed sweep before any model is loaded
    tally = Tally()
    with find_place(ray, sweep, before, gpus) as place:
        bench = load_bench(sweep, place.load)
        if is_finished(folder, sweep.model_dump(mode="json"), bench.identity()):
            return tally
        found = lay_out(sweep, bench, before)
        prepared(found)
        with open_store(folder, found.plan, bench, place.environment()) as store:
            ask_what_is_left(found.plan, bench, store, progress, tally, place)
    return tally
