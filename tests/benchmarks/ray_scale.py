"""What the driver of a Ray run costs: simulated workers on this machine, real rows and transport.

    python -m tests.benchmarks.ray_scale [streams] [questions] [workers] [milliseconds]

Ten arms. A worker sleeps `milliseconds` a question instead of asking a model, and makes up the row.
Everything else is as in a run: the plan, the jobs, Ray's transport, the writer. Printed are the
driver's processor time a row and a job, its resident memory over the rows, and which share of the
workers' time, from a worker's first question to its last, they spend outside their sleep.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from models.protocols import Model
from niah.execution.executors.ray import Crew, Order, connected
from niah.execution.executors.ray_worker import Message, Outbox, Worker
from niah.execution.jobs import Executor, Finished, Job, Tally, jobs_left, open_store, run_jobs
from niah.execution.loading import load_bench
from niah.runs.row import Row
from niah.sweep.config import Sweep
from niah.sweep.planner import make_plan
from niah.sweep.trials import key_identity
from tests.niah.fakes import RecallModel, sweep_of

ARMS = 10
MODEL = Row(
    **{"key": "", "pair": "", "arm": "", "role": "compressed", "model": "simulated"},
    **{"family": "single_number", "corpus": "kjv", "length": 8192, "depth": 0.5, "correct": True},
    question=" What is the secret code for amber falcon? The secret code for amber falcon is",
    gold=("48213",),
    answer=" 48213",
    answer_ids=(220, 19, 23, 17, 16, 18),
    finish="stop",
    contains=True,
    outcome="exact",
    gold_logprob=-0.25,
    spans=((4096, 4112),),
    excerpt={"before": "w" * 100, "needle": "n" * 60, "after": "w" * 100},
    cache_bytes={"window": 1 << 20, "csa": 1 << 20, "index": 1 << 20, "total": 3 << 20},
    **{"computed_tokens": 100, "reused_tokens": 8092, "prefill_seconds": 0.0},
    **{"cold_prefill_seconds": 0.0, "gold_seconds": 0.0},
)


class Simulated(Worker):
    """Sleeps for `seconds` a question: an option of its arm."""

    def load_model(self) -> Model:
        return RecallModel(name="simulated", fingerprint=f"{self.arm.name:0>16}")

    def rows(self, task: Message, outbox: Outbox) -> Iterator[Finished]:
        seconds = self.arm.options["seconds"]
        assert isinstance(seconds, float)
        fingerprint = f"{self.arm.name:0>16}"
        for job in task["jobs"]:
            for pair in job["pairs"]:
                began = time.perf_counter()
                if seconds:
                    time.sleep(seconds)
                spent = time.perf_counter() - began
                key = key_identity(pair, self.arm.name, fingerprint)
                row = {"key": key, "pair": pair, "arm": self.arm.name, "decode_seconds": spent}
                when = {"worker": os.getpid(), "began": time.time() - spent, "ended": time.time()}
                yield Finished(MODEL.model_copy(update={**row, "when": when}))


@dataclass
class Shift:
    """A worker's time from its first question to its last, and what it slept."""

    began: float
    ended: float = 0.0
    slept: float = 0.0


@dataclass
class Watched:
    """An executor, and the shifts of its workers by process."""

    inner: Executor
    shifts: dict[int, Shift] = field(default_factory=dict)

    def run(self, jobs: Iterable[Job]) -> Iterator[Finished]:
        for finished in self.inner.run(jobs):
            when: Any = (finished.row.model_extra or {})["when"]
            shift = self.shifts.setdefault(when["worker"], Shift(when["began"]))
            shift.ended = when["ended"]
            shift.slept += finished.row.decode_seconds or 0.0
            yield finished

    @property
    def outside(self) -> float:
        """The share of all shifts that is not sleep."""
        shifts = self.shifts.values()
        return 1 - sum(s.slept for s in shifts) / sum(s.ended - s.began for s in shifts)


def sweep_for(streams: int, questions: int, seconds: float) -> Sweep:
    arms = [
        {
            "name": f"arm{number}",
            "role": "compressed",
            "model": "random-v4",
            "options": {"seconds": seconds},
        }
        for number in range(ARMS)
    ]
    return sweep_of(
        arms=arms,
        corpora="kjv",
        lengths=["8K"],
        depths=questions,
        repeats=streams,
        max_needle_share=1,
    )


def measure(streams: int, questions: int, milliseconds: float) -> None:
    sweep, process = sweep_for(streams, questions, milliseconds / 1000), psutil.Process()

    def held() -> float:
        return process.memory_info().rss / 2**20

    with Crew(Order(sweep, worker=Simulated)) as crew, tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        bench = load_bench(sweep, crew.load)
        print(f"{ARMS} workers have loaded after {time.perf_counter() - began:.0f} s")
        before, began = held(), time.perf_counter()
        plan = make_plan(sweep, bench.materials)
        each = (held() - before) * 2**20 / plan.questions
        print(
            f"planned {plan.questions:,} questions in {time.perf_counter() - began:.0f} s, "
            f"{each:,.0f} bytes each"
        )
        with open_store(Path(folder), plan, bench, crew.environment()) as store:
            jobs, tally = jobs_left(plan, bench, store), Tally()
            total = ARMS * plan.questions
            marks = [total * tenth // 10 for tenth in range(11)]

            def progress(arm: object, tokens: int) -> None:
                while marks and tally.rows >= marks[0]:
                    print(f"{marks.pop(0):>9,} rows: {held():,.0f} MiB", flush=True)

            cpu = process.cpu_times()
            watched = Watched(crew.executor(plan, bench, Path(folder), progress))
            run_jobs(jobs, watched, store, tally)
            used = process.cpu_times()
            print(f"{held():,.0f} MiB at the end; {(Path(folder) / 'rows.jsonl').stat().st_size:,}")
    own = used.user + used.system - cpu.user - cpu.system
    assert tally.rows == total
    print(
        f"{len(jobs):,} jobs, {tally.rows:,} rows in {tally.seconds:.0f} s: "
        f"{tally.rows / tally.seconds:,.0f} rows a second; the driver's processor time: "
        f"{1e6 * own / tally.rows:.0f} us a row, {1e3 * own / len(jobs):.1f} ms a job, "
        f"{own / tally.seconds:.1%} of a core"
    )
    print(f"{watched.outside:.2%} of the time of {len(watched.shifts)} workers is not sleep")


def main() -> None:
    given = [float(text) for text in sys.argv[1:]]
    streams, questions, workers, milliseconds = [*given, *(20.0, 100.0, 4.0, 0.0)[len(given) :]]
    import ray

    ray.init(
        num_cpus=int(workers),
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    with connected("auto"):
        measure(int(streams), int(questions), milliseconds)
    ray.shutdown()


if __name__ == "__main__":
    main()
