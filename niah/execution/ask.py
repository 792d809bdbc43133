"""Asks one arm a question: a fork of the session that has read the context reads it and answers.

Haystack, model and scorer meet here only. `streams` reads the contexts.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import reduce
from operator import index
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from haystacks.tokenizer import Tokenizer
from models.errors import StopRunError
from models.protocols import (
    Decoding,
    Earlier,
    Model,
    PressedSession,
    Reply,
    Session,
    SharingModel,
    StartingSession,
    Trace,
    TracedSession,
    Usage,
)
from niah.execution.loading import arm_fingerprint
from niah.execution.needle_loss import find_deviation, lost_by, ranked
from niah.execution.session_use import (
    Aside,
    context_stretches,
    fork_position,
    own_stretches,
    read_stretches,
)
from niah.execution.timed_session import NOTHING, Share, Spent, Timeline, TokensRead
from niah.runs.row import Row, complaint
from niah.scoring.answer_channel import opens_thought
from niah.scoring.answer_values import Case
from niah.scoring.outcomes import contains, judge
from niah.sweep.config import Arm, Sweep
from niah.sweep.prompt_format import end_ids, gold_ids, question_text, stop_texts
from niah.sweep.prompts import Context, Ids
from niah.sweep.trials import Trial, key_identity

log = logging.getLogger(__name__)

Fields = dict[str, Any]  # of a row
ASIDE_TOKENS = 16  # of an answer that is not asked for its own sake
EXCERPT_TOKENS = 24  # of the prompt, kept in a row on either side of its needle


class Reading(NamedTuple):
    """What a model did with one question. None: not measured. `before` as in `Share`."""

    reply: Reply
    computed_tokens: int | None
    prefill_seconds: float | None
    cold_prefill_seconds: float | None
    usage: Usage
    before: Spent = NOTHING


class Account(NamedTuple):
    """What was spent until a question had been read, and what its fork held then.

    `cold_seconds`: of all that its prompt shares with others.
    """

    share: Share
    cold_seconds: float
    cache_bytes: Mapping[str, int] | None


class Question(NamedTuple):
    """A question that a fork has read. `started`: a server's reply to come. `account`: what was
    settled where it is decoded with others; `reply` is there, or what went wrong, once it was.

    `shared` are the trunk and, where the context goes on behind it, a fork of it that has read the
    rest; `fork` is a fork of the last.
    """

    trial: Trial
    fork: Timeline
    decoding: Decoding
    shared: tuple[Timeline, ...]
    started: Future[Reply] | None
    account: Account | None = None
    reply: Reply | Exception | None = None


class Finished(NamedTuple):
    """A row, and what it tells that is no work of this process, or counted by another arm's.

    Less than nothing where this process spent seconds that no row tells.
    """

    row: Row
    before: Spent = NOTHING


@dataclass
class Asker:
    """An arm at work."""

    sweep: Sweep
    arm: Arm
    model: Model
    tokenizer: Tokenizer
    progress: TokensRead

    @property
    def fingerprint(self) -> str:
        return arm_fingerprint(self.model, self.arm.session)

    def fork_at(self, trial: Trial) -> int:
        """Where the trunk is forked for a question."""
        return fork_position(trial, self.arm.session)

    def key(self, trial: Trial) -> str:
        return key_identity(trial.pair, self.arm.name, self.fingerprint)

    def finish(self, question: Question, context: Context, asked: Fields) -> Finished:
        """The row of a question. Raises: StopRunError."""
        trial = question.trial
        try:
            reading = self.read_answer(question)
            answered = self.judged(trial, context, reading)
            if not answered["correct"]:
                trunk = question.shared[0].session
                answered |= self.traced(trial, context, trunk, reading.reply.ids)
            return Finished(Row(**asked, **answered), reading.before)
        except StopRunError:
            raise
        except Exception as error:
            log.debug("question %s failed", trial.pair, exc_info=True)
            return Finished(Row(**asked, **failed(error)))

    def decoding(self, trial: Trial) -> Decoding:
        """How the question is answered."""
        return Decoding(
            trial.max_new_tokens,
            self.tokenizer.decode,
            stop_texts(self.sweep.prompt, trial.fact),
            self.gold_ids(trial),
            end_ids(self.sweep.prompt, self.tokenizer),
        )

    def gold_ids(self, trial: Trial) -> tuple[int, ...]:
        """The right continuation of the question; empty where there is more than one, or none."""
        return gold_ids(self.sweep.prompt, trial.fact, self.tokenizer) if trial.starts else ()

    def timeline(self, session: Session, is_told: bool = True) -> Timeline:
        """`is_told`: its tokens count as progress."""
        progress = self.progress if is_told else untold
        return Timeline(session, self.tokenizer.decode, self.sweep.chunk_tokens, progress)

    def describe(self, trial: Trial, context: Context) -> Fields:
        """Everything about a row that is known before its question is asked."""
        stream, needle = context.stream, trial.needle
        start, end = needle if needle else (None, None)
        return {
            "key": self.key(trial),
            "pair": trial.pair,
            "arm": self.arm.name,
            "role": self.arm.role,
            "model": self.model.name,
            "family": trial.family,
            "template_split": trial.templates,
            "template": trial.fact.template,
            "corpus": stream.corpus,
            "layout": self.sweep.layout,
            "stream": stream.index,
            "repeat": stream.repeat,
            "offset": stream.offset,
            "compression_ratio": context.compression_ratio(trial.length, self.tokenizer),
            "control": trial.control,
            "requested_length": trial.requested_length,
            "length": trial.length,
            "depth": trial.depth,
            "actual_depth": trial.actual_depth,
            "prefix_tokens": len(trial.prefix_ids),
            "needle_start": start,
            "needle_end": end,
            "spans": trial.spans,
            "question": question_text(self.sweep.prompt, trial.fact),
            "gold": trial.fact.gold,
            "rivals": len(context.rivals(trial)),
        }

    def begin(self, trial: Trial, context: Context, shared: tuple[Timeline, ...]) -> Question:
        """Fork, read what no other question shares, and ask a server."""
        use, trunk, earlier = self.arm.session, shared[-1], list[Earlier]()
        aside = Aside(self.tokenizer)
        if use.question_before:
            earlier += self.answer_aside(trunk, aside.question)
        fork = self.timeline(trunk.session.fork())
        if use.sibling_tokens:
            if trunk.session.position:
                earlier += self.answer_aside(trunk, ())
            earlier += self.answer_aside(trunk, aside.text(use.sibling_tokens))
        self.read_own(fork, context, trial)
        decoding, session, started = self.decoding(trial), fork.session, None
        if isinstance(session, StartingSession):
            started = session.start(decoding, earlier)
        return Question(trial, fork, decoding, shared, started)

    def read_own(self, fork: Timeline, context: Context, trial: Trial) -> None:
        """Read what is left of the prompt; say where the context and the question end."""
        if isinstance(fork.session, PressedSession):
            assert fork.session.position == trial.cut
            self.read_question(fork, context.question_ids(trial))
        else:
            read_stretches(fork, own_stretches(trial, context, self.arm.session))

    def read_question(self, fork: Timeline, ids: Ids) -> None:
        """Read a question behind the context, and say so to a session that wants to know."""
        session = fork.session
        if not isinstance(session, PressedSession):
            fork.advance(ids)
            return
        self.end_context(session)
        fork.advance(ids)
        session.question_ends()

    def end_context(self, session: PressedSession) -> None:
        """This arm's press may work now."""
        if isinstance(self.model, SharingModel):
            self.model.adopt(session)
        session.context_ends()

    def answer_aside(self, trunk: Timeline, ids: Sequence[int]) -> Iterator[Earlier]:
        """Let a fork read `ids` and answer; yields what a server has yet to be asked."""
        side = self.timeline(trunk.session.fork(), is_told=False)
        self.read_question(side, np.asarray(ids, dtype=np.int64))
        decoding = Decoding(ASIDE_TOKENS if ids else 1, self.tokenizer.decode)
        if isinstance(side.session, StartingSession):
            yield Earlier(side.session, decoding)
        elif ids:
            side.session.generate(decoding)

    def read_answer(self, question: Question) -> Reading:
        """Decode, or wait for the server. Raises what the model raised."""
        fork = question.fork
        if question.started is not None:
            reply, usage = question.started.result(), fork.session.usage()
            return served(reply, usage)
        if question.account is not None:
            assert question.reply is not None
            if isinstance(question.reply, Exception):
                raise question.reply
            return self.reading(fork, question.reply, question.account)
        held = fork.session.usage().cache_bytes
        answer = fork.session.generate(question.decoding)
        return self.reading(fork, answer, self.account(question)._replace(cache_bytes=held))

    def account(self, question: Question) -> Account:
        """Settles what the arm owes to the sessions that its questions share."""
        return Account(
            share=reduce(Share.plus, [each.take(self.arm.name) for each in question.shared]),
            cold_seconds=sum(each.total.seconds for each in question.shared),
            cache_bytes=question.fork.session.usage().cache_bytes,
        )

    def reading(self, fork: Timeline, reply: Reply, account: Account) -> Reading:
        """What the fork and what it shares have spent; bytes as held when the question was read."""
        usage, spent = fork.session.usage(), account.share.spent
        if account.cache_bytes is not None:
            usage = usage._replace(cache_bytes=account.cache_bytes)
        own_seconds = usage.prefill_seconds or 0.0
        return Reading(
            reply=reply,
            computed_tokens=spent.tokens + fork.tokens,
            prefill_seconds=spent.seconds + own_seconds,
            cold_prefill_seconds=account.cold_seconds + own_seconds,
            usage=usage,
            before=account.share.before,
        )

    def judged(self, trial: Trial, context: Context, reading: Reading) -> Fields:
        """The answer, what it is worth, and what it took."""
        reply, usage, computed = reading.reply, reading.usage, reading.computed_tokens
        reply = reply._replace(text=in_unicode(reply.text))
        ids = reply.ids if reply.ids or not reply.text else None  # not every server tells them
        case = Case(
            answer=reply.text,
            gold=trial.fact.gold,
            answer_format=trial.fact.answer_format,
            in_order=trial.fact.answer_mode == "all in order",
            rivals=context.rivals(trial),
            cut_short=reply.finish == "length",
            context=lambda: self.tokenizer.decode(context.text_ids(trial)),
            question=trial.fact.question,
            thinking=self.is_thinking(trial, reply),
        )
        outcome = judge(case)
        return {
            "answer": reply.text,
            "answer_ids": ids,
            "answer_tokens": None if ids is None else len(ids),
            "finish": reply.finish,
            "gold_logprob": reply.gold_logprob,
            "correct": outcome == "exact",
            "contains": contains(case),
            "outcome": outcome,
            "computed_tokens": computed,
            "reused_tokens": None if computed is None else max(0, trial.length - computed),
            "prefill_seconds": reading.prefill_seconds,
            "cold_prefill_seconds": reading.cold_prefill_seconds,
            "decode_seconds": usage.decode_seconds,
            "gold_seconds": usage.gold_seconds,
            "request_seconds": usage.request_seconds,
            "requests_in_flight": usage.requests_in_flight,
            "cache_bytes": with_total(usage.cache_bytes),
            "server_prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "excerpt": self.excerpt(trial, context),
        }

    def is_thinking(self, trial: Trial, reply: Reply) -> bool:
        """Whether the reply's text begins inside a thought."""
        if reply.thought is not None:
            return bool(reply.thought) and not reply.text
        return opens_thought(self.tokenizer.decode(trial.suffix_ids))

    def excerpt(self, trial: Trial, context: Context) -> dict[str, str] | None:
        """The prompt's text around the needle's first piece that holds a gold value."""
        if not trial.starts or not trial.fact.gold_pieces:
            return None
        start, end = trial.spans[trial.fact.gold_pieces[0]]
        ids = context.text_ids(trial)
        return {
            "before": self.tokenizer.decode(ids[max(0, start - EXCERPT_TOKENS) : start]),
            "needle": self.tokenizer.decode(ids[start:end]),
            "after": self.tokenizer.decode(ids[end : end + EXCERPT_TOKENS]),
        }

    def traced(
        self, trial: Trial, context: Context, trunk: Session, answer_ids: Sequence[int]
    ) -> Fields:
        """Where a wrong answer's needle was lost, for models that can tell.

        The question is read once more: the session that answered it has moved on. What fails here
        costs the diagnosis, not the answer.
        """
        began = time.perf_counter()
        try:
            trace = self.trace(trial, context, trunk, answer_ids)
        except Exception:
            log.warning("question %s: not traced", trial.pair, exc_info=True)
            trace = None
        found: Fields = {"trace_seconds": time.perf_counter() - began}
        if trace:
            found |= {"lost_by": lost_by(trace), "selection": ranked(trace.selections)}
        return found

    def trace(
        self, trial: Trial, context: Context, trunk: Session, answer_ids: Sequence[int]
    ) -> Trace | None:
        """None where no one token was missed, or the model cannot tell."""
        deviation = find_deviation(trial, answer_ids, self.tokenizer)
        session = trunk.fork()
        if deviation is None or not isinstance(session, TracedSession):
            return None
        written = np.asarray(deviation.written, np.int64)
        ids = np.concatenate([context.question_ids(trial), written])
        reader = self.timeline(session, is_told=False)
        read_stretches(reader, context_stretches(trial, context, self.arm.session))
        if isinstance(session, PressedSession):
            self.end_context(session)
        reader.advance(ids[:-1])
        return session.extend_traced(int(ids[-1]), deviation.wanted)


def untold(tokens: int) -> None:
    """Tokens that are no progress."""


def served(reply: Reply, usage: Usage) -> Reading:
    """What a server says of its answer: nothing is computed here."""
    computed = None
    if usage.prompt_tokens is not None and usage.cached_tokens is not None:
        computed = usage.prompt_tokens - usage.cached_tokens
    cold = usage.prefill_seconds if usage.cached_tokens == 0 else None
    return Reading(reply, computed, usage.prefill_seconds, cold, usage)


def with_total(held: Mapping[str, int] | None) -> dict[str, int] | None:
    """Bytes by kind and in total; None where they were not measured."""
    if not held:
        return None
    counted = {kind: index(number) for kind, number in held.items()}
    return {**counted, "total": sum(counted.values())}


def in_unicode(text: str) -> str:
    """With a sign of replacement for halves of characters, which no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def failed(error: Exception) -> Fields:
    """What a row holds in place of an answer."""
    told = str(error)
    if isinstance(error, ValidationError):  # what a model returned fits no row
        told = f"the answer {complaint(error)}"
    reason = in_unicode(f"{type(error).__name__}: {told}")
    return {"correct": None, "outcome": "error", "error": reason}
