"""The two protocols every model here offers, and the account of its cache.

A `Session` is one timeline of tokens: it can be extended and forked, never rewound.
Knows nothing about any particular architecture.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

TokenIds = Sequence[int] | NDArray[np.integer]


class CacheBytes(NamedTuple):
    """Bytes of the tensors that a session holds, by kind."""

    window: int = 0
    compressed: int = 0
    index: int = 0  # type: ignore[assignment]  # hides tuple.index
    tail: int = 0
    full: int = 0

    @property
    def total(self) -> int:
        return sum(self)

    def as_dict(self) -> dict[str, int]:
        return {**self._asdict(), "total": self.total}

    def plus(self, other: CacheBytes) -> CacheBytes:
        return CacheBytes(*(a + b for a, b in zip(self, other, strict=True)))


class Selection(NamedTuple):
    """How one layer that selects entries ranked those that hold a token, for one query."""

    layer: int
    rank: int  # from 0, of the best-ranked entry that holds the token
    entries: int  # visible to the query
    selected: bool


class Trace(NamedTuple):
    """Where a token could be found by one query."""

    in_window: bool  # exactly, in every layer
    selections: tuple[Selection, ...]


class Session(Protocol):
    """Tokens seen and their cache."""

    @property
    def position(self) -> int:
        """Tokens consumed so far."""

    def extend(self, ids: TokenIds) -> None:
        """Prefill `ids`; any split into calls gives the same result.

        Raises:
            ValueError: an id outside the vocabulary, or more tokens than `max_position`.
        """

    def fork(self) -> Session:
        """An independent future that shares this past; the cost does not grow with `position`."""

    def generate(self, max_new_tokens: int, stop_ids: Collection[int] = ()) -> list[int]:
        """Greedy decoding; the stop id is not returned. Advances this session: fork first.

        Raises:
            ValueError: nothing has been consumed yet.
        """

    def cache_bytes(self) -> CacheBytes:
        """Bytes read off the tensors held at this moment."""


@runtime_checkable
class TracedSession(Session, Protocol):
    """A session that can say which entries its layers select."""

    def extend_traced(self, token_id: int, wanted: int) -> Trace:
        """Extend by one token; how did that query rank the entries that hold token `wanted`?"""


class Model(Protocol):
    """Weights, and how to begin a session with them."""

    name: str
    fingerprint: str
    tokenizer_name: str
    tokenizer_fingerprint: str | None
    vocab_size: int
    max_position: int

    def session(self) -> Session:
        """A session at position 0."""

    def describe(self) -> dict[str, object]:
        """Architecture, parameter count and options, ready for JSON."""


@runtime_checkable
class KeepingModel(Model, Protocol):
    """A model whose sessions can be put into a file, to be taken up by another process."""

    def save(self, session: Session, path: Path, notes: Mapping[str, str]) -> None:
        """Write a session and the caller's notes, whole or not at all. Raises: OSError."""

    def restore(self, path: Path) -> tuple[Session, dict[str, str]]:
        """The session in a file, which goes on bit for bit like the saved one, and the notes.

        Raises:
            ValueError: the file is torn, or holds another model's session.
        """
