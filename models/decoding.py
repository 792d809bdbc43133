"""Greedy decoding, stop texts and the probability of a right answer, for models in this process."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from models.protocols import Decoding, Finish, Reply
from models.stop_texts import stop_index


class Predictor(Protocol):
    """What decoding needs of a session."""

    def next_logits(self) -> Tensor:
        """Logits [V] of the token after the last one."""

    def step(self, token: int) -> None:
        """Consume one token."""

    def score(self, ids: Sequence[int]) -> Tensor:
        """Consume `ids`; logits [S, V] after each of them."""


def greedy(session: Predictor, decoding: Decoding, eos_ids: Collection[int] = ()) -> Reply:
    """The most probable tokens one by one, until a stop text, an end of sequence or the limit.

    The stop text and what follows it are no part of the reply; a token that holds nothing else is
    left out of its ids, and neither it nor an end of sequence is consumed.
    """
    ids: list[int] = []
    text = ""
    finish: Finish = "length"
    while len(ids) < decoding.max_new_tokens:
        token = int(session.next_logits().argmax())
        if token in eos_ids:
            finish = "eos"
            break
        longer = decoding.decode([*ids, token])
        end = stop_index(longer, decoding.stop)
        if end is not None:
            finish = "stop"
            if longer[:end] != text:
                ids.append(token)
            text = longer[:end]
            break
        ids.append(token)
        text = longer
        session.step(token)
    return Reply(text, tuple(ids), finish)


@torch.no_grad()
def log_probability(session: Predictor, ids: Sequence[int]) -> float:
    """Natural logarithm of the probability that `ids` come next. Consumes all but the last."""
    logits = session.next_logits()[None]
    if len(ids) > 1:
        logits = torch.cat((logits, session.score(ids[:-1])))
    chosen = torch.as_tensor(ids, device=logits.device)[:, None]
    return float(logits.float().log_softmax(-1).gather(-1, chosen).sum())
