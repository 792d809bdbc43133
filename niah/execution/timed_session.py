"""Owns feeding a session in chunks and clocking it. Knows nothing of what the tokens are."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from models.protocols import Session
from niah.sweep.prompts import Ids

Progress = Callable[[int], None]  # tokens read since the last call


class Spent(NamedTuple):
    """What reading took."""

    tokens: int
    seconds: float


NOTHING = Spent(0, 0.0)


@dataclass
class Timeline:
    """A session and what it has spent reading: in all, and since that was last taken.

    `after_chunk` is called with the timeline between chunks.
    """

    session: Session
    chunk_tokens: int
    progress: Progress
    after_chunk: "Callable[[Timeline], None] | None" = None
    tokens: int = 0
    seconds: float = 0.0
    total_seconds: float = 0.0

    def advance(self, ids: Ids) -> None:
        """Read `ids` in chunks."""
        for at in range(0, len(ids), self.chunk_tokens):
            chunk = ids[at : at + self.chunk_tokens]
            began = time.perf_counter()
            self.session.extend(chunk)
            spent = time.perf_counter() - began
            self.tokens += len(chunk)
            self.seconds += spent
            self.total_seconds += spent
            self.progress(len(chunk))
            if self.after_chunk:
                self.after_chunk(self)

    def take(self) -> Spent:
        """What was spent since the last call."""
        spent = Spent(self.tokens, self.seconds)
        self.tokens, self.seconds = 0, 0.0
        return spent
