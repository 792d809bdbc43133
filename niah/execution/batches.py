"""Questions that have been read: answered one by one, or several together where a model can.

Together are questions whose forks hold little: each keeps its past while the trunk reads on.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple

from models.protocols import BatchingModel, Reply
from niah.execution.ask import Asker, Finished, Question
from niah.execution.timed_session import NOTHING, Spent

BATCH_BYTES = 2**30
"""Caches of the forks that wait for each other, at most; one fork may be larger."""


class Pending(NamedTuple):
    """A row, or a row to be waited for until the server has answered.

    `row` raises StopRunError where the run has to end.
    """

    row: Callable[[], Finished]
    started: Future[Reply] | None = None

    @property
    def remote(self) -> bool:
        return self.started is not None

    @property
    def is_ready(self) -> bool:
        return self.started is None or self.started.done()

    def cancel(self) -> None:
        if self.started is not None:
            self.started.cancel()


class Read(NamedTuple):
    """A question that has been read, and how its row is made."""

    asker: Asker
    question: Question
    finish: Callable[[Question], Finished]

    @property
    def pending(self) -> Pending:
        return Pending(partial(self.finish, self.question), self.question.started)


def answered_together(begun: Iterable[Read | Pending], model: BatchingModel) -> Iterator[Pending]:
    """The rows of `begun` in their order, decoded `model.batch` at a time at most."""
    waiting: list[Read | Pending] = []
    count = num_bytes = 0
    for each in begun:
        if isinstance(each, Read) and model.batches(each.question.fork.session):
            account = each.asker.account(each.question)
            each = each._replace(question=each.question._replace(account=account))
            count += 1
            num_bytes += sum((account.cache_bytes or {}).values())
        waiting.append(each)
        alone = isinstance(each, Read) and each.question.account is None
        if alone or count == model.batch or num_bytes >= BATCH_BYTES:
            yield from decoded(waiting, model)
            waiting, count, num_bytes = [], 0, 0
    yield from decoded(waiting, model)


def decoded(waiting: Sequence[Read | Pending], model: BatchingModel) -> Iterator[Pending]:
    """The rows of what waits; its settled questions are decoded together."""
    questions = [each.question for each in waiting if isinstance(each, Read)]
    questions = [question for question in questions if question.account is not None]
    sessions = [question.fork.session for question in questions]
    began = time.perf_counter()
    replies = iter(model.generate_many(sessions, [question.decoding for question in questions]))
    seconds = time.perf_counter() - began
    for usage in (session.usage() for session in sessions):
        seconds -= (usage.gold_seconds or 0.0) + (usage.decode_seconds or 0.0)
    untold = Spent(0, seconds)
    for each in waiting:
        if isinstance(each, Read) and each.question.account is not None:
            question = each.question._replace(reply=next(replies))
            yield Pending(partial(with_untold, each.finish, question, untold))
            untold = NOTHING  # the first row has told it
        else:
            yield each.pending if isinstance(each, Read) else each


def with_untold(
    finish: Callable[[Question], Finished], question: Question, untold: Spent
) -> Finished:
    """A row, and what the decoding of several took."""
    row, before = finish(question)
    return Finished(row, before.less(untold))
