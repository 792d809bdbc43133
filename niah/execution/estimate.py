"""Owns foretelling what a plan costs in seconds and bytes, by a short measurement of each arm.

Knows nothing of what is asked; it reads any tokens. A measured curve is carried far beyond where
it was measured: an estimate, good to a factor of about two at a hundred times the length.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.protocols import Model, Session
from niah.errors import PlanError
from niah.execution.memory import Peak, free_bytes, give_back, resident_bytes
from niah.sweep.trials import Plan, Stream, Trial

FIRST_POINT = 256  # tokens; each further point doubles
PROBE_SECONDS = 1.5
GENERATED = 4  # tokens decoded to time one
TOKEN_BYTES = 16  # of a prompt's token ids, held beside the model
FORKED_BYTES = 1 << 22  # of caches, if forks copy them: far above the noise of resident memory
MOST_FORKS = 64


class Point(NamedTuple):
    """A session after `tokens`: seconds to get there and bytes held."""

    tokens: int
    seconds: float
    cache_bytes: int


class Curve(NamedTuple):
    """Seconds to read n tokens: linear·n + quadratic·n²; bytes held: base + slope·n.

    `work_bytes` come and go while tokens are read, as measured: no more of them at any length is
    right for attention that does not hold its scores, and too little for one that does.
    """

    linear: float
    quadratic: float
    bytes_base: float
    bytes_slope: float
    decode_seconds: float  # a token
    work_bytes: int = 0
    fork_copies: bool = False  # the cache, rather than share it

    def seconds(self, start: int, end: int) -> float:
        """Seconds to read tokens [start, end)."""
        return self.linear * (end - start) + self.quadratic * (end * end - start * start)

    def cache_bytes(self, tokens: int) -> float:
        return self.bytes_base + self.bytes_slope * tokens


class Estimate(NamedTuple):
    """What one arm will take."""

    seconds: float
    cache_bytes: int  # at the most, with those of a fork
    work_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        return self.cache_bytes + self.work_bytes


def measure(model: Model, longest: int, chunk_tokens: int) -> Curve:
    """Read any tokens, doubling, until PROBE_SECONDS have gone or `longest` is reached."""
    ids = np.arange(longest) % model.vocab_size
    model.session().extend(ids[:FIRST_POINT])  # the first call of all also sets up its libraries
    with Peak() as peak:
        session, points = read_doubling(model, ids, chunk_tokens, PROBE_SECONDS)
    # Once more: a stall of a busy machine rarely comes twice at the same place.
    _, again = read_doubling(model, ids[: points[-1].tokens], chunk_tokens, 2 * PROBE_SECONDS)
    best = [min(pair, key=lambda point: point.seconds) for pair in zip(points, again, strict=False)]
    began = time.perf_counter()
    session.fork().generate(GENERATED)
    decode_seconds = (time.perf_counter() - began) / GENERATED
    work_bytes = max(0, peak.growth - points[-1].cache_bytes)
    return fit(best, decode_seconds)._replace(
        work_bytes=work_bytes, fork_copies=fork_copies(session)
    )


def fork_copies(session: Session) -> bool:
    """Whether a fork that has gone on holds a copy of the cache, by how the process grows.

    The protocol cannot tell: a fork's bytes are read off its tensors, shared ones too.
    """
    held = session.cache_bytes().total
    if not held:
        return False
    count = min(-(-FORKED_BYTES // held), MOST_FORKS)
    give_back()
    before = resident_bytes()
    forks = [gone_on(session) for _ in range(count)]
    return resident_bytes() - before > held * len(forks) / 2


def gone_on(session: Session) -> Session:
    """A fork one token on: some share their past only until they are extended."""
    fork = session.fork()
    fork.generate(1)
    return fork


def read_doubling(
    model: Model, ids: NDArray[np.integer], chunk_tokens: int, limit_seconds: float
) -> tuple[Session, list[Point]]:
    """A session that has read `ids` up to a doubling count, and a point at each doubling."""
    session = model.session()
    points = [Point(0, 0.0, session.cache_bytes().total)]
    seconds = 0.0
    target = min(FIRST_POINT, len(ids))
    while True:
        for at in range(session.position, target, chunk_tokens):
            began = time.perf_counter()
            session.extend(ids[at : min(at + chunk_tokens, target)])
            seconds += time.perf_counter() - began
        points.append(Point(target, seconds, session.cache_bytes().total))
        if target == len(ids) or seconds > limit_seconds:
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


def estimate(plan: Plan, curve: Curve) -> Estimate:
    """What `plan` takes on an arm that follows `curve`."""
    return Estimate(
        seconds=sum(stream_seconds(stream, curve) for stream in plan.streams),
        cache_bytes=int(max(stream_bytes(stream, curve) for stream in plan.streams)),
        work_bytes=curve.work_bytes,
    )


def stream_seconds(stream: Stream, curve: Curve) -> float:
    own = sum(
        curve.seconds(trial.fork_at, trial.length) + trial.max_new_tokens * curve.decode_seconds
        for trial in stream.trials
    )
    return curve.seconds(0, stream.trunk_tokens) + own


def stream_bytes(stream: Stream, curve: Curve) -> float:
    """Caches of the trunk and of one fork, whichever question makes the most of both."""
    return max(
        curve.cache_bytes(trial.fork_at) + fork_bytes(trial, curve) for trial in stream.trials
    ) + TOKEN_BYTES * max(stream.length, *(trial.length for trial in stream.trials))


def fork_bytes(trial: Trial, curve: Curve) -> float:
    """What a fork adds to its trunk's cache: its own tokens, and the past if it copies that."""
    own = trial.own_tokens + trial.max_new_tokens
    return curve.cache_bytes(own + trial.fork_at if curve.fork_copies else own)


def check_models(plan: Plan, models: Mapping[str, Model]) -> None:
    """Raises: PlanError where a prompt and its answer are longer than a model's positions."""
    for arm, model in models.items():
        if plan.longest > model.max_position:
            raise PlanError(
                f"lengths: the longest prompt and its answer take {plan.longest} tokens, "
                f"but arm {arm} ({model.name}) has positions for {model.max_position}"
            )


def check_memory(estimates: Mapping[str, Estimate], max_memory_gb: float | None) -> None:
    """Raises: PlanError where an arm's caches and work would not fit into memory."""
    free = free_bytes()
    limit = min(free, max_memory_gb * 1e9) if max_memory_gb else free
    for arm, needs in estimates.items():
        if needs.memory_bytes > limit:
            raise PlanError(
                f"memory: arm {arm} will hold about {needs.memory_bytes / 1e9:.2f} GB "
                f"({needs.cache_bytes / 1e9:.2f} GB of cache), more than the {limit / 1e9:.2f} GB "
                + ("of max_memory_gb" if limit < free else "that are free")
                + "; choose shorter lengths or another machine"
            )
