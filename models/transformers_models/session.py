"""One timeline of tokens in a model of transformers."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Sequence
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
from models.transformers_models.held import held_bytes
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
    """Implements `PressedSession`. Any split gives the same answers, roundings apart, while the
    cache is full; caches that forget as they read depend on the split (`caches`)."""

    def __init__(
        self,
        network: Network,
        chunk_tokens: int = CHUNK_TOKENS,
        cache: Any = None,
    ) -> None:
        """`cache`: an empty one; full precision if None."""
        self._network = network
        self._chunk_tokens = chunk_tokens
        self._cache = growing.new_cache(network.module.config) if cache is None else cache
        self._presser: Presser | None = None
        self._position = 0
        self._logits: Tensor | None = None  # after the newest token, [V]
        self._clock = Stopwatch(network.output_device)
        self._failure: str | None = None

    @property
    def position(self) -> int:
        return self._position

    def extend(self, piece: Piece) -> None:
        with self._clock.timing("prefill"):
            self.read(piece.ids)

    def read(self, ids: TokenIds) -> None:
        """Consume token ids."""
        tokens = self._checked(ids)
        for chunk in self._calls(tokens):
            self._logits = self._advance(chunk, 1)[-1]

    def step(self, token: int) -> None:
        """Consume one token."""
        self.read([token])

    def score(self, ids: TokenIds) -> Tensor:
        """Consume `ids`; logits [S, V] after each of them."""
        calls = self._calls(self._checked(ids))
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
        if self._network.stepwise:
            size = 1 if self._position else len(tokens)
        chunks: Sequence[Tensor] = tokens.split(size)
        return chunks

    @torch.no_grad()
    def _advance(self, chunk: Tensor, keep: int) -> Tensor:
        """Logits of the last `keep` tokens of a chunk [S], after it was consumed."""
        with self._breaking():
            with self._watching():
                output = self._network.module(**self._inputs(chunk, keep))
            self._position += len(chunk)
            if len(chunk) > 1:
                growing.trim(self._cache)
            logits: Tensor = output.logits[0, -keep:].clone()
            if bool(logits.isnan().any()):
                raise ModelError(
                    f"logits: no number within the {len(chunk)} tokens before token "
                    f"{self._position} (dtype {self._network.module.dtype})"
                )
        return logits

    def _inputs(self, chunk: Tensor, keep: int) -> dict[str, Any]:
        arguments = self._network.arguments
        end = self._position + len(chunk)
        positions = torch.arange(self._position, end, device=chunk.device)
        inputs = {"input_ids": chunk[None], "use_cache": True}
        inputs |= {name: self._cache for name in CACHE_ARGUMENTS if name in arguments}
        if "position_ids" in arguments:
            inputs["position_ids"] = positions[None]
        if "logits_to_keep" in arguments:
            inputs["logits_to_keep"] = keep
        return inputs

    def fork(self) -> HuggingFaceSession:
        """Shares the past; see `growing`."""
        self._refuse_broken()
        child = HuggingFaceSession(self._network, self._chunk_tokens, growing.fork(self._cache))
        child._presser = self._presser.fork() if self._presser else None
        child._position, child._logits = self._position, self._logits
        return child

    def generate(self, decoding: Decoding) -> Reply:
        return answer(self, self.fork, self._clock, decoding, self._network.eos_ids)

    def observe(self, presser: Presser | None) -> None:
        """Read for a press from now on. None: for none."""
        self._presser = presser

    def press_with(self, pressing: Pressing | None) -> None:
        """The press to use of those that the session has read for."""
        if self._presser is not None:
            self._presser.pressing = pressing

    def context_ends(self) -> None:
        if self._presser and not self._presser.waits_for_question:
            self._press()

    def question_ends(self) -> None:
        if self._presser:
            self._press()

    @torch.no_grad()
    def _press(self) -> None:
        assert self._presser is not None
        with self._clock.timing("prefill"), self._breaking():
            self._presser.press(self._cache)

    def usage(self) -> Usage:
        clock = self._clock
        held = held_bytes(self._cache)
        if held is not None and self._presser:
            held |= self._presser.held_bytes()
        return Usage(clock.prefill, clock.decode, clock.gold, held)

    def _watching(self) -> AbstractContextManager[None]:
        if self._presser is None:
            return nullcontext()
        return self._presser.reading(self._network, self._position)

    @contextmanager
    def _breaking(self) -> Iterator[None]:
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

    def _checked(self, ids: TokenIds) -> Tensor:
        network = self._network
        tokens = checked_ids(ids, self._position, network.vocab_size, network.max_position)
        return tokens.to(self._network.input_device)
