"""Carries out a sweep: every arm, every stream, every row into the store."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from niah.execution.ask import Runner
from niah.execution.environment import environment
from niah.execution.loading import Bench
from niah.execution.timed_session import NOTHING, Spent
from niah.runs.store import Row, Store
from niah.sweep.config import Arm
from niah.sweep.trials import Plan, Stream, Trial

Progress = Callable[[Arm, int], None]  # prompt tokens computed since the last call


@dataclass
class Tally:
    """What a run did. `model_seconds`: spent inside models, out of `seconds`."""

    rows: int = 0
    errors: int = 0
    computed_tokens: int = 0
    reused_tokens: int = 0
    model_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, row: Row, before: Spent = NOTHING) -> None:
        """Count a row, without what was spent on it `before` this process took over."""
        self.rows += 1
        self.errors += row["error"] is not None
        self.computed_tokens += row["computed_tokens"] - before.tokens
        self.reused_tokens += row["reused_tokens"]
        spent = (f"{name}_seconds" for name in ("prefill", "decode", "gold", "trace"))
        self.model_seconds += sum(row[name] for name in spent) - before.seconds


@dataclass(frozen=True)
class Job:
    """What is left of a stream for one arm."""

    runner: Runner
    stream: Stream
    trials: list[Trial]

    @property
    def tokens(self) -> int:
        """Prompt tokens to compute."""
        trunk = max(trial.fork_at for trial in self.trials)
        return trunk + sum(trial.own_tokens for trial in self.trials)


def open_store(folder: Path, plan: Plan, bench: Bench) -> Store:
    """The run's folder, new or to be resumed. Raises: StoreError."""
    models = {arm: model.describe() for arm, model in bench.models.items()}
    facts = environment() | {"models": models}
    sweep = plan.sweep.model_dump(mode="json")
    before = [earlier.model_dump(mode="json") for earlier in plan.before]
    return Store(folder, sweep, bench.identity(), facts, planned_questions(plan), before)


def planned_questions(plan: Plan) -> Iterator[Row]:
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


def jobs_left(plan: Plan, bench: Bench, store: Store, progress: Progress) -> list[Job]:
    """What the store has no answer to, stream by stream, so that an interrupted run has pairs."""
    runners = [
        Runner(
            plan.sweep,
            arm,
            bench.models[arm.name],
            bench.materials.tokenizer,
            partial(progress, arm),
            store.folder,
        )
        for arm in plan.sweep.arms
    ]
    answered = store.answered
    jobs = [
        Job(runner, stream, runner.left(stream, answered))
        for stream in plan.streams
        for runner in runners
    ]
    return [job for job in jobs if job.trials]


def run_jobs(jobs: list[Job], bench: Bench, store: Store, tally: Tally) -> None:
    """Ask everything that is left; `tally` is kept up to date for whoever interrupts."""
    began = time.perf_counter()
    try:
        for job in jobs:
            corpus = bench.materials.corpora[job.stream.corpus]
            for number, row in enumerate(job.runner.rows(job.stream, corpus, job.trials)):
                store.append(row)
                tally.add(row, job.runner.restored if number == 0 else NOTHING)
    finally:
        tally.seconds = time.perf_counter() - began
