"""Carries out jobs in this process: one after the other, and servers several questions at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from models.protocols import RemoteModel
from niah.execution.ask import Asker, Pending, as_it_is
from niah.execution.jobs import Finished, Job, Progress
from niah.execution.loading import Bench
from niah.execution.timed_session import NOTHING, Spent
from niah.sweep.config import Arm
from niah.sweep.trials import Plan


class Begun(NamedTuple):
    """A row to come, and what an interrupted process had spent on it."""

    pending: Pending
    before: Spent

    @property
    def remote(self) -> bool:
        return self.pending.started is not None

    @property
    def is_ready(self) -> bool:
        return self.pending.started is None or self.pending.started.done()

    def cancel(self) -> None:
        if self.pending.started is not None:
            self.pending.started.cancel()


@dataclass
class LocalExecutor:
    """Holds the models of all arms. `folder` is the run's, for sessions to be saved in."""

    plan: Plan
    bench: Bench
    folder: Path | None
    progress: Progress
    _askers: dict[str, Asker] = field(default_factory=dict)

    def run(self, jobs: Iterable[Job]) -> Iterator[Finished]:
        """The rows of all jobs, in their order.

        Servers are asked ahead, across jobs, as many questions at once as their arms say.
        Raises: StopRunError.
        """
        ahead = sum(
            model.concurrency
            for model in self.bench.models.values()
            if isinstance(model, RemoteModel)
        )
        waiting: deque[Begun] = deque()
        unanswered = 0
        try:
            for begun in self.begun(jobs):
                waiting.append(begun)
                unanswered += begun.remote
                while waiting and (unanswered > ahead or waiting[0].is_ready):
                    unanswered -= waiting[0].remote
                    yield finished(waiting.popleft())
            while waiting:
                yield finished(waiting.popleft())
        finally:
            for begun in waiting:
                begun.cancel()

    def begun(self, jobs: Iterable[Job]) -> Iterator[Begun]:
        """The rows of all jobs in their order: of servers to come, of other models finished."""
        for job in jobs:
            stream = self.plan.streams[job.stream]
            wanted = set(job.pairs)
            trials = [trial for trial in stream.trials if trial.pair in wanted]
            asker = self.asker(job.arm)
            remote = isinstance(asker.model, RemoteModel)
            corpus = self.bench.materials.corpora[stream.corpus]
            for number, pending in enumerate(asker.pending(stream, corpus, trials)):
                row = pending if remote else Pending(partial(as_it_is, pending.row()))
                yield Begun(row, asker.restored if number == 0 else NOTHING)

    def asker(self, name: str) -> Asker:
        if name not in self._askers:
            arm: Arm = next(arm for arm in self.plan.sweep.arms if arm.name == name)
            advance: Callable[[int], None] = partial(self.progress, arm)
            self._askers[name] = Asker(
                self.plan.sweep,
                arm,
                self.bench.models[name],
                self.bench.materials.tokenizer,
                advance,
                self.folder,
            )
        return self._askers[name]


def finished(begun: Begun) -> Finished:
    return Finished(begun.pending.row(), begun.before)
