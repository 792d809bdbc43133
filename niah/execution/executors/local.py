"""Carries out jobs in this process: one after the other, and servers several questions at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from threading import Semaphore

from models.errors import StopRunError
from models.protocols import RemoteModel
from niah.execution.ask import Asker, Finished
from niah.execution.batches import Pending
from niah.execution.jobs import Job, Progress
from niah.execution.loading import Bench
from niah.execution.streams import StreamReader, Trunk, trunk_of
from niah.sweep.config import Arm
from niah.sweep.prompts import Context, build_context
from niah.sweep.trials import Plan, Stream

HELD = 4  # answers that may wait behind a slow one, for each question in flight


@dataclass
class LocalExecutor:
    """Holds the models of all arms. `folder` is the run's, for sessions to be saved in."""

    plan: Plan
    bench: Bench
    folder: Path | None
    progress: Progress

    def run(self, jobs: Iterable[Job]) -> Iterator[Finished]:
        """The rows of all jobs, stream by stream.

        Arms whose models have one trunk are asked together. Servers are asked ahead, across jobs,
        as many questions at once as their arms say: one that takes long holds up no others, until
        `HELD` answers for each wait behind it.
        Raises: StopRunError.
        """
        models = self.bench.models.values()
        ahead = sum(model.concurrency for model in models if isinstance(model, RemoteModel))
        room = Semaphore(ahead)  # one for each question without an answer
        waiting: deque[Pending] = deque()
        try:
            for pending in self.begun(jobs):
                waiting.append(pending)
                if pending.started is not None:
                    pending.started.add_done_callback(lambda _: room.release())
                yield from rows_of(waiting, at_most=(1 + HELD) * ahead)
                if pending.started is not None:
                    room.acquire()
            yield from rows_of(waiting, at_most=0)
        except StopRunError:
            yield from answered(waiting)
            raise
        finally:
            for pending in waiting:
                pending.cancel()

    def begun(self, jobs: Iterable[Job]) -> Iterator[Pending]:
        """The rows of all jobs: of servers to come, of other models finished."""
        for index, stream_jobs in groupby(jobs, key=lambda job: job.stream):
            groups: dict[Trunk, list[Job]] = {}
            for job in stream_jobs:
                groups.setdefault(self.trunks[job.arm], []).append(job)
            context = self.context(self.plan.streams[index])
            for trunk, group in groups.items():
                yield from self.read(context, trunk, group)

    def context(self, stream: Stream) -> Context:
        corpus = self.bench.materials.corpora[stream.corpus]
        return build_context(stream, corpus, self.plan.sweep.layout)

    def read(self, context: Context, trunk: Trunk, jobs: list[Job]) -> Iterator[Pending]:
        """The rows of jobs of one stream whose arms share its reading."""
        # All arms of the trunk, also those that lack nothing: what is read depends on no progress.
        askers = [asker for arm, asker in self.askers.items() if self.trunks[arm] == trunk]
        wanted = {
            job.arm: [trial for trial in context.stream.trials if trial.pair in set(job.pairs)]
            for job in jobs
        }
        remote = isinstance(askers[0].model, RemoteModel)
        for pending in StreamReader(askers, context, self.folder).pending(wanted):
            yield pending if remote else Pending(partial(as_it_is, pending.row()))

    @cached_property
    def askers(self) -> dict[str, Asker]:
        """By arm, of those whose models are here."""
        arms = [arm for arm in self.plan.sweep.arms if arm.name in self.bench.models]
        return {arm.name: self.asker(arm) for arm in arms}

    @cached_property
    def trunks(self) -> dict[str, Trunk]:
        """What `trunk_of` says of each arm."""
        sweep = self.plan.sweep
        return {arm: trunk_of(sweep, asker.arm, asker.model) for arm, asker in self.askers.items()}

    def asker(self, arm: Arm) -> Asker:
        advance: Callable[[int], None] = partial(self.progress, arm)
        model, tokenizer = self.bench.models[arm.name], self.bench.materials.tokenizer
        return Asker(self.plan.sweep, arm, model, tokenizer, advance)


def rows_of(waiting: deque[Pending], at_most: int) -> Iterator[Finished]:
    """The rows in front that are ready, and further ones until `at_most` are left."""
    while waiting and (len(waiting) > at_most or waiting[0].is_ready):
        yield waiting.popleft().row()


def answered(waiting: Iterable[Pending]) -> Iterator[Finished]:
    """The rows of answers that have come, when the run ends early: they may have been paid for."""
    for pending in waiting:
        if pending.started is not None and pending.started.done():
            with suppress(StopRunError):
                yield pending.row()


def as_it_is(row: Finished) -> Finished:
    return row
