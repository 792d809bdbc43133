"""Uses a session in another way before its question is asked, as an arm's `session` says.

A right cache gives the same answers whatever was done. Engines have answered wrongly after each:
tokens that arrive in decoding, a prefix that another question used, a fork of which a sibling went
on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from haystacks.tokenizer import Tokenizer
from models.protocols import Model, RemoteModel
from niah.errors import PlanError
from niah.execution.timed_session import Timeline
from niah.sweep.config import Arm, SessionUse
from niah.sweep.prompts import Context, Ids
from niah.sweep.trials import Trial

OTHER_QUESTION = "\nWhich day of the week comes after Monday? The day that comes after Monday is"


class Stretch(NamedTuple):
    """Tokens to be read, one at a time where `in_steps`."""

    ids: Ids
    in_steps: bool = False


class Aside:
    """What a session reads that is not the arm's question."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def question(self) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(OTHER_QUESTION))

    def text(self, tokens: int) -> tuple[int, ...]:
        """The question over and over, `tokens` long."""
        whole, rest = divmod(tokens, len(self.question))
        return self.question * whole + self.question[:rest]


def fork_position(trial: Trial, use: SessionUse) -> int:
    """How many tokens of the trunk a question's fork shares: none of those read in steps."""
    return min(trial.fork_at, max(0, trial.cut - use.decode_tail))


def context_stretches(trial: Trial, context: Context, use: SessionUse) -> list[Stretch]:
    """What a fork at `fork_position` reads of the context."""
    text = context.text_ids(trial)[fork_position(trial, use) :]
    until = len(text) - min(use.decode_tail, len(text))
    tail = [Stretch(text[until:], in_steps=True)] if until < len(text) else []
    return [Stretch(text[:until]), *tail]


def own_stretches(trial: Trial, context: Context, use: SessionUse) -> list[Stretch]:
    """What a fork at `fork_position` reads: in all the prompt's `length` less that position."""
    *before, last = context_stretches(trial, context, use)
    question = context.question_ids(trial)
    if last.in_steps:
        return [*before, last, Stretch(question)]
    return [*before, Stretch(np.concatenate([last.ids, question]))]


def read_stretches(timeline: Timeline, stretches: Iterable[Stretch]) -> None:
    for ids, in_steps in stretches:
        if in_steps:
            timeline.step(ids)
        else:
            timeline.advance(ids)


def tokens_before(trial: Trial, use: SessionUse, aside: Aside) -> list[int]:
    """The prompt tokens of each request that a server is sent before a question."""
    start, sent = fork_position(trial, use), []
    if use.question_before:
        sent.append(start + len(aside.question))
    if use.sibling_tokens:
        sent += [start] * bool(start) + [start + use.sibling_tokens]
    first = max(0, trial.cut - use.decode_tail)
    if use.decode_tail:
        sent += [n for n in range(first, trial.cut + 1) if n]
    return sent


def check_uses(arms: Sequence[Arm], models: Mapping[str, Model]) -> None:
    """Raises: PlanError where a server cannot be used as an arm's `session` says."""
    for arm in arms:
        model, use = models[arm.name], arm.session
        if not isinstance(model, RemoteModel):
            continue
        if use.decode_tail and not model.steps:
            raise PlanError(
                f"arm {arm.name}: session.decode_tail = {use.decode_tail}: this server computes no "
                "prompt token alone; expected 0, or a server of llama.cpp"
            )
        if use.decode_tail and model.concurrency > 1:
            raise PlanError(
                f"arm {arm.name}: options.concurrency = {model.concurrency}: other requests come "
                "between the tokens of session.decode_tail; expected 1"
            )
        if use.reuses_a_prefix and not model.reuses_prefixes:
            raise PlanError(
                f"arm {arm.name}: options.prefix = cold: no cached prefix is used, which session "
                "asks for; expected as_is"
            )
