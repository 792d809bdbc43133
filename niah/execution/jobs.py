"""The jobs of a sweep, an arm and a stream each, and the way of their rows into the store."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Protocol

from niah.execution.ask import Finished
from niah.execution.environment import environment
from niah.execution.loading import Bench
from niah.execution.session_use import fork_position
from niah.execution.timed_session import NOTHING, Spent
from niah.runs.row import Row
from niah.runs.store import Question, Store
from niah.sweep.config import Arm, Sweep
from niah.sweep.trials import Plan, key_identity

Progress = Callable[[Arm, int], None]  # prompt tokens computed since the last call


@dataclass
class Tally:
    """What a run did. `model_seconds`: spent inside models, out of `seconds`.

    `untold`: answers of servers that do not say how many tokens they computed.
    """

    rows: int = 0
    errors: int = 0
    computed_tokens: int = 0
    reused_tokens: int = 0
    untold: int = 0
    model_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, row: Row, before: Spent = NOTHING) -> None:
        """Count a row, without what this process did not do `before` it, or has counted."""
        self.rows += 1
        self.errors += row.error is not None
        self.computed_tokens += (row.computed_tokens or 0) - before.tokens
        self.reused_tokens += (row.reused_tokens or 0) + before.tokens
        self.untold += row.error is None and row.computed_tokens is None
        spent: tuple[float | None, ...] = (row.request_seconds,)
        if row.request_seconds is None:
            spent = (row.prefill_seconds, row.decode_seconds, row.gold_seconds, row.trace_seconds)
        self.model_seconds += sum(seconds or 0.0 for seconds in spent) - before.seconds


@dataclass(frozen=True)
class Job:
    """What is left of a stream for one arm: a value that any executor can carry out.

    `stream` is an index into the plan's streams, `pairs` name the questions, `tokens` are the
    prompt tokens to compute.
    """

    arm: str
    stream: int
    pairs: tuple[str, ...]
    tokens: int


class Executor(Protocol):
    """Carries out jobs, wherever; rows come back to one writer."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Finished]:
        """The rows of all jobs; a job's rows come in the order of their forks."""


def open_store(
    folder: Path, plan: Plan, bench: Bench, machine: Mapping[str, Any] | None = None
) -> Store:
    """The run's folder, new or to be resumed; `machine` is what models run on, if not this process.

    Raises: StoreError.
    """
    used = {arm.name: arm.session.model_dump(exclude_defaults=True) for arm in plan.sweep.arms}
    models = {
        arm: {
            **model.describe(),
            "cache_kinds": dict(model.cache_kinds),
            **({"session": used[arm]} if used.get(arm) else {}),
        }
        for arm, model in bench.models.items()
    }
    facts = {
        **(environment() if machine is None else machine),
        "models": models,
        **sweep_folder(folder, plan.sweep),
    }
    sweep = plan.sweep.model_dump(mode="json")
    before = [earlier.model_dump(mode="json") for earlier in plan.before]
    return Store(folder, sweep, bench.identity(), facts, planned_questions(plan), before)


def sweep_folder(folder: Path, sweep: Sweep) -> dict[str, str]:
    """Where the relative paths of families begin, from the run's folder; nothing without any."""
    if not any(name.startswith("file:") for name in sweep.families):
        return {}
    return {"sweep_folder": Path(os.path.relpath(sweep.folder, folder.resolve())).as_posix()}


def planned_questions(plan: Plan) -> Iterator[Question]:
    """The fields of a row by which questions are paired, grouped and clustered."""
    for stream, trial in plan.trials():
        yield {
            "pair": trial.pair,
            "family": trial.family,
            "template_split": trial.templates,
            "corpus": stream.corpus,
            "layout": plan.sweep.layout,
            "stream": stream.index,
            "repeat": stream.repeat,
            "control": trial.control,
            "requested_length": trial.requested_length,
            "length": trial.length,
            "depth": trial.depth,
            "needle_start": trial.needle[0] if trial.needle else None,
        }


def jobs_left(plan: Plan, bench: Bench, store: Store) -> list[Job]:
    """What the store has no answer to, stream by stream, so that an interrupted run has pairs."""
    answered, fingerprints = store.answered, bench.fingerprints
    jobs = []
    for (index, stream), arm in product(enumerate(plan.streams), plan.sweep.arms):
        fingerprint = fingerprints[arm.name]
        left = [
            trial
            for trial in stream.trials
            if key_identity(trial.pair, arm.name, fingerprint) not in answered
        ]
        if left:
            forks = {trial.pair: fork_position(trial, arm.session) for trial in left}
            tokens = max(forks.values()) + sum(t.length - forks[t.pair] for t in left)
            jobs.append(Job(arm.name, index, tuple(trial.pair for trial in left), tokens))
    return jobs


def run_jobs(jobs: Iterable[Job], executor: Executor, store: Store, tally: Tally) -> None:
    """Ask everything that is left; `tally` is kept up to date for whoever interrupts."""
    began = time.perf_counter()
    try:
        for row, before in executor.run(jobs):
            store.append(row)
            tally.add(row, before)
    finally:
        tally.seconds = time.perf_counter() - began
