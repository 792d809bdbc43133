"""Owns keeping a stream's session on disk while it is being read, for models that can.

A prefill of a million tokens takes longer than a machine may stay up. What is kept is only ever
a saving of time: a file that does not fit is left aside with a warning, and so is a full disk.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from models.protocols import KeepingModel
from niah.execution.timed_session import Progress, Timeline

log = logging.getLogger(__name__)


@dataclass
class Keeper:
    """One stream's file for one arm; `minutes` between savings."""

    path: Path
    model: KeepingModel
    minutes: float
    clock: Callable[[], float] = time.monotonic
    saved: float = field(init=False)

    def __post_init__(self) -> None:
        self.saved = self.clock()

    def begin(self, chunk_tokens: int, progress: Progress, at_most: int) -> Timeline:
        """The timeline that was kept, or a new one.

        A session that has read more than `at_most` tokens is of no use: a question whose answer
        failed then forks before it.
        """
        timeline = Timeline(self.model.session(), chunk_tokens, progress, self.after_chunk)
        if not self.path.exists():
            return timeline
        try:
            session, notes = self.model.restore(self.path)
            spent = {name: float(notes[name]) for name in ("tokens", "seconds", "total_seconds")}
        except (ValueError, KeyError) as error:
            log.warning("%s: left aside, reading from the start: %s", self.path, error)
            return timeline
        if session.position > at_most:
            log.warning("%s: left aside, a question before it is still to be asked", self.path)
            return timeline
        progress(session.position)
        timeline.session, timeline.tokens = session, int(spent["tokens"])
        timeline.seconds, timeline.total_seconds = spent["seconds"], spent["total_seconds"]
        return timeline

    def after_chunk(self, timeline: Timeline) -> None:
        """Save if it is time to."""
        if self.clock() - self.saved < 60 * self.minutes:
            return
        notes = {
            name: repr(getattr(timeline, name)) for name in ("tokens", "seconds", "total_seconds")
        }
        try:
            self.path.parent.mkdir(exist_ok=True)
            self.model.save(timeline.session, self.path, notes)
        except OSError as error:
            log.warning("%s: not saved, the run goes on: %s", self.path, error)
        self.saved = self.clock()

    def forget(self) -> None:
        """The stream is done."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()
