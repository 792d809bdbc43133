"""Carries out jobs in this process, one after the other."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from niah.execution.ask import Asker
from niah.execution.jobs import Finished, Job, Progress
from niah.execution.loading import Bench
from niah.execution.timed_session import NOTHING
from niah.sweep.config import Arm
from niah.sweep.trials import Plan


@dataclass
class LocalExecutor:
    """Holds the models of all arms. `folder` is the run's, for sessions to be saved in."""

    plan: Plan
    bench: Bench
    folder: Path | None
    progress: Progress
    _askers: dict[str, Asker] = field(default_factory=dict)

    def run(self, jobs: Iterable[Job]) -> Iterator[Finished]:
        """The rows of all jobs, in their order."""
        for job in jobs:
            stream = self.plan.streams[job.stream]
            wanted = set(job.pairs)
            trials = [trial for trial in stream.trials if trial.pair in wanted]
            asker = self.asker(job.arm)
            corpus = self.bench.materials.corpora[stream.corpus]
            for number, row in enumerate(asker.rows(stream, corpus, trials)):
                yield Finished(row, asker.restored if number == 0 else NOTHING)

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
