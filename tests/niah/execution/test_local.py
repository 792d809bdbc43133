"""What the executor of this process does when a run ends early."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.errors import StopRunError
from niah.execution.batches import Pending
from niah.execution.executors import local
from niah.execution.executors.local import LocalExecutor


def refused() -> Any:
    raise StopRunError("no credit")


def test_answers_that_have_come_are_kept_when_a_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is refused for good. Behind it one has come, one is refused, one is not there."""
    came: Future[Any] = Future()
    came.set_result(None)
    slow: Future[Any] = Future()
    late: Future[Any] = Future()
    answer: Any = "answer"
    pending = [
        Pending(refused, slow),
        Pending(lambda: answer, came),
        Pending(refused, came),
        Pending(lambda: answer, late),
    ]
    monkeypatch.setattr(local, "RemoteModel", SimpleNamespace)  # any model is behind a server
    bench: Any = SimpleNamespace(models={"a": SimpleNamespace(concurrency=8)})
    plan: Any = SimpleNamespace()
    executor = LocalExecutor(plan, bench, Path(), lambda arm, tokens: None)
    monkeypatch.setattr(executor, "begun", lambda jobs: iter(pending))
    rows: list[Any] = []
    with pytest.raises(StopRunError, match="no credit"):
        rows.extend(executor.run([]))
    assert rows == [answer]
    assert late.cancelled()
