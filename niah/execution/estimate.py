"""Estimates what a plan costs in seconds and bytes, from a short measurement of each arm.

The measured curve is carried far beyond where it was measured: the estimate is good to a factor of
about two at a hundred times the length. What several arms read together counts for the first of
them alone. An arm whose forks send their prompt again is a server: it is not measured; what it will
be sent is counted.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from haystacks.tokenizer import Tokenizer
from models.protocols import (
    BatchingModel,
    Decoding,
    Model,
    Piece,
    PressedSession,
    RemoteModel,
    Session,
    TokenIds,
    WindowedSession,
)
from niah.errors import PlanError
from niah.execution.batches import BATCH_BYTES
from niah.execution.memory import free_bytes, measured_growth
from niah.execution.session_use import Aside, fork_position, tokens_before
from niah.execution.streams import trunk_of
from niah.sweep.config import SessionUse
from niah.sweep.prompt_format import gold_ids
from niah.sweep.trials import Plan, Stream, Trial

log = logging.getLogger(__name__)

FIRST_POINT = 128  # tokens; each further point doubles
PROBE_SECONDS = 1.5
REACH = 16  # times the length measured: beyond it noise hides what grows with a length's square
LONG_PROBE_SECONDS = 6.0  # in place of PROBE_SECONDS, as long as prompts lie beyond that reach
GENERATED = 4  # tokens decoded to time one
TOKEN_BYTES = 16  # of a prompt's token ids, held beside the model
PLAIN = SessionUse()
Given = Literal["nothing", "trunk", "contexts"]  # what another arm reads for this one
ANY_IDS = 256  # where a model does not say how many ids it has


class Point(NamedTuple):
    """A session after `tokens`: seconds to get there, and bytes held beside windows (0 where not
    measured)."""

    tokens: int
    seconds: float
    cache_bytes: int


class Curve(NamedTuple):
    """Seconds to read n tokens: linear·n + quadratic·n²; bytes held: base + slope·n.

    Windows are in the base, as they are at the longest prompt: they stop growing.
    `work_bytes` come and go while tokens are read; None where they cannot be measured. The same at
    any length is right for attention that does not hold its scores, too little for one that does.
    """

    linear: float
    quadratic: float
    bytes_base: float
    bytes_slope: float
    decode_seconds: float  # a token
    work_bytes: int | None = 0
    fork_share: float = 0.0  # of the past's bytes, that a fork holds for itself

    def seconds(self, start: int, end: int) -> float:
        """Seconds to read tokens [start, end)."""
        return self.linear * (end - start) + self.quadratic * (end * end - start * start)

    def cache_bytes(self, tokens: int) -> float:
        return self.bytes_base + self.bytes_slope * tokens


@runtime_checkable
class MeasuredModel(Protocol):
    """A model that was measured elsewhere. `free_bytes`: what its device has left there."""

    @property
    def curve(self) -> Curve | None: ...
    @property
    def free_bytes(self) -> int: ...


class Estimate(NamedTuple):
    """What one arm will take on its device.

    `free_bytes` is what the device has left, where it is not one of this machine. `read_with` is
    the arm that reads the text for this one: `seconds` and `computed_tokens` (of prompts) are then
    this arm's own part.
    """

    seconds: float
    cache_bytes: int  # at the most, with those of a fork
    work_bytes: int | None = 0
    device: str = "cpu"
    free_bytes: int | None = None
    computed_tokens: int | None = None
    read_with: str | None = None

    @property
    def memory_bytes(self) -> int:
        return self.cache_bytes + (self.work_bytes or 0)


class Sending(NamedTuple):
    """What a server will be sent: requests, their prompt tokens, and how many of these begin as an
    earlier prompt does, so that a prefix cache could save them."""

    requests: int
    prompt_tokens: int
    shared_tokens: int


def estimate_arms(
    plan: Plan, models: Mapping[str, Model], tokenizer: Tokenizer
) -> dict[str, Estimate | Sending | None]:
    """The estimate of each arm, by name: a text that arms read together is the first one's."""
    readers: dict[tuple[str, str], str] = {}
    found: dict[str, Estimate | Sending | None] = {}
    for arm in plan.sweep.arms:
        model = models[arm.name]
        trunk = trunk_of(plan.sweep, arm, model)
        needs = estimate_arm(plan, model, tokenizer, arm.session, readers.get(trunk))
        if isinstance(needs, Estimate):
            readers.setdefault(trunk, arm.name)
        found[arm.name] = needs
    return found


def estimate_arm(
    plan: Plan,
    model: Model,
    tokenizer: Tokenizer,
    use: SessionUse = PLAIN,
    read_with: str | None = None,
) -> Estimate | Sending | None:
    """The estimate of one arm, for which arm `read_with` reads the text; None if a model fails.

    A model that fails here fails in the run, too: its rows say how.
    """
    if model.forks == "resend":
        return sending(plan, model, tokenizer, use)
    if isinstance(model, MeasuredModel):
        curve, free = model.curve, model.free_bytes
    else:
        curve, free = measured_curve(model, plan.longest, plan.sweep.chunk_tokens), None
    if curve is None:
        return None
    found = estimate(plan, curve, use, given_to(model) if read_with else "nothing")
    return found._replace(
        work_bytes=add_waiting(found, curve, plan, model),
        device=model.device,
        free_bytes=free,
        read_with=read_with,
    )


def given_to(model: Model) -> Given:
    """What an arm need not read whose trunk another arm reads (`StreamReader.context_read`)."""
    return "contexts" if isinstance(model.session(), PressedSession) else "trunk"


def add_waiting(found: Estimate, curve: Curve, plan: Plan, model: Model) -> int | None:
    """What comes and goes with the forks that wait to be decoded together, beside the first."""
    if found.work_bytes is None or not isinstance(model, BatchingModel) or not plan.sweep.reuse:
        return found.work_bytes
    each = curve.cache_bytes(plan.longest)
    return found.work_bytes + int(min(BATCH_BYTES, (model.batch - 1) * each))


def measured_curve(model: Model, longest: int, chunk_tokens: int) -> Curve | None:
    """As `measure`; None, and a warning, for a model that fails."""
    try:
        return measure(model, longest, chunk_tokens)
    except Exception as error:  # a model may fail in any way
        log.warning("model %s: not estimated: %s", model.name, error)
        return None


def sending(plan: Plan, model: Model, tokenizer: Tokenizer, use: SessionUse = PLAIN) -> Sending:
    """What `plan` sends to a server, all requests of each question counted."""
    aside = Aside(tokenizer)
    sent = [
        tokens
        for _, trial in plan.trials()
        for tokens in [trial.length, *further_requests(plan, trial, model, tokenizer, use, aside)]
    ]
    return Sending(len(sent), sum(sent), sum(sent) - plan.computed_tokens)


def further_requests(
    plan: Plan, trial: Trial, model: Model, tokenizer: Tokenizer, use: SessionUse, aside: Aside
) -> list[int]:
    """Prompt tokens of each request for a question beside the one that is answered."""
    if not isinstance(model, RemoteModel):
        return []
    prefix = [fork_position(trial, use)] if model.sends_prefixes else []
    gold = len(gold_ids(plan.sweep.prompt, trial.fact, tokenizer)) if trial.starts else 0
    ends = {"none": (), "whole": (gold,) * bool(gold), "by token": range(gold)}
    scored = [trial.length + more for more in ends[model.gold_scoring]]
    return [*prefix, *tokens_before(trial, use, aside), *scored]


def check_ceilings(plan: Plan, models: Mapping[str, Model], tokenizer: Tokenizer) -> None:
    """Raises: PlanError where an arm would be sent more tokens than its options allow."""
    for arm in plan.sweep.arms:
        model = models[arm.name]
        if not isinstance(model, RemoteModel) or model.max_prompt_tokens is None:
            continue
        total = sending(plan, model, tokenizer, arm.session).prompt_tokens
        if total > model.max_prompt_tokens:
            raise PlanError(
                f"options.max_prompt_tokens = {model.max_prompt_tokens}: arm {arm.name} will be "
                f"sent {total} prompt tokens; raise it, or ask fewer or shorter questions"
            )


def measure(model: Model, longest: int, chunk_tokens: int) -> Curve:
    """Read any tokens, doubling, until PROBE_SECONDS have gone or `longest` is reached.

    Where `longest` lies beyond REACH times what was read by then, LONG_PROBE_SECONDS. What is done
    once on a machine, such as the compiling of a kernel at the length that first calls it, does not
    count.
    """
    ids = np.arange(longest) % (model.vocab_size or ANY_IDS)
    model.session().extend(as_piece(ids[:FIRST_POINT]))  # the first call sets up its libraries
    with measured_growth(model.device) as growth:
        session, points = read_settled(model, ids, chunk_tokens)
    work_bytes = growth.bytes
    if work_bytes is not None:
        work_bytes = max(0, work_bytes - held_bytes(session))
    decode_seconds = []
    for _ in range(2):  # a first answer may compile, too
        fork = session.fork()
        share = 1.0 if model.forks == "copy" else pressed_share(session, fork)
        fork.generate(Decoding(GENERATED, no_text))
        decode_seconds.append(fork.usage().decode_seconds or 0.0)
    curve = fit(points, min(decode_seconds) / GENERATED)
    return curve._replace(
        bytes_base=curve.bytes_base + windows_at(longest, session),
        work_bytes=work_bytes,
        fork_share=share,
    )


def read_settled(
    model: Model, ids: NDArray[np.integer], chunk_tokens: int
) -> tuple[Session, list[Point]]:
    """As `read_doubling`, twice, with the lesser time at each point.

    Anew where the first of the two took twice the second's time or more, as long as that brings it
    further: it had spent its time on what is done once.
    """
    reached = 0
    while True:
        session, points = read_doubling(model, ids, chunk_tokens, PROBE_SECONDS, REACH)
        tokens = points[-1].tokens
        # A stall of a busy machine rarely comes twice at the same place.
        _, again = read_doubling(model, ids[:tokens], chunk_tokens, 2 * LONG_PROBE_SECONDS)
        once = len(again) == len(points) and 2 * again[-1].seconds <= points[-1].seconds
        if not once or tokens == len(ids) or tokens <= reached:
            pairs = zip(points, again, strict=False)
            return session, [min(pair, key=lambda point: point.seconds) for pair in pairs]
        reached = tokens
        del session  # so that two are never held


def windows_at(tokens: int, session: Session) -> float:
    """Bytes of the windows after so many tokens; the session has read fewer, or as many."""
    now, full = window_bytes(session)
    return min(full, now * tokens / session.position)


def window_bytes(session: Session) -> tuple[int, int]:
    """`WindowedSession.window_bytes`; nothing where no layer has a window."""
    return session.window_bytes() if isinstance(session, WindowedSession) else (0, 0)


def pressed_share(session: Session, fork: Session) -> float:
    """What a fork holds once its context has ended, beyond what it shares, as a share."""
    before = growing_bytes(session)
    if not before or not isinstance(fork, PressedSession):
        return 0.0
    fork.context_ends()
    after = growing_bytes(fork)
    own = after if after < before else after - before  # less than before: a copy of what is kept
    return own / before


def as_piece(ids: TokenIds) -> Piece:
    return Piece(ids, no_text)


def no_text(ids: TokenIds) -> str:
    """Nothing is read of what is decoded here."""
    return ""


def held_bytes(session: Session) -> int:
    return sum((session.usage().cache_bytes or {}).values())


def growing_bytes(session: Session) -> int:
    """What is held beside windows."""
    return held_bytes(session) - window_bytes(session)[0]


def read_doubling(
    model: Model,
    ids: NDArray[np.integer],
    chunk_tokens: int,
    limit_seconds: float,
    reach: float = math.inf,
) -> tuple[Session, list[Point]]:
    """A session that has read `ids` up to a doubling count, and a point at each doubling.

    Two at least: the first tokens bring what grows no further, such as the queries of a press. The
    limit is LONG_PROBE_SECONDS until a `reach`-th of `ids` is read.
    """
    session = model.session()
    points = [Point(0, 0.0, growing_bytes(session))]
    target = min(FIRST_POINT, len(ids))
    while True:
        for at in range(session.position, target, chunk_tokens):
            session.extend(as_piece(ids[at : min(at + chunk_tokens, target)]))
        seconds = session.usage().prefill_seconds or 0.0
        points.append(Point(target, seconds, growing_bytes(session)))
        far = target * reach < len(ids)
        limit = max(limit_seconds, LONG_PROBE_SECONDS) if far else limit_seconds
        if target == len(ids) or (seconds > limit and target > FIRST_POINT):
            return session, points
        target = min(2 * target, len(ids))


def fit(points: Sequence[Point], decode_seconds: float) -> Curve:
    """The curve through the last point and one at most half as far (no part below 0).

    Between points close together lies noise: a block of the cache more or less, a slow chunk.
    """
    last = points[-1]
    before = next(p for p in reversed(points) if 2 * p.tokens <= last.tokens)
    span = last.tokens - before.tokens
    slope = max(0.0, (last.cache_bytes - before.cache_bytes) / span)
    quadratic = 0.0
    if before.tokens:
        rates = before.seconds / before.tokens, last.seconds / last.tokens
        quadratic = max(0.0, (rates[1] - rates[0]) / span)
    linear = max(0.0, last.seconds / last.tokens - quadratic * last.tokens)
    base = last.cache_bytes - slope * last.tokens
    return Curve(linear, quadratic, base, slope, decode_seconds)


def estimate(
    plan: Plan, curve: Curve, use: SessionUse = PLAIN, given: Given = "nothing"
) -> Estimate:
    """What `plan` takes on an arm that follows `curve`."""
    spans = [span for stream in plan.streams for span in read_spans(stream, use, given)]
    return Estimate(
        seconds=sum(curve.seconds(start, end) for start, end in spans)
        + sum(decoded_tokens(trial, use) for _, trial in plan.trials()) * curve.decode_seconds,
        computed_tokens=sum(end - start for start, end in spans),
        cache_bytes=int(max(stream_bytes(stream, curve) for stream in plan.streams)),
        work_bytes=curve.work_bytes,
    )


def read_spans(stream: Stream, use: SessionUse, given: Given) -> Iterator[tuple[int, int]]:
    """Stretches [start, end) of prompts that an arm reads itself: the trunk, then each fork's."""
    if given == "nothing":
        yield 0, stream.trunk_tokens
    for trial in stream.trials:
        yield trial.cut if given == "contexts" else fork_position(trial, use), trial.length


def decoded_tokens(trial: Trial, use: SessionUse) -> int:
    """A token that is read in a step of its own takes as long as a decoded one."""
    return trial.max_new_tokens + min(use.decode_tail, trial.cut)


def stream_bytes(stream: Stream, curve: Curve) -> float:
    """Caches of the trunk and of one fork, whichever question makes the most of both."""
    return max(
        curve.cache_bytes(trial.fork_at) + fork_bytes(trial, curve) for trial in stream.trials
    ) + TOKEN_BYTES * max(stream.length, *(trial.length for trial in stream.trials))


def fork_bytes(trial: Trial, curve: Curve) -> float:
    """What a fork adds to its trunk's cache: its own tokens, and what it copies of the past."""
    own = trial.own_tokens + trial.max_new_tokens
    return curve.cache_bytes(own) + curve.fork_share * curve.bytes_slope * trial.fork_at


def check_models(plan: Plan, models: Mapping[str, Model]) -> None:
    """Raises: PlanError where a model lacks positions for a prompt, or ids for its needles."""
    largest = max(max(max(ids) for ids in planned_ids(trial)) for _, trial in plan.trials())
    for arm, model in models.items():
        if model.max_position is not None and plan.longest > model.max_position:
            raise PlanError(
                f"lengths: the longest prompt and its answer take {plan.longest} tokens, "
                f"but arm {arm} ({model.name}) has positions for {model.max_position}"
            )
        if model.vocab_size is not None and largest >= model.vocab_size:
            raise PlanError(
                f"arms: {arm} ({model.name}) knows {model.vocab_size} token ids, but needles and "
                f"questions hold id {largest}: its tokenizer is another"
            )


def planned_ids(trial: Trial) -> Iterator[tuple[int, ...]]:
    """Ids that a trial adds to the text; none is empty."""
    return (ids for ids in (trial.question_ids, *trial.piece_ids) if ids)


def check_memory(
    estimates: Mapping[str, Estimate | Sending | None], max_memory_gb: float | None
) -> None:
    """Raises: PlanError where an arm's caches and work would not fit into its device's memory."""
    for arm, needs in estimates.items():
        if not isinstance(needs, Estimate):
            continue
        free = free_bytes(needs.device) if needs.free_bytes is None else needs.free_bytes
        limit = min(free, max_memory_gb * 1e9) if max_memory_gb else free
        if needs.memory_bytes > limit:
            raise PlanError(
                f"memory: arm {arm} will hold about {needs.memory_bytes / 1e9:.3g} GB "
                f"({needs.cache_bytes / 1e9:.3g} GB of cache), more than the {limit / 1e9:.3g} GB "
                + ("of max_memory_gb" if limit < free else f"that are free on {needs.device}")
                + "; choose shorter lengths or another machine"
            )
