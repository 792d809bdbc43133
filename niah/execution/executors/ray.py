"""Carries out jobs on a Ray cluster: workers ask, rows come back to this process, which writes.

A worker is a process that holds one arm's model (see `ray_worker`). Each takes one job at a time. A
worker that dies is replaced, and what its job lacks is asked again: what was written is not. A
worker of another arm takes a worker's place once its arm has no job left.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from models.errors import StopRunError
from models.protocols import RemoteModel
from models.registry import needs_torch
from models.servers.options import root_of
from niah.errors import PlanError
from niah.execution.ask import Finished
from niah.execution.executors.ray_worker import Message, Worker, code_version
from niah.execution.jobs import Job, Progress
from niah.execution.loading import Bench
from niah.execution.model_facts import ModelFacts, parse_facts
from niah.execution.timed_session import Spent
from niah.runs.row import parse_row
from niah.sweep.config import SERVER, Arm, Sweep
from niah.sweep.trials import Plan

log = logging.getLogger(__name__)

MAX_DEATHS = 3  # of workers, one after the other, without a row of the job
BATCHES_AHEAD = 8  # of a worker that wait for this process, before the worker waits, too
CONNECT_SECONDS = 5.0
WAIT_SECONDS = 1.0  # between looks for Ctrl-C
LOOK_SECONDS = 5.0  # between looks for machines that came or went
PATIENCE_SECONDS = 60.0  # of waiting for a worker, until a warning says so
EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # a frame of HTTP/2: length, type, flags, stream
OBJECT_STORE_BYTES = 100 << 20  # of a cluster of our own: rows are small
SAFE = "all rows that were written are safe: the same command asks the rest"
EXIT_TYPE = re.compile(r"Worker exit type: (\w+)")


class WorkerLostError(Exception):
    """A worker's process or machine is gone, or what it told is."""


class Order(NamedTuple):
    """What all workers are told. `gpus`: of each, where the cluster has any."""

    sweep: Sweep
    before: tuple[Sweep, ...] = ()
    gpus: float = 1
    worker: type[Worker] = Worker

    def message(self, arm: str) -> Message:
        return {
            "sweep": self.sweep.model_dump(mode="json"),
            "before": [earlier.model_dump(mode="json") for earlier in self.before],
            "arm": arm,
            "home": str(Path.cwd()),
            "folder": str(self.sweep.folder),
        }


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Belong to the cluster at `address`, or to a new one of this machine if it is `local`.

    A cluster that this process belongs to already is left as it is (`auto`).
    Raises: PlanError where ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise PlanError("--ray: needs ray: in a checkout, pip install '.[ray]'") from None
    check_address(address)
    if ray.is_initialized():
        own = ray.get_runtime_context().gcs_address
        if address not in ("auto", own):
            raise PlanError(f"--ray = {address}: this process belongs to {own}; give auto")
        yield
        return
    join(address)
    try:
        yield
    finally:
        ray.shutdown()


def join(address: str) -> None:
    """Raises: PlanError with the first line of what Ray says."""
    import ray

    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "include_dashboard": False if address == "local" else None,
    }
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet["object_store_memory"] = OBJECT_STORE_BYTES
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise PlanError(f"--ray = {address}: no cluster can be joined: {reason}") from None


def check_address(address: str) -> None:
    """Raises: PlanError unless HOST:PORT answers as gRPC does; for `auto` where RAY_ADDRESS says.

    Ray itself would wait for minutes.
    """
    place = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    if place in ("", "auto", "local"):
        return
    host, _, port = place.rpartition(":")
    if "://" in place or not host or not port.isdecimal():
        raise PlanError(
            f"--ray = {place}: should be local, auto, or HOST:PORT of the cluster's head "
            "(as `ray start` says), given on a machine of the cluster"
        )
    try:
        with socket.create_connection((host, int(port)), CONNECT_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                greet(connection)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PlanError(
            f"--ray = {place}: no cluster answers there ({reason}); start one with "
            "`ray start --head`, or take --ray local"
        ) from None


def greet(connection: socket.socket) -> None:
    """Raises: OSError unless the other side begins as HTTP/2 does: with its settings (RFC 9113)."""
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EMPTY_SETTINGS)
    reply = connection.recv(len(EMPTY_SETTINGS))
    if reply[3:4] != EMPTY_SETTINGS[3:4]:
        raise OSError(None, "what answers is no Ray cluster")


class Needs(NamedTuple):
    """What a worker takes of a machine."""

    cpus: float
    gpus: float

    def fit(self, resources: Mapping[str, float]) -> int:
        """How many workers fit into a machine's `resources`."""
        shares = [
            resources.get(name, 0) / needed
            for name, needed in (("CPU", self.cpus), ("GPU", self.gpus))
            if needed
        ]
        return int(min(shares))


@dataclass
class Task:
    """Jobs that one worker carries out together, and the questions whose rows are missing.

    `deaths`: of workers, since the last row.
    """

    jobs: tuple[Job, ...]
    missing: set[str]
    deaths: int = 0

    @property
    def arm(self) -> str:
        return self.jobs[0].arm

    @property
    def tokens(self) -> int:
        return sum(job.tokens for job in self.jobs)

    def left(self) -> tuple[Job, ...]:
        """The jobs, without the questions that have rows."""
        return tuple(
            Job(job.arm, job.stream, pairs, job.tokens)
            for job in self.jobs
            if (pairs := tuple(pair for pair in job.pairs if pair in self.missing))
        )


def as_task(jobs: Sequence[Job]) -> Task:
    return Task(tuple(jobs), {pair for job in jobs for pair in job.pairs})


@dataclass(eq=False)
class Hand:
    """A worker as this process sees it.

    `answer`: what it will say, None while it is idle: without a `task` whether it is ready to ask,
    with one the stream of its batches.
    """

    arm: str
    actor: Any
    task: Task | None = None
    answer: Any = None
    ready: bool = False


@dataclass
class Tasks:
    """Those that no worker has, by arm."""

    waiting: dict[str, deque[Task]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)

    def add(self, task: Task) -> None:
        self.waiting.setdefault(task.arm, deque()).append(task)
        self.tokens[task.arm] = self.tokens.get(task.arm, 0) + task.tokens

    def take(self, arm: str) -> Task | None:
        queue = self.waiting.get(arm)
        if not queue:
            return None
        task = queue.popleft()
        self.tokens[arm] -= task.tokens
        return task

    def count(self, arm: str) -> int:
        return len(self.waiting.get(arm, ()))

    def arms(self) -> list[str]:
        return [arm for arm, queue in self.waiting.items() if queue]


class Crew:
    """The workers of a run. Implements `Place`."""

    def __init__(self, order: Order) -> None:
        import ray

        self.order = order
        self.hands: list[Hand] = []
        self._ray = ray
        self._class = ray.remote(order.worker)
        self._facts: dict[str, ModelFacts] = {}
        self._machine: dict[str, Any] = {}
        self._looked = -LOOK_SECONDS
        self._slots = 0
        self._needs = self._device_needs()
        if not self.slots():
            raise PlanError(
                f"--ray: no machine of the cluster has {self._needs.cpus:g} cores (threads) and "
                f"{self._needs.gpus:g} GPUs for a worker; it has {self._resources() or 'none'}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hand in list(self.hands):
            self.dismiss(hand)

    def load(self, arm: Arm, sweep: Sweep) -> ModelFacts:
        """What a worker says of the arm's model. Raises: PlanError, StopRunError."""
        if not self._facts:
            self._introduce([arm.name for arm in sweep.arms])
        return self._facts[arm.name]

    def environment(self) -> dict[str, Any]:
        """Of the machine where the first arm was loaded, and how many workers there are."""
        cluster = {"workers": self.slots(), "machines": len(self._machines())}
        return {**self._machine, "ray": cluster}

    def executor(self, plan: Plan, bench: Bench, folder: Path, progress: Progress) -> RayExecutor:
        return RayExecutor(self, plan, bench, folder.absolute(), progress)

    def slots(self) -> int:
        """How many workers with a model of their own fit into the cluster's machines."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._slots = sum(map(self._needs.fit, self._machines()))
            self._looked = time.monotonic()
        return self._slots

    def hire(self, arm: str) -> Hand:
        """A new worker; it begins once the cluster has room for it."""
        needs = self._needs if self.counts(arm) else Needs(0, 0)
        actor = self._class.options(num_cpus=needs.cpus, num_gpus=needs.gpus, max_restarts=0)
        hand = Hand(arm, actor.remote(self.order.message(arm)))
        self.hands.append(hand)
        return hand

    def dismiss(self, hand: Hand) -> None:
        self.hands.remove(hand)
        self._ray.kill(hand.actor)

    def wait(self, answers: list[Any], **options: Any) -> tuple[list[Any], list[Any]]:
        """As `ray.wait`."""
        found: tuple[list[Any], list[Any]] = self._ray.wait(answers, **options)
        return found

    def told(self, answer: Any) -> Message:
        """What a worker says. Raises: WorkerLostError; what it raised itself."""
        errors = self._ray.exceptions
        try:
            message: Message = self._ray.get(answer)
        except errors.RayTaskError:
            raise
        except errors.RayError as error:
            raise WorkerLostError(reason_of(error)) from None
        return message

    def counts(self, arm: str) -> bool:
        """Whether the arm's workers take a place; one that asks a server does not."""
        return needs_torch(next(a.model for a in self.order.sweep.arms if a.name == arm))

    def _machines(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _resources(self) -> str:
        machines = self._machines()
        return "; ".join(
            f"{of.get('CPU', 0):g} cores, {of.get('GPU', 0):g} GPUs" for of in machines
        )

    def _device_needs(self) -> Needs:
        has_gpus = any(machine.get("GPU") for machine in self._machines())
        return Needs(self.order.sweep.threads or 1, self.order.gpus if has_gpus else 0)

    def _introduce(self, arms: Sequence[str]) -> None:
        """One worker of each arm loads its model; they stay, where all have room at once."""
        room = self.slots()
        for group in (arms[first : first + room] for first in range(0, len(arms), room)):
            for hand in list(self.hands):
                self.dismiss(hand)
            asked = {arm: self._asked(arm) for arm in group}
            for arm, (hand, answer) in asked.items():
                self._facts[arm] = self._introduced(hand, answer)

    def _asked(self, arm: str) -> tuple[Hand, Any]:
        hand = self.hire(arm)
        return hand, hand.actor.introduce.remote()

    def _introduced(self, hand: Hand, answer: Any) -> ModelFacts:
        told = self._answered(hand, answer)
        if "refused" in told:
            raise PlanError(told["refused"])
        self._machine = self._machine or told["environment"]
        facts = parse_facts(told["facts"])
        if facts.device == "cpu":  # the workers of a machine share its memory
            beside = max(map(self._needs.fit, self._machines()))
            facts = replace(facts, free_bytes=facts.free_bytes // max(1, beside))
        return facts

    def _answered(self, hand: Hand, answer: Any) -> Message:
        """What a worker says, or another in its place. Raises: StopRunError if all die."""
        patience = Patience(f"arm {hand.arm}: still waiting for a worker to load its model")
        lost: list[str] = []
        while len(lost) < MAX_DEATHS:
            if not self.wait([answer], timeout=WAIT_SECONDS)[0]:
                patience.look()
                continue
            try:
                return self.told(answer)
            except WorkerLostError as error:
                lost.append(str(error))
                self.dismiss(hand)
                hand, answer = self._asked(hand.arm)
        raise StopRunError(
            f"arm {hand.arm}: {MAX_DEATHS} workers died while they loaded its model ({lost[-1]})"
        )


@dataclass
class Patience:
    """Warns once, when nothing has happened for long."""

    text: str
    since: float = field(default_factory=time.monotonic)
    warned: bool = False

    def look(self, happened: bool = False) -> None:
        if happened:
            self.since = time.monotonic()
        elif not self.warned and time.monotonic() - self.since > PATIENCE_SECONDS:
            log.warning("%s", self.text)
            self.warned = True


@dataclass
class RayExecutor:
    """Gives the jobs of a plan to a crew. `folder` is the run's, for machines that share it."""

    crew: Crew
    plan: Plan
    bench: Bench
    folder: Path
    progress: Progress
    tasks: Tasks = field(default_factory=Tasks)
    barren: int = 0  # deaths since the last row of all
    given_up: str = ""  # on the first job that was
    unloaded: Counter[str] = field(default_factory=Counter)  # deaths of an arm's while they load
    _arms: dict[str, Arm] = field(init=False)
    _code: dict[str, str | None] = field(default_factory=code_version)

    def __post_init__(self) -> None:
        self._arms = {arm.name: arm for arm in self.plan.sweep.arms}

    def run(self, jobs: Iterable[Job]) -> Iterator[Finished]:
        """The rows of all jobs, in the order in which they come; a job's own keep theirs.

        A job whose workers die again and again is given up; the others are carried out first.
        Raises: StopRunError for such a job, where no worker stays alive, where a server stops the
            run, and where a machine differs from this one or lacks files.
        """
        for task in self._tasks(jobs):
            self.tasks.add(task)
        self._assign()
        patience = Patience("--ray: still waiting for a worker: the cluster has no room for one")
        while self.tasks.arms() or any(hand.task for hand in self.crew.hands):
            for hand in self._ready():
                yield from self._take(hand)
            self._assign()
            self.progress(self.plan.sweep.arms[0], 0)  # looks for Ctrl-C
            patience.look(any(hand.task for hand in self.crew.hands))
        if self.given_up:
            raise StopRunError(self.given_up)

    def _tasks(self, jobs: Iterable[Job]) -> Iterator[Task]:
        """A job each; all jobs of a server together, since one worker asks it ahead."""
        together: dict[str, list[Job]] = {}
        for job in jobs:
            if isinstance(self.bench.models[job.arm], RemoteModel):
                together.setdefault(job.arm, []).append(job)
            else:
                yield as_task([job])
        yield from map(as_task, together.values())

    def _assign(self) -> None:
        """Give jobs to ready workers of their arms; hire for what is left, as far as there is room.

        A worker that is not ready yet holds no job: it may load its model for long, or find no
        room in the cluster. Where its arm has no job left, it is not needed. Arms of one server
        ask it one after the other, as in one process (`models.servers.turns`).
        """
        for hand in [hand for hand in self.crew.hands if hand.task is None]:
            if not self.tasks.count(hand.arm):
                self.crew.dismiss(hand)
            elif hand.ready:
                if self._may_ask(hand.arm):
                    self._begin(hand)
            elif hand.answer is None:  # introduced, before there was a plan
                hand.answer = hand.actor.prepare.remote(self._expected(hand.arm))
        while arm := self._most_wanted():
            hand = self.crew.hire(arm)
            hand.answer = hand.actor.prepare.remote(self._expected(arm))

    def _most_wanted(self) -> str | None:
        """The arm that a further worker should load: with the most tokens a worker."""
        hands = [hand.arm for hand in self.crew.hands]
        idle = [hand.arm for hand in self.crew.hands if hand.task is None]
        room = sum(map(self.crew.counts, hands)) < self.crew.slots()
        arms = [arm for arm in self.tasks.arms() if idle.count(arm) < self.tasks.count(arm)]
        arms = [arm for arm in arms if room or not self.crew.counts(arm)]
        # Where a model has no room beside others, those that have loaded it go on alone.
        arms = [arm for arm in arms if self.unloaded[arm] < MAX_DEATHS or arm not in hands]
        if not arms:
            return None
        return max(arms, key=lambda arm: self.tasks.tokens[arm] / (1 + hands.count(arm)))

    def _may_ask(self, arm: str) -> bool:
        """Whether no worker asks the arm's server for another arm."""
        busy = [hand.arm for hand in self.crew.hands if hand.task is not None]
        server = self._server(arm)
        return server is None or server not in map(self._server, busy)

    def _server(self, arm: str) -> tuple[str, str] | None:
        """The model behind a server that an arm asks."""
        asked = self._arms[arm]
        if not asked.model.startswith(SERVER):
            return None
        return asked.model, root_of(str(asked.options.get("base_url")))

    def _begin(self, hand: Hand) -> None:
        task = self.tasks.take(hand.arm)
        assert task is not None
        jobs = [self._wire(job) for job in task.left()]
        hand.task = task
        hand.answer = hand.actor.work.options(
            num_returns="streaming", _generator_backpressure_num_objects=BATCHES_AHEAD
        ).remote({"folder": str(self.folder), "jobs": jobs})

    def _expected(self, arm: str) -> Message:
        identity = self.bench.identity()
        identity["models"] = {arm: identity["models"][arm]}
        return {"identity": identity, "code": self._code}

    def _wire(self, job: Job) -> Message:
        stream = self.plan.streams[job.stream]
        place = {"corpus": stream.corpus, "repeat": stream.repeat, "index": stream.index}
        return place | {"pairs": list(job.pairs), "tokens": job.tokens}

    def _ready(self) -> list[Hand]:
        """Workers that have something to tell; none after WAIT_SECONDS of silence."""
        wait = self.crew.wait
        busy = {hand.answer: hand for hand in self.crew.hands if hand.answer is not None}
        if not busy:
            time.sleep(WAIT_SECONDS)
            return []
        answers = list(busy)
        ready, _ = wait(answers, num_returns=1, timeout=WAIT_SECONDS, fetch_local=False)
        if ready and len(answers) > 1:
            ready, _ = wait(answers, num_returns=len(answers), timeout=0, fetch_local=False)
        return [busy[answer] for answer in ready]

    def _take(self, hand: Hand) -> Iterator[Finished]:
        """What a worker tells: that it is ready, or the rows of its next batch."""
        try:
            message = self.crew.told(hand.answer if hand.task is None else next(hand.answer))
        except StopIteration:
            self._end(hand)
            return
        except WorkerLostError as lost:
            self._lose(hand, str(lost))
            return
        if "refused" in message:
            raise StopRunError(message["refused"])
        if hand.task is None:
            hand.ready, hand.answer = True, None
            self.unloaded[hand.arm] = 0
            return
        for warning in message["warnings"]:
            log.warning("arm %s: %s", hand.arm, warning)
        yield from self._new(hand, message["rows"])
        self.progress(self._arms[hand.arm], message["tokens"])

    def _new(self, hand: Hand, rows: Sequence[tuple[str, tuple[int, float]]]) -> Iterator[Finished]:
        """The rows that were missing."""
        task = hand.task
        assert task is not None
        for line, before in rows:
            row = parse_row(line.encode(), f"a row of arm {hand.arm}")
            if row.pair in task.missing:
                task.missing.remove(row.pair)
                task.deaths = self.barren = 0
                yield Finished(row, Spent(*before))

    def _end(self, hand: Hand) -> None:
        """The task is done; where rows are missing all the same, as if the worker had died."""
        assert hand.task is not None
        if hand.task.missing:
            self._lose(hand, "it ended without an answer to every question")
        else:
            hand.task = hand.answer = None

    def _lose(self, hand: Hand, reason: str) -> None:
        """A worker is gone: its task waits for another. Raises: StopRunError if all die."""
        self.crew.dismiss(hand)
        self.barren += 1
        if hand.task is None:
            self.unloaded[hand.arm] += 1
            log.warning("arm %s: a worker was lost while it loaded (%s)", hand.arm, reason)
        else:
            self._put_back(hand.task, reason)
        if self.barren >= MAX_DEATHS * max(2, self.crew.slots()):
            raise StopRunError(
                f"--ray: {self.barren} workers died one after the other without an answer "
                f"({reason}); {SAFE}"
            )

    def _put_back(self, task: Task, reason: str) -> None:
        where = self._where(task)
        task.deaths += 1
        if task.deaths < MAX_DEATHS:
            log.warning("%s: a worker was lost (%s); what is missing is asked again", where, reason)
            self.tasks.add(Task(task.left(), task.missing, task.deaths))
        elif not self.given_up:
            self.given_up = (
                f"{where}: {task.deaths} workers died one after the other without an answer "
                f"({reason}); {SAFE}"
            )

    def _where(self, task: Task) -> str:
        stream = self.plan.streams[task.jobs[0].stream]
        return f"arm {task.arm}, {stream.corpus}, repeat {stream.repeat}, stream {stream.index}"


def reason_of(error: Exception) -> str:
    """What Ray says of a worker's end, in a few words."""
    text = str(error)
    found = EXIT_TYPE.search(text)
    if found:
        return f"{type(error).__name__}: {found[1]}"
    last = [line.strip() for line in text.splitlines() if line.strip()][-1:]
    return f"{type(error).__name__}: {''.join(last)[:200]}"
