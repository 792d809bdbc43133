"""One timeline of tokens in a model of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from models.decoding import answer, checked_ids
from models.devices import Stopwatch
from models.errors import ModelError
from models.presses.options import Pressing
from models.protocols import Decoding, Piece, Reply, TokenIds, Usage
from models.transformers_models import growing
from models.transformers_models.attention_calls import interfaces_of
from models.transformers_models.held import held_bytes, window_bytes
from models.transformers_models.pressing import Presser

CHUNK_TOKENS = 1024
CACHE_ARGUMENTS = ("past_key_values", "cache_params")


@dataclass(frozen=True)
class Network:
    """A model of transformers, and what its sessions need to know of it.

    `eos_ids` end an answer; `max_position` is None where there is no limit. `stepwise`: its code
    goes on with a text only token by token, whatever the length of the first call.
    """

    module: Any
    eos_ids: Collection[int]
    vocab_size: int
    max_position: int | None
    stepwise: bool = False

    @property
    def arguments(self) -> Collection[str]:
        """What the forward pass takes."""
        return inspect.signature(self.module.forward).parameters

    @cached_property
    def attention_tables(self) -> list[Any]:
        """Where the model looks its attention function up."""
        return interfaces_of(self.module)

    def inputs(self, ids: Tensor, positions: Tensor, cache: Any, keep: int) -> dict[str, Any]:
        """Arguments of a call that reads `ids` [N, S] and gives the last `keep` logits of each."""
        inputs = {"input_ids": ids, "use_cache": True}
        inputs |= {name: cache for name in CACHE_ARGUMENTS if name in self.arguments}
        if "position_ids" in self.arguments:
            inputs["position_ids"] = positions
        if "logits_to_keep" in self.arguments:
            inputs["logits_to_keep"] = keep
        return inputs

    @property
    def input_device(self) -> torch.device:
        device: torch.device = self.module.get_input_embeddings().weight.device
        return device

    @property
    def output_device(self) -> torch.device:
        """Where the last layer is; another than the first layer's with a `device_map`."""
        head = self.module.get_output_embeddings()
        device: torch.device = self.input_device if head is None else head.weight.device
        return device


class HuggingFaceSession:
    """Implements `PressedSession` and `WindowedSession`. Any split gives the same answers but for
    roundings while the cache is full; caches that forget as they read depend on it (`caches`)."""

    def __init__(
        self,
        network: Network,
        chunk_tokens: int = CHUNK_TOKENS,
        cache: Any = None,
    ) -> None:
        """`cache`: an empty one; full precision if None."""
        self.network = network
        self._chunk_tokens = chunk_tokens
        self.cache = growing.new_cache(network.module.config) if cache is None else cache
        self._presser: Presser | None = None
        self._position = 0
        self._logits: Tensor | None = None  # after the newest token, [V]
        self.clock = Stopwatch(network.output_device)
        self._failure: str | None = None
        self.decoded_with = 1  # sessions that shared the steps of its answer

    @property
    def position(self) -> int:
        return self._position

    def extend(self, piece: Piece) -> None:
        with self.clock.timing("prefill"):
            self.read(piece.ids)

    def read(self, ids: TokenIds) -> None:
        """Consume token ids."""
        tokens = self.checked(ids)
        for chunk in self._calls(tokens):
            self._logits = self._advance(chunk, 1)[-1]

    def step(self, token: int) -> None:
        """Consume one token."""
        self.read([token])

    def score(self, ids: TokenIds) -> Tensor:
        """Consume `ids`; logits [S, V] after each of them."""
        calls = self._calls(self.checked(ids))
        logits = torch.cat([self._advance(chunk, len(chunk)) for chunk in calls])
        self._logits = logits[-1]
        return logits

    def next_logits(self) -> Tensor:
        """Logits [V] of the token after the last one."""
        self._refuse_broken()
        if self._logits is None:
            raise ValueError("generate: the session is empty, extend it first")
        return self._logits

    def _calls(self, tokens: Tensor) -> Sequence[Tensor]:
        """Tokens [S] as the calls that consume them."""
        if not len(tokens):
            return ()
        size = self._chunk_tokens
        if self.network.stepwise:
            size = 1 if self._position else len(tokens)
        chunks: Sequence[Tensor] = tokens.split(size)
        return chunks

    @torch.no_grad()
    def _advance(self, chunk: Tensor, keep: int) -> Tensor:
        """Logits of the last `keep` tokens of a chunk [S], after it was consumed."""
        with self.breaking():
            with self._watching():
                output = self.network.module(**self._inputs(chunk, keep))
            self._position += len(chunk)
            if len(chunk) > 1:
                growing.trim(self.cache)
            logits: Tensor = output.logits[0, -keep:].clone()
            self.refuse_nan(len(chunk), logits)
        return logits

    def _inputs(self, chunk: Tensor, keep: int) -> dict[str, Any]:
        end = self._position + len(chunk)
        positions = torch.arange(self._position, end, device=chunk.device)
        return self.network.inputs(chunk[None], positions[None], self.cache, keep)

    def fork(self) -> HuggingFaceSession:
        """Shares the past; see `growing`."""
        self._refuse_broken()
        child = HuggingFaceSession(self.network, self._chunk_tokens, growing.fork(self.cache))
        child._presser = self._presser.fork() if self._presser else None
        child._position, child._logits = self._position, self._logits
        return child

    def generate(self, decoding: Decoding) -> Reply:
        return answer(self, self.fork, self.clock, decoding, self.network.eos_ids)

    def observe(self, presser: Presser | None) -> None:
        """Read for a press from now on. None: for none."""
        self._presser = presser

    def press_with(
        self, pressing: Pressing | None, few_bits: Callable[[], Any] | None = None
    ) -> None:
        """The press to use of those that the session has read for, and the quantized layers."""
        if self._presser is not None:
            self._presser.pressing, self._presser.few_bits = pressing, few_bits

    def context_ends(self) -> None:
        if self._presser and not self._presser.waits_for_question:
            self._press()

    def question_ends(self) -> None:
        if self._presser:
            self._press()

    @torch.no_grad()
    def _press(self) -> None:
        assert self._presser is not None
        with self.clock.timing("prefill"), self.breaking():
            self._presser.press(self.cache)

    def usage(self) -> Usage:
        clock = self.clock
        held = held_bytes(self.cache)
        if held is not None and self._presser:
            held |= self._presser.held_bytes()
        if self.decoded_with > 1:
            return Usage(
                clock.prefill, None, clock.gold, held, requests_in_flight=self.decoded_with
            )
        return Usage(clock.prefill, clock.decode, clock.gold, held)

    def window_bytes(self) -> tuple[int, int]:
        """Implements `WindowedSession`."""
        return window_bytes(self.cache)

    @property
    def can_go_together(self) -> bool:
        """Whether one token can be read beside those of other sessions: nothing watches it."""
        return self._presser is None or self._presser.is_idle

    def _watching(self) -> AbstractContextManager[None]:
        if self._presser is None:
            return nullcontext()
        return self._presser.reading(self.network, self._position)

    def stepped(self, logits: Tensor) -> None:
        """The cache has consumed one token; `logits` [V] come after it."""
        self._position += 1
        self._logits = logits

    def refuse_nan(self, tokens: int, logits: Tensor | None = None) -> None:
        """Raises: ModelError where logits, the newest if None, hold what is no number.

        Infinity is none; -inf is: models take ids out of their vocabulary with it.
        """
        found = self.next_logits() if logits is None else logits
        if bool((found.isnan() | found.isposinf()).any()):
            raise ModelError(
                f"logits: no number within the {tokens} tokens before token "
                f"{self._position} (dtype {self.network.module.dtype})"
            )

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """A failure leaves some layers a chunk ahead of others."""
        self._refuse_broken()
        try:
            yield
        except BaseException as error:
            self._failure = f"{type(error).__name__}: {error}"
            raise

    def _refuse_broken(self) -> None:
        if self._failure is not None:
            raise ValueError(f"the session failed before and cannot go on: {self._failure}")

    def checked(self, ids: TokenIds) -> Tensor:
        network = self.network
        tokens = checked_ids(ids, self._position, network.vocab_size, network.max_position)
        return tokens.to(self.network.input_device)
