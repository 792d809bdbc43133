"""Writes a request's JSON with its prompt, a long one in pieces as they are sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from models.protocols import TokenIds

LONG = 1 << 16  # tokens or characters: from here on a prompt is sent in pieces
PIECE = 1 << 14


class Body:
    """A request's JSON: `fields`, and the prompt under `name`, which is never whole in memory."""

    def __init__(
        self, fields: Mapping[str, Any], name: str, prompt: str | Sequence[TokenIds]
    ) -> None:
        head = json.dumps(fields, ensure_ascii=False, allow_nan=False)
        self._head = f'{head[:-1]}, "{name}": '.encode()
        self._prompt = prompt

    @property
    def is_long(self) -> bool:
        text = isinstance(self._prompt, str)
        return (len(self._prompt) if text else sum(map(len, self._prompt))) >= LONG

    def pieces(self) -> Iterator[bytes]:
        yield self._head
        if isinstance(self._prompt, str):
            yield from text_pieces(self._prompt)
        else:
            yield from id_pieces(self._prompt)
        yield b"}"

    @property
    def length(self) -> int:
        """Bytes."""
        return sum(map(len, self.pieces()))

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces())

    async def stream(self) -> AsyncIterator[bytes]:
        for piece in self.pieces():
            yield piece


def text_pieces(text: str) -> Iterator[bytes]:
    yield b'"'
    for at in range(0, len(text), PIECE):
        yield json.dumps(text[at : at + PIECE], ensure_ascii=False)[1:-1].encode()
    yield b'"'


def id_pieces(prompt: Sequence[TokenIds]) -> Iterator[bytes]:
    first = True
    for part in prompt:
        for at in range(0, len(part), PIECE):
            written = ",".join(map(str, np.asarray(part[at : at + PIECE]).tolist()))
            yield (b"[" if first else b",") + written.encode()
            first = False
    yield b"[]" if first else b"]"
