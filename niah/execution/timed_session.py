"""Feeds a session in chunks, and tells what it has spent since that was last asked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from models.protocols import Decode, Piece, Session
from niah.sweep.prompts import Ids

TokensRead = Callable[[int], None]  # tokens read since the last call


class Spent(NamedTuple):
    """What reading took."""

    tokens: int
    seconds: float


NOTHING = Spent(0, 0.0)


@dataclass
class Timeline:
    """A session, and what was read with it: in all, and since `take` was last called.

    `earlier` was spent by a process that was interrupted, `taken` is what `take` has told of the
    total. `after_chunk` is called with the
    timeline between chunks.
    """

    session: Session
    decode: Decode
    chunk_tokens: int
    progress: TokensRead
    after_chunk: "Callable[[Timeline], None] | None" = None
    earlier: Spent = NOTHING
    taken: Spent = NOTHING
    tokens: int = 0

    def advance(self, ids: Ids) -> None:
        """Read `ids` in chunks."""
        for at in range(0, len(ids), self.chunk_tokens):
            chunk = ids[at : at + self.chunk_tokens]
            self.session.extend(Piece(chunk, self.decode))
            self.tokens += len(chunk)
            self.progress(len(chunk))
            if self.after_chunk:
                self.after_chunk(self)

    @property
    def total(self) -> Spent:
        """What was spent from the first token on."""
        seconds = self.session.usage().prefill_seconds or 0.0
        return Spent(self.earlier.tokens + self.tokens, self.earlier.seconds + seconds)

    @property
    def untaken(self) -> Spent:
        """What was spent since the last `take`."""
        total, taken = self.total, self.taken
        return Spent(total.tokens - taken.tokens, total.seconds - taken.seconds)

    def take(self) -> Spent:
        """What was spent since the last call."""
        spent = self.untaken
        self.taken = self.total
        return spent
