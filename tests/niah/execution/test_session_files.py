"""A prefill that is interrupted goes on where it was kept, and ends as if nothing had happened."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from models.deepseek_v4.session import DeepseekV4Session
from models.protocols import KeepingModel
from models.registry import load_model
from niah.execution.jobs import Tally, open_store
from niah.execution.loading import Bench
from niah.execution.session_files import Keeper
from niah.execution.sweeps import ask_what_is_left
from niah.execution.timed_session import NOTHING, Share, Spent, Timeline
from niah.runs.store import CHECKPOINTS
from niah.sweep.config import Arm, Sweep
from niah.sweep.planner import make_plan
from tests.niah.fakes import sweep_of, tiny_materials
from tests.niah.rows import row_dicts
from tests.sessions import spelled

ROOT = Path(__file__).parents[3]
ALWAYS = 1e-9  # minutes: after every chunk


def sweep(layout: str = "stream", minutes: float = ALWAYS) -> Sweep:
    return sweep_of(
        arms=[
            {"name": "dense", "role": "baseline", "model": "random-dense"},
            {"name": "v4", "role": "compressed", "model": "random-v4"},
        ],
        layout=layout,
        lengths=[512, 700],
        depths=3,
        repeats=1,
        max_needle_share=0.3,
        chunk_tokens=64,
        decoding={"max_new_tokens": 4},
        checkpoint_minutes=minutes,
    )


@cache
def bench() -> Bench:
    models = {arm.name: load_model(arm.model, {}, threads=1) for arm in sweep().arms}
    return Bench(models, tiny_materials(20_000))


def carry_out(
    folder: Path, wanted: Sweep, progress: Callable[[Arm, int], None] = lambda arm, tokens: None
) -> list[dict[str, Any]]:
    plan = make_plan(wanted, bench().materials)
    with open_store(folder, plan, bench()) as store:
        ask_what_is_left(plan, bench(), store, progress, Tally())
    return row_dicts(folder)


def answers(rows: list[dict[str, Any]]) -> dict[str, object]:
    return {row["key"]: (row["answer"], row["outcome"], row["cache_bytes"]) for row in rows}


class Killed(BaseException):
    """Not an Exception: nothing on the way may catch it."""


# Isolated questions at depth 0 share nothing: the trunk is first read after 21 chunks of theirs.
@pytest.mark.parametrize(
    ("layout", "after"),
    [*(("stream", n) for n in (3, 9, 14, 40)), *(("isolated", n) for n in (23, 27, 40))],
)
def test_a_killed_prefill_goes_on(tmp_path: Path, layout: str, after: int) -> None:
    whole = answers(carry_out(tmp_path / "whole", sweep(layout, minutes=0)))
    chunks = 0

    def kill(arm: Arm, tokens: int) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == after:
            raise Killed

    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        carry_out(folder, sweep(layout), kill)
    (kept,) = (folder / CHECKPOINTS).iterdir()
    assert kept.suffix == ".safetensors"
    seen: list[int] = []
    rows = carry_out(folder, sweep(layout), lambda arm, tokens: seen.append(tokens))
    assert answers(rows) == whole
    assert seen[0] >= sweep().chunk_tokens
    assert not (folder / CHECKPOINTS).exists()


def test_what_was_read_before_the_kill_is_not_read_again(tmp_path: Path) -> None:
    read: list[int] = []

    def kill(arm: Arm, tokens: int) -> None:
        read.append(tokens)
        if sum(read) > 200:
            raise Killed

    with pytest.raises(Killed):
        carry_out(tmp_path, sweep(), kill)
    resumed: list[int] = []
    carry_out(tmp_path, sweep(), lambda arm, tokens: resumed.append(tokens))
    assert resumed[0] == sum(read[:-1])  # told at once: what the file holds
    rows = [row for row in row_dicts(tmp_path) if row["arm"] == "dense"]
    first = min(rows, key=lambda row: row["length"] - row["reused_tokens"])
    assert first["computed_tokens"] > 0
    computed = sum(row["computed_tokens"] for row in rows)
    assert computed == make_plan(sweep(), bench().materials).computed_tokens


def test_a_resumed_run_counts_what_it_did_itself(tmp_path: Path) -> None:
    read: list[int] = []

    def kill(arm: Arm, tokens: int) -> None:
        read.append(tokens)
        if sum(read) > 200:
            raise Killed

    with pytest.raises(Killed):
        carry_out(tmp_path, sweep(), kill)
    plan, tally = make_plan(sweep(), bench().materials), Tally()
    with open_store(tmp_path, plan, bench()) as store:
        ask_what_is_left(plan, bench(), store, lambda *_: None, tally)
    assert tally.computed_tokens == 2 * plan.computed_tokens - sum(read[:-1])
    assert tally.model_seconds <= tally.seconds


def test_rows_written_after_the_file_are_not_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows add up to what was read: what the killed process read behind its file is read twice."""
    after_chunk, saved, read = Keeper.after_chunk, [], []

    def first_four(keeper: Keeper, timeline: Timeline) -> None:
        if len(saved) < 4:
            saved.append(timeline.session.position)
            after_chunk(keeper, timeline)

    def kill(arm: Arm, tokens: int) -> None:
        read.append(tokens)
        if len(row_dicts(tmp_path / "run")) == 4:
            raise Killed

    def computed(rows: list[dict[str, Any]]) -> int:
        return sum(row["computed_tokens"] for row in rows if row["arm"] == "dense")

    whole = computed(carry_out(tmp_path / "whole", sweep(minutes=0)))
    monkeypatch.setattr(Keeper, "after_chunk", first_four)
    with pytest.raises(Killed):
        carry_out(tmp_path / "run", sweep(), kill)
    resumed = computed(carry_out(tmp_path / "run", sweep()))
    assert whole <= resumed <= whole + sum(read) - saved[-1]


def test_a_file_that_does_not_fit_is_left_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = answers(carry_out(tmp_path / "whole", sweep(minutes=0)))

    def kill(arm: Arm, tokens: int) -> None:
        if list(tmp_path.glob("run/checkpoints/*.safetensors")):
            raise Killed

    with pytest.raises(Killed):
        carry_out(tmp_path / "run", sweep(), kill)
    (kept,) = tmp_path.glob("run/checkpoints/*")
    kept.write_bytes(kept.read_bytes()[:-7])
    with caplog.at_level(logging.WARNING):
        rows = carry_out(tmp_path / "run", sweep())
    assert answers(rows) == whole
    (warning,) = [
        r.getMessage() for r in caplog.records if "saved session ignored" in r.getMessage()
    ]
    assert str(kept) in warning


def test_a_question_that_failed_is_asked_again_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The session that was kept has read past it."""
    whole = answers(carry_out(tmp_path / "whole", sweep(minutes=0)))
    generate, chunks = DeepseekV4Session.generate, 0

    def fail(*_: object) -> list[int]:
        monkeypatch.setattr(DeepseekV4Session, "generate", generate)
        raise MemoryError

    def kill(arm: Arm, tokens: int) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 20:
            raise Killed

    monkeypatch.setattr(DeepseekV4Session, "generate", fail)
    with pytest.raises(Killed):
        carry_out(tmp_path / "run", sweep(), kill)
    assert [row["outcome"] for row in row_dicts(tmp_path / "run")].count("error") == 1
    with caplog.at_level(logging.WARNING):
        rows = carry_out(tmp_path / "run", sweep())
    assert "a failed question before it is asked again" in caplog.text
    assert answers(rows) == whole


def test_forks_answer_as_prompts_read_whole_do(tmp_path: Path) -> None:
    warm = carry_out(tmp_path / "warm", sweep(minutes=0))
    cold = carry_out(tmp_path / "cold", sweep(minutes=0).model_copy(update={"reuse": False}))
    fields = ("arm", "length", "needle_start", "answer")
    said = [{tuple(row[field] for field in fields) for row in rows} for rows in (warm, cold)]
    assert said[0] == said[1]
    assert len(said[0]) == len(warm)
    assert sum(r["reused_tokens"] for r in warm) > sum(r["reused_tokens"] for r in cold) == 0


def test_a_diagnosis_that_fails_costs_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    whole = carry_out(tmp_path / "whole", sweep(minutes=0))
    assert any(row["selection"] for row in whole)
    monkeypatch.setattr(DeepseekV4Session, "extend_traced", fail)
    rows = carry_out(tmp_path / "run", sweep(minutes=0))
    assert answers(rows) == answers(whole)
    assert not any(row["selection"] for row in rows)


def test_a_full_disk_costs_the_file_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for model in bench().models.values():
        monkeypatch.setattr(model, "save", full)
    with caplog.at_level(logging.WARNING):
        rows = carry_out(tmp_path, sweep())
    assert all(row["error"] is None for row in rows)
    assert "not saved, the run goes on: [Errno 28] No space left on device" in caplog.text


def test_time_spent_before_the_kill_counts(tmp_path: Path) -> None:
    model = bench().models["v4"]
    assert isinstance(model, KeepingModel)
    now = [0.0]
    keeper = Keeper(tmp_path / "kept" / "x.safetensors", model, 3.0, clock=lambda: now[0])
    before = keeper.begin(spelled, 64, lambda _: None, at_most=3, told={})
    before.earlier, before.taken = Spent(4, 7.5), {"v4": Spent(2, 6.25), "other": Spent(4, 7.5)}
    before.advance(np.array([1, 2, 3]))
    spent = before.total.less(before.taken["v4"])
    assert (spent.tokens, before.total.tokens) == (5, 7)
    assert spent.seconds > 1.25
    now[0] = 179.0
    keeper.after_chunk(before)
    assert not keeper.path.exists()
    now[0] = 180.0
    keeper.after_chunk(before)
    read: list[int] = []
    after = Keeper(keeper.path, model, 3.0).begin(spelled, 64, read.append, at_most=3, told={})
    assert after.session.position == 3
    assert after.total == before.total
    assert after.take("v4") == Share(spent, before=spent)  # all of it was the killed process's
    assert after.take("v4") == Share(NOTHING, NOTHING)
    assert after.take("other").spent.tokens == 3
    assert read == [3]
    keeper.forget()
    assert list(tmp_path.iterdir()) == []


def test_sigkill_in_the_middle_of_a_prefill(tmp_path: Path) -> None:
    fields = sweep().model_dump(mode="json") | {"corpora": "kjv", "lengths": [4096], "threads": 1}
    config = tmp_path / "sweep.yaml"

    def run(name: str, minutes: float) -> list[str]:
        config.write_text(yaml.safe_dump(fields | {"checkpoint_minutes": minutes}))
        return [sys.executable, "-m", "niah", "run", str(config), "--out", str(tmp_path / name)]

    subprocess.run(run("whole", 0), cwd=ROOT, check=True, capture_output=True)
    process = subprocess.Popen(run("killed", ALWAYS), cwd=ROOT, stdout=-3, stderr=-3)
    while process.poll() is None and not list(tmp_path.glob("killed/checkpoints/*.safetensors")):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(run("killed", ALWAYS), cwd=ROOT, check=True, capture_output=True)
    assert answers(row_dicts(tmp_path / "killed")) == answers(row_dicts(tmp_path / "whole"))
    assert not (tmp_path / "killed" / CHECKPOINTS).exists()
