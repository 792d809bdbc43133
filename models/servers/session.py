"""A session that keeps its prompt here and sends all of it when it is asked for an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from models.errors import ServerError
from models.protocols import Decode, Decoding, Earlier, Piece, Reply, TokenIds, Usage
from models.servers.client import Client
from models.servers.dialects import Ask, Heard, OpenAI, Scored
from models.servers.options import Prefix
from models.servers.turns import Turns
from models.stop_texts import cut_in_lead, stop_index

TEXT_SLACK = 0.02  # of a text's tokens: as many may join or part when it is encoded again
TEXT_SLACK_TOKENS = 8
REUSE_TRIES = 3  # of several requests at once: another may take the place of the cached prefix


class NotReusedError(ServerError):
    """No prompt token came from the server's cache where some should."""


@dataclass
class Line:
    """One server, one way of asking it, shared by all sessions of a model."""

    client: Client
    dialect: OpenAI
    model: str
    as_text: bool
    prefix: Prefix
    extra: Mapping[str, Any]
    concurrency: int
    turns: Turns
    scores_gold: bool = False

    async def send(
        self, parts: tuple[TokenIds, ...], decode: Decode, limit: int, stop: tuple[str, ...]
    ) -> tuple[Heard, float]:
        """An answer and its seconds. Raises: ServerError, StopRunError."""
        tokens = sum(map(len, parts))
        prompt = decode(np.concatenate(parts)) if self.as_text else parts
        ask = Ask(self.model, prompt, tokens, limit, stop, self.prefix, self.extra)
        data, seconds = await self.client.post(
            self.dialect.path, lambda: self.dialect.body(ask), tokens
        )
        heard = self.dialect.heard(data, ask)
        check_counts(heard, tokens, self.as_text)
        return heard, seconds

    async def gold_logprob(
        self, parts: tuple[TokenIds, ...], gold: tuple[int, ...]
    ) -> float | None:
        """Natural logarithm of the probability of `gold` after the prompt; None: unknown.

        Raises: ServerError, StopRunError.
        """
        if not gold or not self.scores_gold or self.as_text:
            return None
        total = 0.0
        whole = [((*parts, gold), gold)]
        by_token = [((*parts, gold[:at]), gold[at : at + 1]) for at in range(len(gold))]
        for prompt, wanted in whole if self.dialect.gold_scoring == "whole" else by_token:
            tokens = sum(map(len, prompt))
            ask = Ask(self.model, prompt, tokens, 1, (), self.prefix, self.extra)
            scored = Scored(ask, wanted)
            body = partial(self.dialect.gold_body, scored)
            data, _ = await self.client.post(self.dialect.gold_path, body, tokens)
            found = self.dialect.gold_heard(data, scored)
            if found is None:
                return None
            total += found
        return total


class ServerSession:
    """Implements `StartingSession`. What a fork shares is `shared` tokens long."""

    def __init__(self, line: Line, parts: tuple[TokenIds, ...] = (), position: int = 0) -> None:
        self._line, self._parts = line, parts
        self._position = self._shared = position
        self._shared_parts = len(parts)
        self._steps = range(0)  # parts of one token each that the server has to compute alone
        self._usage = Usage(None, None, None)

    @property
    def position(self) -> int:
        return self._position

    def extend(self, piece: Piece) -> None:
        ids = np.asarray(piece.ids)
        if len(ids) and int(ids.min()) < 0:
            raise ValueError("ids: token ids must be 0 or more")
        self._parts = (*self._parts, ids)
        self._position += len(ids)

    def extend_in_steps(self, piece: Piece) -> None:
        first = len(self._parts)
        ids = np.asarray(piece.ids)
        for at in range(len(ids)):
            self.extend(Piece(ids[at : at + 1], piece.decode))
        self._steps = range(first, len(self._parts))

    def fork(self) -> ServerSession:
        """The same prompt so far; nothing is copied."""
        return ServerSession(self._line, self._parts, self._position)

    def generate(self, decoding: Decoding) -> Reply:
        started = self.start(decoding)
        try:
            return started.result()
        except BaseException:
            started.cancel()
            raise

    def start(self, decoding: Decoding, earlier: Sequence[Earlier] = ()) -> Future[Reply]:
        if not self._position:
            raise ValueError("generate: the session is empty, extend it first")
        return self._line.client.run(self._answer(decoding, earlier))

    def usage(self) -> Usage:
        return self._usage

    async def _answer(self, decoding: Decoding, earlier: Sequence[Earlier]) -> Reply:
        line = self._line
        async with line.turns.one(line, line.concurrency) as turn:
            heard, seconds = await self._reusing(decoding, earlier)
            gold_logprob = await line.gold_logprob(self._parts, decoding.gold_ids)
        self._usage = Usage(
            prefill_seconds=heard.prefill_seconds,
            decode_seconds=heard.decode_seconds,
            gold_seconds=None,
            prompt_tokens=heard.prompt_tokens,
            cached_tokens=heard.cached_tokens,
            request_seconds=seconds,
            requests_in_flight=turn.most,
        )
        return as_reply(heard, decoding)._replace(gold_logprob=gold_logprob)

    async def _reusing(self, decoding: Decoding, earlier: Sequence[Earlier]) -> tuple[Heard, float]:
        """What is asked, once more where another request at once took what it was to reuse."""
        tries = REUSE_TRIES if self._line.concurrency > 1 else 1
        for _ in range(tries - 1):
            try:
                return await self._asked(decoding, earlier)
            except NotReusedError:
                continue
        return await self._asked(decoding, earlier)

    async def _asked(self, decoding: Decoding, earlier: Sequence[Earlier]) -> tuple[Heard, float]:
        """An answer and its seconds, after what the arm's options and `session` send before."""
        line = self._line
        if line.prefix == "warm":
            await self._warm(decoding.decode)
        for session, aside in earlier:
            assert isinstance(session, ServerSession)
            await line.send(session._parts, aside.decode, aside.max_new_tokens, aside.stop)
        await self._send_steps(decoding.decode)
        heard, seconds = await self._heard(decoding, decoding.stop)
        self._check_reuse(heard, bool(earlier))
        if heard.finish != "length" and cut_in_lead(heard.text, decoding.stop):
            heard, seconds = await self._heard(decoding, ())
        return heard, seconds

    async def _warm(self, decode: Decode) -> None:
        """Send what the fork shares, so that the question finds it in the cache."""
        if not self._shared:
            raise ServerError("prefix: warm: the question shares no prefix that could be sent")
        await self._line.send(self._parts[: self._shared_parts], decode, 1, ())

    async def _send_steps(self, decode: Decode) -> None:
        """Send the prompt as far as its steps go, one token more each time.

        Raises: ServerError where the server does not show that it computed that token alone.
        """
        for count in (self._steps.start, *(part + 1 for part in self._steps)):
            parts = self._parts[:count]
            if not self._steps or not any(map(len, parts)):
                continue
            heard, _ = await self._line.send(parts, decode, 1, ())
            if count > self._steps.start and computed(heard) != 1:
                raise ServerError(
                    f"session.decode_tail: the server computed {told(computed(heard))} prompt "
                    "tokens at a step, expected 1"
                )

    def _check_reuse(self, heard: Heard, after_others: bool) -> None:
        """Raises: ServerError where the cache was not used as the arm's `session` says."""
        if after_others and self._shared and heard.cached_tokens == 0:
            raise NotReusedError("session: no prompt token came from the server's cache")
        after_steps = sum(map(len, self._parts[self._steps.stop :]))
        if self._steps and after_steps and computed(heard) != after_steps:
            raise ServerError(
                f"session.decode_tail: the server computed {told(computed(heard))} prompt tokens "
                f"after the last step, expected {after_steps}"
            )

    async def _heard(self, decoding: Decoding, stop: tuple[str, ...]) -> tuple[Heard, float]:
        heard, seconds = await self._line.send(
            self._parts, decoding.decode, decoding.max_new_tokens, stop
        )
        check_cached(heard, self._line.prefix)
        return heard, seconds


def computed(heard: Heard) -> int | None:
    """Prompt tokens that did not come from the cache; None: unknown."""
    if heard.prompt_tokens is None or heard.cached_tokens is None:
        return None
    return heard.prompt_tokens - heard.cached_tokens


def told(count: int | None) -> str:
    return "an unknown number of" if count is None else str(count)


def check_counts(heard: Heard, sent: int, as_text: bool) -> None:
    """Raises: ServerError where the server read another prompt, or part of it."""
    read = heard.prompt_tokens
    if read is None:
        return
    slack = max(TEXT_SLACK_TOKENS, int(TEXT_SLACK * sent)) if as_text else 0
    if abs(read - sent) > slack:
        told = "shortened" if read < sent else "lengthened"
        raise ServerError(f"the prompt was {told}: the server read {read} tokens of {sent}")
    if heard.cached_tokens is not None and heard.cached_tokens > read:
        raise ServerError(f"the server says that {heard.cached_tokens} of {read} were cached")


def check_cached(heard: Heard, prefix: Prefix) -> None:
    """Raises: ServerError where a cold prompt was cached, or a warm one was not."""
    if prefix == "cold" and heard.cached_tokens:
        raise ServerError(
            f"prefix: cold: {heard.cached_tokens} prompt tokens came from the server's cache"
        )
    if prefix == "warm" and heard.cached_tokens == 0:
        raise NotReusedError("prefix: warm: no prompt token came from the server's cache")


def as_reply(heard: Heard, decoding: Decoding) -> Reply:
    """The answer up to its stop: servers cut before a stop text, behind it, or not at all."""
    text, finish = heard.text, heard.finish
    end = stop_index(text, decoding.stop)
    if end is not None:
        text, finish = text[:end], "stop"
    return Reply(text, kept_ids(heard.ids or (), text, decoding), finish, thought=heard.thought)


def kept_ids(ids: tuple[int, ...], text: str, decoding: Decoding) -> tuple[int, ...]:
    """The ids that `text` takes, without those of the stop and of the end of a sequence."""
    while ids and decoding.decode(ids[:-1]).startswith(text):
        ids = ids[:-1]
    return ids
