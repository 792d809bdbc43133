"""Saves a stream's session to a file while it is read, and restores it after an interruption.

A prefill of a million tokens takes longer than a machine may stay up. The file only saves time: a
file that does not fit is ignored with a warning, and a full disk is only a warning, too.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from models.protocols import Decode, KeepingModel
from niah.execution.timed_session import NOTHING, Spent, Timeline, TokensRead

log = logging.getLogger(__name__)


@dataclass
class Keeper:
    """One stream's file for the arms that share its reading; `minutes` between savings."""

    path: Path
    model: KeepingModel
    minutes: float
    clock: Callable[[], float] = time.monotonic
    saved: float = field(init=False)

    def __post_init__(self) -> None:
        self.saved = self.clock()

    def begin(
        self,
        decode: Decode,
        chunk_tokens: int,
        progress: TokensRead,
        at_most: int,
        told: Mapping[str, int],
    ) -> Timeline:
        """The timeline of the file, or a new one.

        A session that has read more than `at_most` tokens is of no use: a failed question that is
        asked again forks before it. `told`: the tokens that the rows of each arm have counted,
        those rows too that were written after the file.
        """
        new = Timeline(self.model.session(), decode, chunk_tokens, progress, self.after_chunk)
        if not self.path.exists():
            return new
        try:
            session, notes = self.model.restore(self.path)
            total = Spent(*json.loads(notes["total"]))
            taken = {arm: Spent(*spent) for arm, spent in json.loads(notes["taken"]).items()}
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s: saved session ignored, starting at token 0: %s", self.path, error)
            return new
        if session.position > at_most:
            log.warning(
                "%s: saved session ignored: a failed question before it is asked again", self.path
            )
            return new
        for arm, tokens in told.items():
            counted = total.up_to(min(tokens, session.position))
            taken[arm] = max(taken.get(arm, NOTHING), counted)
        progress(session.position)
        new.session, new.earlier, new.taken, new.counted = session, total, taken, total
        return new

    def after_chunk(self, timeline: Timeline) -> None:
        """Save if it is time to."""
        if self.clock() - self.saved < 60 * self.minutes:
            return
        notes = {"total": json.dumps(timeline.total), "taken": json.dumps(timeline.taken)}
        try:
            self.path.parent.mkdir(exist_ok=True)
            self.model.save(timeline.session, self.path, notes)
        except OSError as error:
            log.warning("%s: session not saved, the run goes on: %s", self.path, error)
        self.saved = self.clock()

    def forget(self) -> None:
        """The stream is done."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()
