"""What the harness adds to the models' time, as a share: planting, forking, scoring, storing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.protocols import Decoding, Model, Piece, Reply, Trace, Usage
from niah.execution.jobs import Tally, open_store
from niah.execution.loading import load_arm, load_bench
from niah.execution.sweeps import ask_what_is_left
from niah.sweep.planner import make_plan
from tests.niah.fakes import sweep_of
from tests.sessions import piece

ARMS = [
    {"name": "dense", "role": "baseline", "model": "nano-dense"},
    {"name": "sparse", "role": "compressed", "model": "nano-v4"},
]


@dataclass
class Clock:
    """Seconds spent inside models."""

    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began


@dataclass
class ClockedSession:
    """A session of the models here, every call of it timed."""

    inner: Any
    clock: Clock

    @property
    def position(self) -> int:
        return self.inner.position

    def fork(self) -> "ClockedSession":
        with self.clock.running():
            return ClockedSession(self.inner.fork(), self.clock)

    def extend(self, piece: Piece) -> None:
        with self.clock.running():
            self.inner.extend(piece)

    def extend_traced(self, token_id: int, wanted: int) -> Trace:
        with self.clock.running():
            return self.inner.extend_traced(token_id, wanted)

    def generate(self, decoding: Decoding) -> Reply:
        with self.clock.running():
            return self.inner.generate(decoding)

    def usage(self) -> Usage:
        with self.clock.running():
            return self.inner.usage()


class ClockedModel:
    """`inner`, its sessions timed. Arms of it share no reading: it knows no other sessions."""

    def __init__(self, inner: Model, clock: Clock) -> None:
        self.inner, self.clock = inner, clock

    def __getattr__(self, name: str) -> object:
        if name == "trunk":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def session(self) -> ClockedSession:
        with self.clock.running():
            return ClockedSession(self.inner.session(), self.clock)


@pytest.mark.benchmark
@pytest.mark.slow
def test_the_harness_takes_at_most_a_fiftieth_of_a_run(tmp_path: Path) -> None:
    """The nano pair at work: reading a wrong answer's question once more is the models' time."""
    sweep = sweep_of(arms=ARMS, corpora="kjv", lengths=["1K", "4K"], depths=5, repeats=1, threads=1)
    clock = Clock()
    bench = load_bench(sweep, lambda arm, of: ClockedModel(load_arm(arm, of), clock))
    for model in bench.models.values():
        model.session().extend(piece(range(256)))  # the first call of all sets up its libraries
    shares: list[float] = []
    for turn in range(3):  # the least: what else the machine did in one of them tells nothing
        plan, tally = make_plan(sweep, bench.materials), Tally()
        clock.seconds = 0.0
        with open_store(tmp_path / str(turn), plan, bench) as store:
            ask_what_is_left(plan, bench, store, lambda arm, tokens: None, tally)
        assert tally.rows == 2 * plan.questions
        assert not tally.errors
        shares.append(1 - clock.seconds / tally.seconds)
        print(f"outside the models: {shares[-1]:.2%} of {tally.seconds:.1f} s, {tally.rows} rows")
    assert 0 < min(shares) <= 0.02
