"""What a row says of time and tokens: every column has one right value here.

The session's clock is scripted: a token read takes 1 s, an answer 7 s, scoring the gold 3 s. A
fork is charged nothing for its past.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.protocols import Decoding, Piece, Reply, Session, Trace, Usage
from niah.execution.jobs import Tally, open_store
from niah.execution.loading import Bench
from niah.execution.sweeps import ask_what_is_left
from niah.sweep.planner import Materials, make_plan
from niah.sweep.trials import Stream
from tests.niah.fakes import RecallModel, sweep_of, tiny_materials
from tests.niah.rows import row_dicts

DECODE, GOLD = 7.0, 3.0


@dataclass
class ClockedSession:
    """Wrong answers, at known cost."""

    position: int = 0
    read: int = 0
    answered: bool = False

    def extend(self, piece: Piece) -> None:
        self.position += len(piece.ids)
        self.read += len(piece.ids)

    def fork(self) -> Session:
        return ClockedSession(self.position)

    def generate(self, decoding: Decoding) -> Reply:
        self.answered = True
        return Reply(" 00000", (1, 2, 3), "length", -4.5)

    def extend_traced(self, token_id: int, wanted: int) -> Trace:
        self.extend(Piece([token_id], str))
        return Trace(False, ())

    def usage(self) -> Usage:
        decode, gold = (DECODE, GOLD) if self.answered else (0.0, 0.0)
        held = {"full": 10 * self.position, "window": 5}
        return Usage(float(self.read), decode, gold, held, None, None)


class ClockedModel(RecallModel):
    def session(self) -> Session:
        return ClockedSession()


@pytest.fixture(params=["stream", "isolated"])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Materials, Any, list[Any]]:
    sweep = sweep_of(
        layout=request.param,
        arms=[{"name": "dense", "role": "baseline", "model": "clocked"}],
        chunk_tokens=100,
    )
    materials = tiny_materials()
    plan = make_plan(sweep, materials)
    bench = Bench({"dense": ClockedModel()}, materials)
    with open_store(tmp_path / "run", plan, bench) as store:
        ask_what_is_left(plan, bench, store, lambda arm, tokens: None, Tally())
    return materials, plan, row_dicts(tmp_path / "run")


def by_fork(stream: Stream, rows: list[dict[str, Any]]) -> list[tuple[Any, dict[str, Any]]]:
    found = {row["pair"]: row for row in rows}
    trials = sorted(stream.trials, key=lambda trial: trial.fork_at)
    return [(trial, found[trial.pair]) for trial in trials]


def test_seconds_and_tokens_of_every_row(asked: tuple[Materials, Any, list[Any]]) -> None:
    _, plan, rows = asked
    assert len(rows) == plan.questions
    for stream in plan.streams:
        trunk = 0
        for trial, row in by_fork(stream, rows):
            shared = trial.fork_at - trunk  # read for this question, and by those after it
            trunk = trial.fork_at
            assert row["prefill_seconds"] == pytest.approx(shared + trial.own_tokens)
            assert row["cold_prefill_seconds"] == pytest.approx(trial.length)
            assert row["decode_seconds"] == DECODE
            assert row["gold_seconds"] == GOLD
            assert 0 <= row["trace_seconds"] < 1
            assert row["computed_tokens"] == shared + trial.own_tokens
            assert row["computed_tokens"] + row["reused_tokens"] == trial.length
            # What is held when the question has been read, not after the answer.
            held = {"full": 10 * trial.length, "window": 5}
            assert row["cache_bytes"] == {**held, "total": sum(held.values())}


def test_a_cut_off_answer_says_so(asked: tuple[Materials, Any, list[Any]]) -> None:
    for row in asked[2]:
        assert row["finish"] == "length"
        assert row["answer_tokens"] == len(row["answer_ids"]) == 3
        assert row["gold_logprob"] == -4.5


def test_the_seconds_of_all_rows_are_those_of_the_run(
    asked: tuple[Materials, Any, list[Any]],
) -> None:
    _, plan, rows = asked
    assert sum(row["prefill_seconds"] for row in rows) == pytest.approx(plan.computed_tokens)
