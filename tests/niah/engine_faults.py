"""nano-v4 as engines have got it wrong: each class plants one fault that users reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import torch

from models.deepseek_v4.cache import CsaCache, Pending, Rows, SlidingCache, Window
from models.deepseek_v4.compressor import Tail
from models.deepseek_v4.loading import LoadedModel
from models.deepseek_v4.session import DeepseekV4Session
from models.protocols import Reply, TokenIds
from models.registry import load_model

QUESTION = 64  # tokens: a longer piece is a chunk of the context


class EngineSession(DeepseekV4Session):
    """A right session whose forks are of its own class."""

    def fork(self) -> Self:
        child = type(self)(self._model, self._chunk_size, self._eos_ids)
        vars(child).update(vars(super().fork()))
        return child


def with_last_digit_wrong(reply: Reply) -> Reply:
    """The reply, its last digit one more."""
    at = max((i for i, letter in enumerate(reply.text) if letter.isdigit()), default=None)
    if at is None:
        return reply
    return reply._replace(
        text=f"{reply.text[:at]}{(int(reply.text[at]) + 1) % 10}{reply.text[at + 1 :]}"
    )


class LostKeys(EngineSession):
    """Of the indexer's keys only those of the last chunk stay."""

    def read(self, ids: TokenIds) -> None:
        for cache in self._caches if len(ids) > QUESTION else ():
            if isinstance(cache, CsaCache) and len(cache.index):
                emptied = Rows()
                emptied.append(torch.zeros_like(cache.index.read(len(cache.index))))
                cache.index = emptied
        super().read(ids)


class LostOverlap(EngineSession):
    """A token that comes alone finds no overlap from the block before its own (omlx#2271)."""

    def read(self, ids: TokenIds) -> None:
        for cache in self._caches if len(ids) == 1 else ():
            if isinstance(cache, CsaCache):
                cache.tail, cache.index_tail = lost(cache.tail), lost(cache.index_tail)
        super().read(ids)


def lost(pending: Pending) -> Pending:
    tail: Tail | None = pending.tail
    if tail is None:
        return pending
    return Pending(tail._replace(overlap_gates=torch.full_like(tail.overlap_gates, -torch.inf)))


class StaleWindow(EngineSession):
    """A second fork of one prefix finds the window of the first (ROCm/ATOM#1417)."""

    first: StaleWindow | None = None

    def fork(self) -> Self:
        child = super().fork()
        child.first = None
        if self.first is None:
            self.first = child
        else:
            for own, other in zip(child._caches, self.first._caches, strict=True):
                if isinstance(own, SlidingCache) and isinstance(other, SlidingCache):
                    own.window = Window(other.window.rows, other.window.format)
        return child

    def read(self, ids: TokenIds) -> None:
        self.first = None
        super().read(ids)


@dataclass
class Engine(LoadedModel):
    """A checkpoint served by sessions of another class."""

    sessions: type[EngineSession] = field(default=EngineSession)

    def session(self) -> EngineSession:
        return self.sessions(self.network, eos_ids=self.eos_ids)

    @property
    def trunk(self) -> str:
        return f"{self.sessions.__name__}@{super().trunk}"


def engine(sessions: type[EngineSession]) -> Engine:
    right = load_model("nano-v4", {}, threads=1)
    assert isinstance(right, LoadedModel)
    return Engine(right.name, right.network, right.card, right.trained, sessions=sessions)
