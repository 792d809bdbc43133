"""A model of one's own: the nano twin behind a window, which remembers its last tokens only.

Shows all that `niah` asks of a model and of its sessions.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping

import numpy as np

from models.errors import ModelError
from models.protocols import CacheBytes, TokenIds
from models.registry import load_model


class LastTokensSession:
    """One timeline. Implements `models.session.Session`."""

    def __init__(self, model: LastTokens) -> None:
        self.position = 0
        self._model = model
        self._kept = np.empty(0, dtype=np.int64)

    def extend(self, ids: TokenIds) -> None:
        seen = np.concatenate([self._kept, np.asarray(ids, dtype=np.int64)])
        self._kept = seen[-self._model.window :].copy()
        self.position += len(ids)

    def fork(self) -> LastTokensSession:
        return copy.copy(self)  # what is kept is replaced, never changed

    def generate(self, max_new_tokens: int, stop_ids: Collection[int] = ()) -> list[int]:
        reader = self._model.inner.session()
        reader.extend(self._kept)
        answer = reader.generate(max_new_tokens, stop_ids)
        self.extend(answer)
        return answer

    def cache_bytes(self) -> CacheBytes:
        return CacheBytes(window=self._kept.nbytes)


class LastTokens:
    """Implements `models.session.Model`; option `window`, the tokens that are kept."""

    def __init__(self, name: str, options: Mapping[str, object]) -> None:
        window = options.get("window", 512)
        if not isinstance(window, int) or window < 1 or set(options) - {"window"}:
            raise ModelError(f"options: got {dict(options)}, expected window, from 1")
        self.inner = load_model("nano-dense")
        self.window = window
        self.name = name
        self.fingerprint = f"{self.inner.fingerprint}-last-{window}"  # all that decides answers
        self.tokenizer_name = self.inner.tokenizer_name
        self.tokenizer_fingerprint = self.inner.tokenizer_fingerprint
        self.vocab_size = self.inner.vocab_size
        self.max_position = self.inner.max_position

    def session(self) -> LastTokensSession:
        return LastTokensSession(self)

    def describe(self) -> dict[str, object]:
        return self.inner.describe() | {"options": {"window": self.window}}
