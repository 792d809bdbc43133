"""Owns feeding a session in chunks and clocking it. Knows nothing of what the tokens are."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from models.session import Session
from niah.context import Ids

Progress = Callable[[int], None]  # tokens read since the last call


@dataclass
class Timeline:
    """A session and the seconds it has spent reading: in all, and since they were last taken."""

    session: Session
    chunk_tokens: int
    progress: Progress
    seconds: float = 0.0
    total_seconds: float = 0.0

    def advance(self, ids: Ids) -> int:
        """Read `ids` in chunks; returns how many."""
        for at in range(0, len(ids), self.chunk_tokens):
            chunk = ids[at : at + self.chunk_tokens]
            began = time.perf_counter()
            self.session.extend(chunk)
            spent = time.perf_counter() - began
            self.seconds += spent
            self.total_seconds += spent
            self.progress(len(chunk))
        return len(ids)

    def take_seconds(self) -> float:
        seconds, self.seconds = self.seconds, 0.0
        return seconds
