"""Lets requests of one model at a time reach a server, so many at once as its arm says.

Two arms may ask one server in two ways. Requests of one would share batches and the cache with
those of the other, and neither would be measured as its options say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Turn:
    """A request's time with the server. `most`: requests at once meanwhile, this one included."""

    def __init__(self) -> None:
        self.most = 0


class Turns:
    """Who may ask one server. In the order of arrival; an owner is an arm."""

    def __init__(self) -> None:
        self._owner: object = None
        self._active: list[Turn] = []
        self._waiting: deque[tuple[object, int, asyncio.Future[Turn]]] = deque()

    @asynccontextmanager
    async def one(self, owner: object, limit: int) -> AsyncIterator[Turn]:
        """A turn, once fewer than `limit` of `owner`'s are taken and none of anybody else's."""
        granted: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, limit, granted))
        self._grant()
        try:
            turn = await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._end(granted.result())
            raise
        try:
            yield turn
        finally:
            self._end(turn)

    def _end(self, turn: Turn) -> None:
        self._active.remove(turn)
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            owner, limit, granted = self._waiting[0]
            if granted.cancelled():
                self._waiting.popleft()
                continue
            if self._active and (owner is not self._owner or len(self._active) >= limit):
                return
            self._waiting.popleft()
            turn = Turn()
            self._owner = owner
            self._active.append(turn)
            for other in self._active:
                other.most = max(other.most, len(self._active))
            granted.set_result(turn)


_TURNS: WeakValueDictionary[tuple[str, str], Turns] = WeakValueDictionary()


def turns_of(root: str, model: str) -> Turns:
    """The turns of a model behind an address, shared by all arms of this process."""
    return _TURNS.setdefault((root, model), Turns())
