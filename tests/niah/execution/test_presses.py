"""When a press works: the context has ended, and no token of the question has been read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from models.protocols import Session
from niah.execution.loading import Bench
from niah.sweep.planner import make_plan
from tests.niah.execution.test_jobs import run_sweep
from tests.niah.fakes import RecallModel, RecallSession, sweep_of, tiny_materials

ARMS = [{"name": "pressed", "role": "compressed", "model": "told"}]


@dataclass
class ToldSession(RecallSession):
    """Writes down what it is told, and where."""

    model: ToldModel  # type: ignore[assignment]

    def fork(self) -> Session:
        return ToldSession(self.model, self.chunks, self.position)

    def context_ends(self) -> None:
        self.model.told.append(("context", self.position))

    def question_ends(self) -> None:
        self.model.told.append(("question", self.position))


@dataclass
class ToldModel(RecallModel):
    told: list[tuple[str, int]] = field(default_factory=list)

    def session(self) -> Session:
        return ToldSession(self)


@pytest.mark.parametrize("layout", ["stream", "isolated"])
def test_a_session_is_told_where_context_and_question_end(tmp_path: Path, layout: str) -> None:
    sweep = sweep_of(arms=ARMS, layout=layout, controls=["no_needle", "question_only"])
    model, materials = ToldModel(), tiny_materials()
    rows = run_sweep(tmp_path, sweep, Bench({"pressed": model}, materials))
    trials = {trial.pair: trial for _, trial in make_plan(sweep, materials).trials()}
    expected = []
    for row in rows:
        trial = trials[row["pair"]]
        expected += [("context", trial.cut), ("question", trial.length)]
    assert model.told == expected
    assert all(row["correct"] or row["control"] for row in rows)
