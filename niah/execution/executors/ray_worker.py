"""The worker's side of a Ray cluster: one process that loads one arm's model and asks questions.

What goes over the wire are plain values: names, numbers, and rows as lines of rows.jsonl. A worker
reads texts, tokenizer and weights from its own machine, and checks that they are the driver's.
This module does not import ray: the class is a plain one.
"""

import json
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from haystacks.tokenizer import load_tokenizer
from models.protocols import Model
from niah.errors import PlanError, can_be_mended, told
from niah.execution.ask import Finished
from niah.execution.environment import ROOT, environment, installed, revision
from niah.execution.executors.local import LocalExecutor
from niah.execution.jobs import Job
from niah.execution.loading import Bench, load_arm, load_materials
from niah.execution.model_facts import facts_of
from niah.runs.history import differences
from niah.runs.store import LOCK
from niah.sweep.config import Arm, parse_sweep
from niah.sweep.grid import longest_prompt
from niah.sweep.planner import plan_repeat
from niah.sweep.trials import Plan, Stream
from niah.waiting import let_waiting_threads_sleep

Message = dict[str, Any]

BATCH_BYTES = 1 << 16  # Ray keeps smaller values with the driver: a lost machine loses none of them
BATCH_SECONDS = 0.5  # the longest that a row waits for others, and the pace of progress
ROWS_AHEAD = 256  # rows that wait for a slow driver, before the model waits, too
REPEATS_KEPT = 2  # repeats whose streams are remembered: jobs come stream by stream
PACKAGES = ("niah", "models", "haystacks")


def code_version() -> dict[str, str | None]:
    """Which code runs here; the driver's has to be the same."""
    return {"version": installed("niah-harness"), "commit": revision(ROOT)["commit"]}


@dataclass
class Outbox:
    """What a working model has to tell: its thread puts in, the caller's takes out."""

    rows: Queue[Finished | Exception | None] = field(default_factory=lambda: Queue(ROWS_AHEAD))
    warnings: deque[str] = field(default_factory=deque)
    tokens: int = 0  # computed since the start; only the model's thread writes it
    told: int = 0

    def progress(self, arm: Arm, tokens: int) -> None:
        self.tokens += tokens

    def batches(self) -> Iterator[Message]:
        """Rows and progress, at least every BATCH_SECONDS, until the model has finished.

        Raises: what the model's thread raised, once the rows before it are told.
        """
        while True:
            rows, end = self._collect()
            yield self._message(rows)
            if isinstance(end, Exception):
                raise end
            if end:
                return

    def _collect(self) -> tuple[list[tuple[str, tuple[int, float]]], Exception | bool]:
        rows: list[tuple[str, tuple[int, float]]] = []
        size, until = 0, time.monotonic() + BATCH_SECONDS
        while size < BATCH_BYTES and (left := until - time.monotonic()) > 0:
            try:
                found = self.rows.get(timeout=left)
            except Empty:
                break
            if not isinstance(found, Finished):
                return rows, found or True
            line = found.row.json_line().decode()
            rows.append((line, (found.before.tokens, found.before.seconds)))
            size += len(line)
        return rows, False

    def _message(self, rows: list[tuple[str, tuple[int, float]]]) -> Message:
        now = self.tokens
        new, self.told = now - self.told, now
        warnings = [self.warnings.popleft() for _ in range(len(self.warnings))]
        return {"rows": rows, "tokens": new, "warnings": warnings}


class Worker:
    """An arm at work. The driver calls its methods, one at a time.

    Every answer is a mapping of plain values. `refused` in it is one line on what a user can mend:
    the run ends with it.
    """

    def __init__(self, order: Message) -> None:
        """`order`: `sweep`, the `folder` where its relative paths begin, the sweeps `before` it,
        `arm`, the driver's working folder `home`."""
        let_waiting_threads_sleep()
        if Path(order["home"]).is_dir():
            os.chdir(order["home"])  # relative names of models and options begin there
        self.sweep = parse_sweep(order["sweep"], "sweep").begun_at(Path(order["folder"]))
        self.before = [parse_sweep(fields, "sweep") for fields in order["before"]]
        self.arm = next(arm for arm in self.sweep.arms if arm.name == order["arm"])
        self.host = socket.gethostname()
        # Threads of a model's libraries belong to the thread that calls them: one calls them all.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._model: Model | None = None
        self._bench: Bench | None = None
        self._streams: dict[tuple[str, int], list[Stream]] = {}

    def introduce(self) -> Message:
        """Load the model: `facts` of it, and of the machine it is on."""
        return self._told(self._facts)

    def prepare(self, expected: Message) -> Message:
        """Load everything; an empty answer. `expected`: the driver's code and what its answers
        depend on."""
        return self._told(lambda: self._prepare(expected))

    def work(self, task: Message) -> Iterator[Message]:
        """The rows of the task's `jobs` as batches: `rows`, `tokens` computed, `warnings`.

        After `prepare`. `folder` in the task is the run's, where sessions are saved if this
        machine has it.
        """
        outbox = Outbox()
        with warnings_to(outbox.warnings):
            self._thread.submit(self._carry_out, task, outbox)
            try:
                yield from outbox.batches()
            except Exception as error:
                if not can_be_mended(error):
                    raise
                yield {"refused": self._line(error)}

    def load_model(self) -> Model:
        return load_arm(self.arm, self.sweep)

    def rows(self, task: Message, outbox: Outbox) -> Iterator[Finished]:
        """The rows of a task. Raises: StopRunError, and what loading raises."""
        bench = self._bench
        assert bench is not None
        streams = [self._stream(bench, job) for job in task["jobs"]]
        plan = Plan(self.sweep, tuple(streams), tuple(self.before))
        jobs = [
            Job(self.arm.name, number, tuple(job["pairs"]), job["tokens"])
            for number, job in enumerate(task["jobs"])
        ]
        folder = Path(task["folder"])
        shared = folder if (folder / LOCK).exists() else None
        return LocalExecutor(plan, bench, shared, outbox.progress).run(jobs)

    def _told(self, work: Callable[[], Message]) -> Message:
        try:
            return self._thread.submit(work).result()
        except Exception as error:
            if not can_be_mended(error):
                raise
            return {"refused": self._line(error)}

    def _facts(self) -> Message:
        facts = facts_of(self._loaded(), longest_prompt(self.sweep), self.sweep.chunk_tokens)
        plain: Message = json.loads(json.dumps({"facts": facts, "environment": environment()}))
        return plain

    def _carry_out(self, task: Message, outbox: Outbox) -> None:
        try:
            for finished in self.rows(task, outbox):
                outbox.rows.put(finished)
        except Exception as error:
            outbox.rows.put(error)
        else:
            outbox.rows.put(None)

    def _loaded(self) -> Model:
        if self._model is None:
            self._model = self.load_model()
        return self._model

    def _prepare(self, expected: Message) -> Message:
        """Raises: PlanError where this machine has other code, weights or texts than the driver."""
        model = self._loaded()
        tokenizer = load_tokenizer(expected["identity"]["tokenizer_name"])
        materials = load_materials(self.sweep, tokenizer)
        bench = Bench({self.arm.name: model}, materials, {self.arm.name: self.arm.session})
        own = {"identity": bench.identity(), "code": code_version()}
        changes = differences(expected, json.loads(json.dumps(own)))
        if changes:
            raise PlanError(
                f"differs from the driver in {'; '.join(changes)}; "
                "every machine needs the same niah, models and texts"
            )
        self._bench = bench
        return {}

    def _stream(self, bench: Bench, job: Message) -> Stream:
        place = job["corpus"], job["repeat"]
        if place not in self._streams:
            while len(self._streams) >= REPEATS_KEPT:
                del self._streams[next(iter(self._streams))]
            self._streams[place] = plan_repeat(self.sweep, bench.materials, *place, self.before)
        stream = self._streams[place][job["index"]]
        if not set(job["pairs"]) <= {trial.pair for trial in stream.trials}:
            raise PlanError(
                f"plans other questions for {place[0]}, repeat {place[1]}, than the driver; "
                "every machine needs the same niah"
            )
        return stream

    def _line(self, error: Exception) -> str:
        return f"arm {self.arm.name}, worker on {self.host}: {told(error)}"


@contextmanager
def warnings_to(found: deque[str]) -> Iterator[None]:
    """Append what this package logs as a warning."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in PACKAGES]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
