"""Feeds a session in chunks, and tells what it has spent since that was last asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from models.protocols import Decode, Piece, Session, StartingSession
from niah.sweep.prompts import Ids

TokensRead = Callable[[int], None]  # tokens read since the last call


class Spent(NamedTuple):
    """What reading took."""

    tokens: int
    seconds: float

    def plus(self, other: "Spent") -> "Spent":
        return Spent(self.tokens + other.tokens, self.seconds + other.seconds)

    def less(self, other: "Spent") -> "Spent":
        return Spent(self.tokens - other.tokens, self.seconds - other.seconds)

    def up_to(self, tokens: int) -> "Spent":
        """The part that so many tokens took, if each took the same."""
        return Spent(tokens, self.seconds * tokens / max(1, self.tokens))


NOTHING = Spent(0, 0.0)


class Share(NamedTuple):
    """What a row owes to a session that several questions share.

    `spent`: since the arm's last question. `before`: the part of it that this process did not do,
    or that another arm's row has counted.
    """

    spent: Spent
    before: Spent

    def plus(self, other: "Share") -> "Share":
        return Share(self.spent.plus(other.spent), self.before.plus(other.before))


@dataclass
class Timeline:
    """A session, and what was read with it: in all, and since `take` was last called.

    `earlier` was spent by a process that was interrupted, `taken` is what `take` has told each arm
    of the total, `counted` what it has told any arm. `after_chunk` is called with the timeline
    between chunks.
    """

    session: Session
    decode: Decode
    chunk_tokens: int
    progress: TokensRead
    after_chunk: "Callable[[Timeline], None] | None" = None
    earlier: Spent = NOTHING
    taken: dict[str, Spent] = field(default_factory=dict)
    counted: Spent = NOTHING
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

    def step(self, ids: Ids) -> None:
        """Read `ids` one at a time, as tokens arrive in decoding."""
        if isinstance(self.session, StartingSession):
            self.session.extend_in_steps(Piece(ids, self.decode))
        else:
            for at in range(len(ids)):
                self.session.extend(Piece(ids[at : at + 1], self.decode))
        self.tokens += len(ids)
        self.progress(len(ids))

    @property
    def total(self) -> Spent:
        """What was spent from the first token on."""
        seconds = self.session.usage().prefill_seconds or 0.0
        return Spent(self.earlier.tokens + self.tokens, self.earlier.seconds + seconds)

    def take(self, arm: str) -> Share:
        """What was spent since the last call for this arm."""
        total = self.total
        spent = total.less(self.taken.get(arm, NOTHING))
        share = Share(spent, spent.less(total.less(self.counted)))
        self.taken[arm] = self.counted = total
        return share
