"""Reads a stream once for the arms whose sessions are the same until the question.

At each fork every arm that lacks the question is asked. A row tells what its arm would have spent
alone: what several arms share is counted once by the run (`Finished.before`).
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from models.protocols import BatchingModel, KeepingModel, Model, PressedSession, SharingModel
from niah.execution.ask import Asker, Fields, Finished, failed
from niah.execution.batches import Pending, Read, answered_together
from niah.execution.session_files import Keeper
from niah.execution.session_use import context_stretches, read_stretches
from niah.execution.timed_session import Timeline, TokensRead
from niah.runs.row import Row
from niah.runs.store import CHECKPOINTS
from niah.sweep.config import Arm, Sweep
from niah.sweep.prompts import Context
from niah.sweep.trials import Stream, Trial, digest

log = logging.getLogger(__name__)

Trunk = tuple[str, str]


@dataclass
class StreamReader:
    """Reads a stream for `askers`, whose models have one trunk; the first one's model reads.

    `folder` is the run's, for the session to be kept in.
    """

    askers: Sequence[Asker]
    context: Context
    folder: Path | None = None

    @property
    def stream(self) -> Stream:
        return self.context.stream

    @property
    def leader(self) -> Asker:
        return self.askers[0]

    def pending(self, wanted: Mapping[str, Sequence[Trial]]) -> Iterator[Pending]:
        """The rows of `wanted`, trials by arm, in the order of their forks, then of the arms.

        Each is begun and to be waited for. Those of a model in this process have to be waited for
        one by one: the trunk reads on when the next one is asked for. A model that decodes several
        answers together has them decoded before.
        """
        begun, model = self.begun(wanted), self.leader.model
        if isinstance(model, BatchingModel) and model.batch > 1 and self.leader.sweep.reuse:
            return answered_together(begun, model)
        return (each.pending if isinstance(each, Read) else each for each in begun)

    def begun(self, wanted: Mapping[str, Sequence[Trial]]) -> Iterator[Read | Pending]:
        """Questions that have been read; rows of those that could not be."""
        missing = {arm: {trial.pair for trial in trials} for arm, trials in wanted.items()}
        asked = {trial.pair: trial for trials in wanted.values() for trial in trials}
        trials = sorted(asked.values(), key=self.leader.fork_at)
        keeper = self.keeper()
        waiting = [asker for asker in self.askers if missing.get(asker.arm.name)]

        def lacking(trial: Trial) -> list[Asker]:
            return [asker for asker in waiting if trial.pair in missing[asker.arm.name]]

        last = {asker.arm.name: n for n, trial in enumerate(trials) for asker in lacking(trial)}
        first = self.leader.fork_at(trials[0])
        trunk = self.begin(keeper, first, self.told(missing), partial(self.advanced, waiting))
        for number, trial in enumerate(trials):
            reading = [asker for asker in waiting if last[asker.arm.name] >= number]
            trunk.progress = partial(self.advanced, reading)
            # A model may fail in any way; the row says how, and a resumed run asks again.
            try:
                self.read(trunk, self.leader.fork_at(trial))
            except Exception as error:
                log.debug("stream %s cannot go on", self.stream.index, exc_info=True)
                for lost in trials[number:]:
                    for asker in lacking(lost):
                        row = Row(**asker.describe(lost, self.context), **failed(error))
                        yield Pending(partial(Finished, row))
                return
            yield from self.ask(trial, trunk, lacking(trial))
        if keeper:
            keeper.forget()

    def ask(
        self, trial: Trial, trunk: Timeline, askers: Sequence[Asker]
    ) -> Iterator[Read | Pending]:
        """One question of all these arms."""
        told = [(asker, asker.describe(trial, self.context)) for asker in askers]
        try:
            shared = self.context_read(trial, trunk, askers)
        except Exception as error:
            log.debug("question %s failed", trial.pair, exc_info=True)
            for _, asked in told:
                yield Pending(partial(Finished, Row(**asked, **failed(error))))
            return
        for asker, asked in told:
            yield self.read_by(asker, trial, shared, asked)

    def read_by(
        self, asker: Asker, trial: Trial, shared: tuple[Timeline, ...], asked: Fields
    ) -> Read | Pending:
        try:
            question = asker.begin(trial, self.context, shared)
        except Exception as error:
            log.debug("question %s failed", trial.pair, exc_info=True)
            return Pending(partial(Finished, Row(**asked, **failed(error))))
        return Read(asker, question, partial(asker.finish, context=self.context, asked=asked))

    def context_read(
        self, trial: Trial, trunk: Timeline, askers: Sequence[Asker]
    ) -> tuple[Timeline, ...]:
        """The trunk, and where the context goes on behind it a fork that has read the rest."""
        rest = context_stretches(trial, self.context, self.leader.arm.session)
        left = sum(len(stretch.ids) for stretch in rest)
        if not left or not isinstance(trunk.session, PressedSession):
            return (trunk,)
        base = self.leader.timeline(trunk.session.fork())
        base.progress = partial(self.advanced, askers)
        read_stretches(base, rest)
        return trunk, base

    def told(self, missing: Mapping[str, Collection[str]]) -> dict[str, int]:
        """The tokens of the trunk that each arm's rows have counted: up to the last answered fork
        before the first question that is missing."""
        forks = {trial.pair: self.leader.fork_at(trial) for trial in self.stream.trials}

        def counted(pairs: Collection[str]) -> int:
            first = min((fork for pair, fork in forks.items() if pair in pairs), default=0)
            before = [fork for pair, fork in forks.items() if pair not in pairs and fork <= first]
            return max(before, default=0)

        return {arm: counted(pairs) for arm, pairs in missing.items()}

    def begin(
        self, keeper: Keeper | None, at_most: int, told: Mapping[str, int], progress: TokensRead
    ) -> Timeline:
        """The trunk, new or kept, for all arms."""
        decode, size = self.leader.tokenizer.decode, self.leader.sweep.chunk_tokens
        model = self.leader.model
        if keeper:
            timeline = keeper.begin(decode, size, progress, at_most, told)
        else:
            timeline = Timeline(model.session(), decode, size, progress)
        if isinstance(model, SharingModel):
            model.share(timeline.session, [asker.model for asker in self.askers])
        return timeline

    @staticmethod
    def advanced(askers: Sequence[Asker], tokens: int) -> None:
        """Each arm has read so many tokens."""
        for asker in askers:
            asker.progress(tokens)

    def read(self, trunk: Timeline, until: int) -> None:
        """Read the trunk up to a fork, pausing at every fork of the stream on the way.

        So chunks begin at the same tokens whatever has been answered before, and a resumed run
        computes bit for bit what an uninterrupted one does.
        """
        for stop in sorted({self.leader.fork_at(trial) for trial in self.stream.trials}):
            if trunk.session.position < stop <= until:
                trunk.advance(self.context.trunk[trunk.session.position : stop])

    def keeper(self) -> Keeper | None:
        """Where the stream's session is kept; None if it is not to be, or cannot."""
        sweep, model = self.leader.sweep, self.leader.model
        minutes = sweep.checkpoint_minutes
        if self.folder is None or not minutes or not isinstance(model, KeepingModel):
            return None
        arms = [[asker.arm.name, asker.fingerprint] for asker in self.askers]
        asked = [trial.pair for trial in self.stream.trials]
        name = digest([arms, sweep.chunk_tokens, asked])
        return Keeper(self.folder / CHECKPOINTS / f"{name}.safetensors", model, minutes)


def trunk_of(sweep: Sweep, arm: Arm, model: Model) -> Trunk:
    """What arms must have in common to be read to together; the arm's own name if nothing.

    An arm that repeats the baseline measures noise, which sharing would hide. An arm that uses its
    session in another way forks elsewhere. A sweep without reuse asks for every prompt to be read
    anew.
    """
    alone = arm.role == "repeat" or arm.session.reuses_a_prefix or not sweep.reuse
    if alone or not isinstance(model, SharingModel):
        return "arm", arm.name
    return "trunk", model.trunk
