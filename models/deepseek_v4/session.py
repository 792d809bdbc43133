"""One timeline of tokens with the caches of all layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from models.decoding import answer, checked_ids
from models.deepseek_v4.cache import (
    CsaCache,
    HcaCache,
    LayerCache,
    SelectingCache,
    SlidingCache,
    total_bytes,
)
from models.deepseek_v4.config import DSA
from models.deepseek_v4.dense import FullCache
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session_files import State, layer_caches, layer_tensors
from models.deepseek_v4.trace import Watch
from models.devices import Stopwatch
from models.finite import require_finite
from models.presses.observed import Needs, Observed
from models.presses.options import Pressing
from models.presses.rotary import Rotary
from models.protocols import Decoding, Piece, Reply, TokenIds, Trace, Usage

Memory = Literal["window", "csa", "hca"]


class AtQuestion(NamedTuple):
    """What changes when the context has been read and the question begins.

    `without`: what is taken away: "window", the exact tokens of every layer; "csa" or "hca", all
    but the window in layers of that kind. `topk`: entries that each query of a CSA layer selects;
    None: as many as before.
    """

    without: Memory | None = None
    topk: int | None = None

    def apply(self, cache: LayerCache) -> None:
        if self.without == "window" and isinstance(cache, SlidingCache):
            cache.forget_window()
        if isinstance(cache, HcaCache) and self.without == cache.kind:
            cache.forget_entries()
        if isinstance(cache, CsaCache) and self.topk is not None:
            cache.topk = self.topk


class DeepseekV4Session:
    """Implements `TracedSession` and `PressedSession`. Any split gives the same answers."""

    def __init__(
        self, model: DeepseekV4, chunk_size: int = 2048, eos_ids: Collection[int] = ()
    ) -> None:
        """`eos_ids` end an answer."""
        self._model = model
        self._eos_ids = eos_ids
        self._chunk_size = chunk_size
        self._caches = model.new_caches()
        self._position = 0
        self._last: Tensor | None = None  # final state of the newest token, [1, 1, D]
        self._pressing: Pressing | None = None
        self._changes = AtQuestion()
        self._clock = Stopwatch(model.device)
        self._failure: str | None = None

    @property
    def position(self) -> int:
        return self._position

    def extend(self, piece: Piece) -> None:
        with self._clock.timing("prefill"):
            self.read(piece.ids)

    def fork(self) -> DeepseekV4Session:
        self._refuse_broken()
        child = DeepseekV4Session(self._model, self._chunk_size, self._eos_ids)
        child._caches = [cache.fork() for cache in self._caches]
        child._position = self._position
        child._last = self._last
        child._pressing = self._pressing
        child._changes = self._changes
        return child

    def change_at_question(self, changes: AtQuestion) -> None:
        """Have what follows the context read less of it, or more."""
        self._changes = changes

    def observe(self, pressing: Pressing | None, needs: Needs) -> None:
        """Press when it is time to, and collect queries for the needs of all presses to come."""
        self._pressing = pressing
        frequencies = self._model.compressed_frequencies
        turned = self._model.config.head_dim - 2 * len(frequencies)
        for cache in self._full_caches().values():
            cache.queries.needs = needs
            cache.queries.rotary = Rotary(frequencies, interleaved=True, start=turned)

    def press_with(self, pressing: Pressing | None) -> None:
        """The press to use of those that the session has read for."""
        self._pressing = pressing

    def context_ends(self) -> None:
        if self._pressing is None or not self._pressing.sees_question:
            self._press()
        for cache in self._caches:
            self._changes.apply(cache)

    def question_ends(self) -> None:
        self._press()

    @torch.no_grad()
    def _press(self) -> None:
        with self._clock.timing("prefill"), self._breaking():
            for layer, cache in self._full_caches().items():
                if self._pressing is not None:
                    decoder: Any = self._model.model.layers[layer]
                    cache.press(self._pressing, layer, decoder.self_attn.sinks)
                cache.queries = Observed()
        self._pressing = None

    def _full_caches(self) -> dict[int, FullCache]:
        return {i: cache for i, cache in enumerate(self._caches) if isinstance(cache, FullCache)}

    def generate(self, decoding: Decoding) -> Reply:
        return answer(self, self.fork, self._clock, decoding, self._eos_ids)

    def usage(self) -> Usage:
        clock = self._clock
        return Usage(clock.prefill, clock.decode, clock.gold, total_bytes(self._caches))

    def read(self, ids: TokenIds) -> None:
        """Consume token ids."""
        tokens = self._checked(ids)
        with self._breaking():
            for chunk in tokens.split(self._chunk_size) if len(tokens) else ():
                self._advance(chunk, newest=1)

    def step(self, token: int) -> None:
        """Consume one token."""
        self.read([token])

    @torch.no_grad()
    def next_logits(self) -> Tensor:
        """Logits [V] of the token after the last one."""
        self._refuse_broken()
        if self._last is None:
            raise ValueError("generate: the session is empty, extend it with at least one token")
        logits: Tensor = self._model.lm_head(self._last)[0]
        require_finite(logits, self._position - 1)
        return logits[0]

    def score(self, ids: TokenIds) -> Tensor:
        """Consume `ids`; logits [S, V] after each of them."""
        chunks = self._checked(ids).split(self._chunk_size)
        with torch.no_grad(), self._breaking():
            states = torch.cat([self._advance(chunk) for chunk in chunks], dim=1)
            logits: Tensor = self._model.lm_head(states)
        return logits[0]

    def extend_traced(self, token_id: int, wanted: int) -> Trace:
        """Extend by one token, and say how each layer that selects ranked what holds `wanted`.

        A layer that has closed no entry with it yet is left out. DSA has no exact window, and
        neither has a session without it.
        """
        config = self._model.config
        selecting = [(i, c) for i, c in enumerate(self._caches) if isinstance(c, SelectingCache)]
        watches = [Watch(i, wanted, c.topk or config.index_topk) for i, c in selecting]
        for (_, cache), watch in zip(selecting, watches, strict=True):
            cache.watch = watch
        self.step(token_id)
        for _, cache in selecting:
            cache.watch = None
        seen = tuple(watch.seen for watch in watches if watch.seen)
        near = self.position - wanted <= config.sliding_window
        has_window = DSA not in config.layer_types and self._changes.without != "window"
        return Trace(near and has_window, seen)

    def state(self, notes: Mapping[str, str]) -> State:
        """What `session_files.save` writes; shares the session's memory."""
        self._refuse_broken()
        if any(isinstance(cache, HcaCache) and cache.gone for cache in self._caches):
            raise ValueError("the session has lost a layer's memory and cannot be saved")
        last = {} if self._last is None else {"last": self._last}
        return State(self._position, layer_tensors(self._caches) | last, dict(notes))

    @classmethod
    def restored(
        cls, model: DeepseekV4, state: State, eos_ids: Collection[int] = ()
    ) -> DeepseekV4Session:
        """The session that `state` was taken of."""
        session = cls(model, eos_ids=eos_ids)
        # Copies: what was loaded may be a map of the file.
        tensors = {name: t.to(model.device, copy=True) for name, t in state.tensors.items()}
        session._caches = layer_caches(tensors, session._caches)
        session._position = state.position
        session._last = tensors.get("last")
        return session

    @torch.no_grad()
    def _advance(self, chunk: Tensor, newest: int | None = None) -> Tensor:
        """Read a chunk; its final states [1, S, D], or those of its newest tokens."""
        if any(cache.queries.needs.queries for cache in self._full_caches().values()):
            newest = None  # presses see the queries of every token
        ids = chunk[None].to(self._model.device)
        start = self._position
        states = self._model.hidden(ids, start=start, caches=self._caches, newest=newest)
        require_finite(states[0], start + len(chunk) - states.shape[1])
        self._position += len(chunk)
        self._last = states[:, -1:].clone()
        return states

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """A failure in the block ends the session: some layers may be ahead of others."""
        try:
            yield
        except BaseException as error:
            self._failure = f"{type(error).__name__}: {error}"
            raise

    def _refuse_broken(self) -> None:
        if self._failure is not None:
            raise ValueError(f"the session failed before and cannot go on: {self._failure}")

    def _checked(self, ids: TokenIds | Sequence[int]) -> Tensor:
        self._refuse_broken()
        config = self._model.config
        return checked_ids(ids, self._position, config.vocab_size, config.max_position_embeddings)
