"""A model of one's own: the nano twin behind a window, which remembers its last tokens only.

Shows all that `niah` asks of a model and of its sessions.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping

import numpy as np

from models.errors import ModelError
from models.protocols import Decoding, Forks, Piece, Reply, Usage
from models.registry import load_model


class LastTokensSession:
    """One timeline. Implements `models.protocols.Session`."""

    def __init__(self, model: LastTokens) -> None:
        self.position = 0
        self._model = model
        self._kept = np.empty(0, dtype=np.int64)
        self._prefill_seconds = self._decode_seconds = 0.0

    def extend(self, piece: Piece) -> None:
        began = time.perf_counter()
        seen = np.concatenate([self._kept, np.asarray(piece.ids, dtype=np.int64)])
        self._kept = seen[-self._model.window :].copy()
        self.position += len(piece.ids)
        self._prefill_seconds += time.perf_counter() - began

    def fork(self) -> LastTokensSession:
        child = copy.copy(self)  # what is kept is replaced, never changed
        child._prefill_seconds = child._decode_seconds = 0.0
        return child

    def generate(self, decoding: Decoding) -> Reply:
        began = time.perf_counter()
        reader = self._model.inner.session()
        reader.extend(Piece(self._kept, decoding.decode))
        reply = reader.generate(decoding)
        self.extend(Piece(reply.ids, decoding.decode))
        self._decode_seconds += time.perf_counter() - began
        return reply

    def usage(self) -> Usage:
        held = {"window": self._kept.nbytes}
        return Usage(self._prefill_seconds, self._decode_seconds, cache_bytes=held)


class LastTokens:
    """Implements `models.protocols.Model`; option `window`, the tokens that are kept."""

    def __init__(self, name: str, options: Mapping[str, object]) -> None:
        window = options.get("window", 512)
        if not isinstance(window, int) or window < 1 or set(options) - {"window"}:
            raise ModelError(f"options: got {dict(options)}, expected window, from 1")
        self.inner = load_model("nano-dense")
        self.window = window
        self.name = name
        self.fingerprint = f"{self.inner.fingerprint}-last-{window}"  # all that decides answers
        self.tokenizer = self.inner.tokenizer
        self.vocab_size = self.inner.vocab_size
        self.max_position = self.inner.max_position
        self.device = self.inner.device
        self.forks: Forks = "share"
        self.cache_kinds = {"window": "ids of the last tokens"}

    def session(self) -> LastTokensSession:
        return LastTokensSession(self)

    def describe(self) -> dict[str, object]:
        return self.inner.describe() | {"options": {"window": self.window}}
