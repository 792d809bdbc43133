"""Greedy decoding, stop texts and the probability of a right answer, for models in this process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.devices import Stopwatch
from models.protocols import Decoding, Finish, Reply, TokenIds
from models.stop_texts import stop_index


class Predictor(Protocol):
    """What decoding needs of a session."""

    def next_logits(self) -> Tensor:
        """Logits [V] of the token after the last one."""

    def step(self, token: int) -> None:
        """Consume one token."""

    def score(self, ids: Sequence[int]) -> Tensor:
        """Consume `ids`; logits [S, V] after each of them."""


class Growing:
    """A greedy answer as it grows: the most probable tokens one by one, until a stop text, an end
    of sequence or the limit.

    The stop text and what follows it are no part of the reply; a token that holds nothing else is
    left out of its ids, and neither it nor an end of sequence is consumed.
    """

    def __init__(self, decoding: Decoding, eos_ids: Collection[int] = ()) -> None:
        self._decoding, self._eos_ids = decoding, {*eos_ids, *decoding.end_ids}
        self._ids: list[int] = []
        self._text = ""
        self._finish: Finish = "length"

    def next_token(self, logits: Tensor) -> int | None:
        """The token to consume after `logits` [V]; None where the answer has ended."""
        if self._finish != "length" or len(self._ids) >= self._decoding.max_new_tokens:
            return None
        token = int(logits.argmax())
        if token in self._eos_ids:
            self._finish = "eos"
            return None
        longer = self._decoding.decode([*self._ids, token])
        end = stop_index(longer, self._decoding.stop)
        if end is not None:
            self._finish = "stop"
            if longer[:end] != self._text:
                self._ids.append(token)
            self._text = longer[:end]
            return None
        self._ids.append(token)
        self._text = longer
        return token

    @property
    def reply(self) -> Reply:
        return Reply(self._text, tuple(self._ids), self._finish)


def greedy(session: Predictor, decoding: Decoding, eos_ids: Collection[int] = ()) -> Reply:
    """The session's greedy answer, as `Growing` says."""
    growing = Growing(decoding, eos_ids)
    while (token := growing.next_token(session.next_logits())) is not None:
        session.step(token)
    return growing.reply


@torch.no_grad()
def log_probability(session: Predictor, ids: Sequence[int]) -> float:
    """Natural logarithm of the probability that `ids` come next. Consumes all but the last."""
    logits = session.next_logits()[None]
    if len(ids) > 1:
        logits = torch.cat((logits, session.score(ids[:-1])))
    chosen = torch.as_tensor(ids, device=logits.device)[:, None]
    return float(logits.float().log_softmax(-1).gather(-1, chosen).sum())


def gold_score(
    session: Predictor, fork: Callable[[], Predictor], clock: Stopwatch, decoding: Decoding
) -> float | None:
    """The right answer's log-probability, scored in a fork, on the clock; None if not wanted.

    Raises:
        ValueError: the session is empty.
    """
    session.next_logits()  # refuses an empty session
    if not decoding.gold_ids:
        return None
    with clock.timing("gold"):
        return log_probability(fork(), decoding.gold_ids)


def answer(
    session: Predictor,
    fork: Callable[[], Predictor],
    clock: Stopwatch,
    decoding: Decoding,
    eos_ids: Collection[int] = (),
) -> Reply:
    """Score the right answer in a fork, if it is given, then decode; both on the clock.

    Raises:
        ValueError: the session is empty.
    """
    gold_logprob = gold_score(session, fork, clock, decoding)
    with clock.timing("decode"):
        return greedy(session, decoding, eos_ids)._replace(gold_logprob=gold_logprob)


def checked_ids(ids: TokenIds, position: int, vocab_size: int, limit: int | None) -> Tensor:
    """`ids` [S] as a tensor of their own, to be read at `position`.

    Raises:
        ValueError: an id outside the vocabulary, or more tokens than `limit`.
    """
    tokens = torch.from_numpy(np.array(ids, dtype=np.int64))  # a copy: it may be read-only
    if len(tokens) and (int(tokens.min()) < 0 or int(tokens.max()) >= vocab_size):
        raise ValueError(f"ids: token ids must lie in 0..{vocab_size - 1}")
    if limit is not None and position + len(tokens) > limit:
        raise ValueError(f"ids: {position} + {len(tokens)} tokens exceed max_position {limit}")
    return tokens
