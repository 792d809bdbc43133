"""Workers of a Ray cluster: rows as without it, whatever dies; and what each refuses."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest
import yaml

from haystacks.tokenizer import BUNDLED_NAME
from models.errors import StopRunError
from niah.errors import PlanError
from niah.execution.executors import ray as driver
from niah.execution.executors.ray import Crew, Needs, Order, RayExecutor, as_task
from niah.execution.executors.ray_worker import Message, Outbox, Worker, code_version
from niah.execution.jobs import Job, Tally, open_store
from niah.execution.loading import Bench, load_bench
from niah.execution.prepare import lay_out
from niah.execution.sweeps import ask_what_is_left
from niah.runs.row import MEASURED
from niah.sweep.config import Arm, Sweep
from niah.sweep.planner import make_plan
from tests.niah.fakes import sweep_of
from tests.niah.ray_workers import FakeWorker, KilledOnce, Poisoned, fake_model
from tests.niah.rows import row_dicts

ROOT = Path(__file__).parents[3]
ARMS = [
    {"name": "dense", "role": "baseline", "model": "random-dense"},
    {"name": "sparse", "role": "compressed", "model": "random-v4"},
]
SWEEP = sweep_of(
    arms=ARMS, corpora="kjv", repeats=3, depths=5, controls=["no_needle"], max_needle_share=1
)
ONE_ARM = SWEEP.model_copy(update={"arms": SWEEP.arms[:1]})
TIMES = {name for name in MEASURED if name.endswith("seconds")} | {"gold_seconds"}
REAL = {
    "name": "dry",
    "arms": ARMS[1:],
    "corpora": "kjv",
    "families": "single_number",
    "lengths": [128, 256],
    "depths": [0, 1],
    "repeats": 4,
    "decoding": {"max_new_tokens": 2},
    "threads": 2,
}


def by_key(folder: Path) -> dict[str, dict[str, Any]]:
    """A run's rows without times, every key in one line only."""
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["key"]: row for row in row_dicts(folder)}
    assert len(rows) == len(lines)
    return {
        key: {name: row[name] for name in row if name not in TIMES} for key, row in rows.items()
    }


def answers(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What must not depend on how a run was cut up: tokens that were computed do."""
    counts = {"computed_tokens", "reused_tokens"}
    return {key: {name: row[name] for name in row.keys() - counts} for key, row in rows.items()}


def here(folder: Path, sweep: Sweep = SWEEP) -> dict[str, dict[str, Any]]:
    """The rows of a sweep, asked in this process."""
    bench = load_bench(sweep, lambda arm, _: fake_model(arm))
    plan = make_plan(sweep, bench.materials)
    with open_store(folder, plan, bench) as store:
        ask_what_is_left(plan, bench, store, lambda arm, tokens: None, Tally())
    return by_key(folder)


def there(folder: Path, worker: type[Worker], sweep: Sweep = SWEEP) -> Tally:
    """A sweep, asked by workers of the cluster."""
    tally = Tally()
    with Crew(Order(sweep, worker=worker)) as crew:
        bench = load_bench(sweep, crew.load)
        plan = lay_out(sweep, bench).plan
        with open_store(folder, plan, bench, crew.environment()) as store:
            ask_what_is_left(plan, bench, store, lambda arm, tokens: None, tally, crew)
    return tally


def order_of(sweep: Sweep, arm: str) -> Message:
    return Order(sweep).message(arm)


def expected_of(bench: Bench) -> Message:
    """What the driver expects of a worker of arm `dense`."""
    identity = bench.identity()
    identity["models"] = {"dense": identity["models"]["dense"]}
    return {"identity": identity, "code": code_version()}


def task_of(bench: Bench, **changes: object) -> Message:
    """All questions of the first stream, for arm `dense`."""
    stream = make_plan(SWEEP, bench.materials).streams[0]
    pairs = [trial.pair for trial in stream.trials]
    job = {"corpus": "kjv", "repeat": 0, "index": 0, "tokens": 1, "pairs": pairs}
    return {"folder": "nowhere", "jobs": [job | changes]}


def prepared(bench: Bench) -> FakeWorker:
    worker = FakeWorker(order_of(SWEEP, "dense"))
    assert worker.prepare(expected_of(bench)) == {}
    return worker


def fake_bench() -> Bench:
    return load_bench(SWEEP, lambda arm, _: fake_model(arm))


def test_a_worker_says_what_it_knows_in_plain_values() -> None:
    told = FakeWorker(order_of(SWEEP, "sparse")).introduce()
    assert json.loads(json.dumps(told)) == told
    facts = driver.parse_facts(told["facts"])
    assert (facts.fingerprint, facts.tokenizer) == (
        fake_bench().models["sparse"].fingerprint,
        (BUNDLED_NAME, None),
    )
    assert facts.curve is None  # the fake fails while it is measured


def test_a_worker_knows_how_its_arm_uses_its_sessions() -> None:
    sweep = sweep_of(arms=[ARMS[0] | {"session": {"decode_tail": 5}}], corpora="kjv")
    bench = load_bench(sweep, lambda arm, _: fake_model(arm))
    worker = FakeWorker(order_of(sweep, "dense"))
    assert worker.prepare(expected_of(bench)) == {}


def test_a_worker_sends_each_row_once_and_every_token() -> None:
    bench = fake_bench()
    task = task_of(bench)
    batches = list(prepared(bench).work(task))
    rows = [json.loads(line) for batch in batches for line, _ in batch["rows"]]
    assert {row["pair"] for row in rows} == set(task["jobs"][0]["pairs"])
    assert len(rows) == len(task["jobs"][0]["pairs"])
    told = sum(batch["tokens"] for batch in batches)
    assert told == sum(row["computed_tokens"] for row in rows)


@pytest.mark.parametrize(
    ("part", "field", "value", "refused"),
    [
        ("code", "version", "0.0.1", 'code.version = "0.0.1", now'),
        ("identity", "models", {"dense": "0" * 16}, 'identity.models.dense = "0000'),
        ("identity", "corpora", {"kjv": "feed"}, 'identity.corpora.kjv = "feed", now'),
    ],
)
def test_a_worker_of_another_kind_is_refused(
    part: str, field: str, value: object, refused: str
) -> None:
    expected = expected_of(fake_bench())
    expected[part][field] = value
    told = FakeWorker(order_of(SWEEP, "dense")).prepare(expected)
    assert refused in told["refused"]
    assert told["refused"].startswith("arm dense, worker on ")
    assert "\n" not in told["refused"]


def test_a_worker_that_plans_other_questions_is_refused() -> None:
    bench = fake_bench()
    *_, last = prepared(bench).work(task_of(bench, pairs=["0" * 16]))
    assert "plans other questions for kjv, repeat 0" in last["refused"]


def test_files_that_a_machine_lacks_are_named(tmp_path: Path) -> None:
    absent = tmp_path / "own.txt"
    sweep = sweep_of(arms=ARMS, corpora=f"file:{absent}")
    expected = {"identity": {"tokenizer_name": BUNDLED_NAME}, "code": {}}
    assert str(absent) in FakeWorker(order_of(sweep, "dense")).prepare(expected)["refused"]
    model = sweep_of(
        arms=[{"name": "own", "role": "baseline", "model": f"path:{tmp_path / 'weights'}"}]
    )
    told = Worker(order_of(model, "own")).introduce()
    assert str(tmp_path / "weights") in told["refused"]


def test_a_defect_of_the_program_is_no_line_for_the_user() -> None:
    class Broken(FakeWorker):
        def rows(self, task: Message, outbox: Outbox) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(Broken(order_of(SWEEP, "dense")).work({}))


def test_a_slow_driver_holds_the_worker_back() -> None:
    """The model waits while more than so many rows are not taken."""
    outbox = Outbox(Queue(2))
    bench = fake_bench()
    worker, task = prepared(bench), task_of(bench)
    thread = Thread(target=worker._carry_out, args=(task, outbox))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert outbox.rows.full()
    rows = [row for batch in outbox.batches() for row in batch["rows"]]
    thread.join()
    assert len(rows) == len(task["jobs"][0]["pairs"])


def test_a_late_row_is_not_written_twice() -> None:
    bench = fake_bench()
    executor = RayExecutor(None, make_plan(SWEEP, bench.materials), bench, Path(), print)  # type: ignore[arg-type]
    task = task_of(bench)
    pairs = tuple(task["jobs"][0]["pairs"])
    (batch, *_) = prepared(bench).work(task)
    hand = driver.Hand("dense", None, as_task([Job("dense", 0, (*pairs, "more"), 1)]))
    first = list(executor._new(hand, batch["rows"]))
    assert len(first) == len(batch["rows"]) > 0
    assert not list(executor._new(hand, batch["rows"]))
    assert hand.task is not None
    assert [job.pairs for job in hand.task.left()] == [("more",)]


@dataclass
class Room:
    """A crew without workers: room for `size` of them beside arm `served`, which takes none."""

    size: int
    hands: list[driver.Hand] = field(default_factory=list)

    def slots(self) -> int:
        return self.size

    def counts(self, arm: str) -> bool:
        return arm != "served"

    def dismiss(self, hand: driver.Hand) -> None:
        self.hands.remove(hand)


def executor_with(room: Room, **tokens: Sequence[int]) -> RayExecutor:
    """Jobs of so many tokens wait, by arm."""
    bench = fake_bench()
    plan = make_plan(SWEEP, bench.materials)
    executor = RayExecutor(room, plan, bench, Path(), print)  # type: ignore[arg-type]
    for arm, sizes in tokens.items():
        for size in sizes:
            executor.tasks.add(as_task([Job(arm, 0, (f"{arm}{size}",), size)]))
    return executor


def hands(*arms: str, ready: bool = True) -> list[driver.Hand]:
    return [driver.Hand(arm, None, ready=ready) for arm in arms]


def test_the_arm_with_the_most_left_a_worker_is_loaded_next() -> None:
    left = {"dense": [900, 100], "sparse": [600]}
    assert executor_with(Room(2), **left)._most_wanted() == "dense"
    assert executor_with(Room(2, hands("dense")), **left)._most_wanted() == "sparse"
    assert executor_with(Room(2, hands("dense", "sparse")), **left)._most_wanted() is None
    assert executor_with(Room(1, hands("dense")), served=[5])._most_wanted() == "served"
    assert executor_with(Room(1, hands("served")), **left)._most_wanted() == "dense"


def test_arms_of_one_server_ask_it_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(2, hands("dense", "sparse"))
    executor = executor_with(room, dense=[1], sparse=[1])
    begun: list[str] = []

    def begin(hand: driver.Hand) -> None:
        hand.task = executor.tasks.take(hand.arm)
        begun.append(hand.arm)

    monkeypatch.setattr(executor, "_begin", begin)
    monkeypatch.setattr(executor, "_server", lambda arm: ("m", "http://here"))
    executor._assign()
    assert begun == ["dense"]
    assert executor._most_wanted() is None  # nor is another worker hired for the arm that waits
    room.hands[0].task = None
    executor._assign()
    assert begun == ["dense", "sparse"]


def test_a_server_is_a_model_at_an_address() -> None:
    executor = executor_with(Room(1))
    for name, url in {"a": "one:80/v1", "b": "one:80/", "c": "two:80/v1"}.items():
        options = {"base_url": f"http://{url}"}
        asked = {"name": name, "role": "compressed", "model": "openai:m", "options": options}
        executor._arms[name] = Arm.model_validate(asked)
    assert executor._server("a") == executor._server("b") == ("openai:m", "http://one:80")
    assert executor._server("c") == ("openai:m", "http://two:80")
    assert executor._server("dense") is None


def test_no_more_workers_load_an_arm_than_it_has_jobs_or_a_machine_has_room_for() -> None:
    loading = Room(9, hands("dense", ready=False))
    assert executor_with(loading, dense=[100])._most_wanted() is None
    assert executor_with(loading, dense=[100, 100])._most_wanted() == "dense"
    crowded = executor_with(Room(9, hands("dense")), dense=[100, 100])
    crowded.unloaded["dense"] = driver.MAX_DEATHS
    assert crowded._most_wanted() is None
    crowded.crew.hands.clear()
    assert crowded._most_wanted() == "dense"


def test_a_cluster_where_every_worker_dies_ends_in_one_line() -> None:
    room = Room(2)
    executor = executor_with(room, dense=[1])
    for _ in range(5):
        room.hands = hands("dense", ready=False)
        executor._lose(room.hands[0], "OutOfMemory")
    room.hands = hands("dense", ready=False)
    with pytest.raises(StopRunError, match=r"--ray: 6 workers died .* \(OutOfMemory\)"):
        executor._lose(room.hands[0], "OutOfMemory")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The actor died.\nWorker exit type: SYSTEM_ERROR Worker exit detail: ...", "SYSTEM_ERROR"),
        (
            "creation task failed\n  File x\nModuleNotFoundError: niah\n\n",
            "ModuleNotFoundError: niah",
        ),
    ],
)
def test_the_reason_of_a_death_is_one_line(text: str, reason: str) -> None:
    assert driver.reason_of(RuntimeError(text)) == f"RuntimeError: {reason}"


@pytest.mark.parametrize(
    ("needs", "fit"),
    [(Needs(1, 0), 8), (Needs(3, 0), 2), (Needs(2, 1), 2), (Needs(1, 0.5), 4), (Needs(16, 0), 0)],
)
def test_workers_fit_into_a_machine_by_cores_and_gpus(needs: Needs, fit: int) -> None:
    assert needs.fit({"CPU": 8.0, "GPU": 2.0}) == fit


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n"])
def test_what_listens_and_is_no_cluster_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    """Ray would try for minutes."""
    monkeypatch.setattr(driver, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(reply)
                connection.recv(100)
                time.sleep(0.4)

        thread = Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(PlanError, match="no cluster answers there"):
            driver.check_address(address)
        thread.join()


def test_warnings_of_a_worker_are_told() -> None:
    class Warns(FakeWorker):
        def rows(self, task: Message, outbox: Outbox) -> Any:
            logging.getLogger("niah.execution").warning("session not saved: %s", "disk full")
            return iter(())

    (batch,) = Warns(order_of(SWEEP, "dense")).work({})
    assert batch["warnings"] == ["session not saved: disk full"]


# What follows takes a cluster.


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster with three cores, of which this process is a member."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        object_store_memory=driver.OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_rows_are_those_of_a_run_without_ray_though_a_worker_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that fails leaves a row with its error, as it does without Ray."""
    monkeypatch.chdir(tmp_path)
    tally = there(tmp_path / "there", KilledOnce)
    rows = by_key(tmp_path / "there")
    of_one = [row for row in rows.values() if (row["arm"], row["repeat"]) == ("dense", 1)]
    asked = (tmp_path / "asked").read_text(encoding="utf-8").split()
    assert list(map(int, asked)) == [len(of_one), len(of_one) - 2]
    whole = here(tmp_path / "here")
    assert answers(rows) == answers(whole)
    again = [row for key, row in rows.items() if row != whole[key]]
    assert len(again) == 1, "the first question of a job that is taken up computes its trunk again"
    assert again[0] in of_one
    assert tally.rows == len(rows)
    errors = [row for row in rows.values() if row["error"]]
    assert tally.errors == len(errors) > 0
    assert {row["error"] for row in errors} == {"MemoryError: the fake is full"}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_job_that_kills_its_workers_ends_in_one_line_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StopRunError, match=r"repeat 1, stream 0: 3 workers died") as raised:
        there(tmp_path / "there", Poisoned, ONE_ARM)
    assert "\n" not in str(raised.value)
    rows, whole = by_key(tmp_path / "there"), here(tmp_path / "here", ONE_ARM)
    assert answers(rows).items() <= answers(whole).items()
    missing = [row for key, row in whole.items() if key not in rows]
    assert {(row["repeat"], row["stream"]) for row in missing} == {(1, 0)}


@pytest.mark.slow
def test_a_killed_driver_goes_on(tmp_path: Path, cluster: str) -> None:
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(REAL), encoding="utf-8")

    def started(out: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "niah", "run", str(config), "--out", str(tmp_path / out)]
        streams: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*command, *options], cwd=ROOT, **streams)

    killed = started("there", "--ray", cluster)
    rows = tmp_path / "there" / "rows.jsonl"
    while killed.poll() is None and (not rows.exists() or not rows.stat().st_size):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = rows.read_bytes()
    assert 0 < before.count(b"\n") < 4 * 4, "the kill should have come in mid-run"
    for process in (started("there", "--ray", cluster), started("here")):
        _, told = process.communicate()
        assert process.returncode == 0, told
    assert rows.read_bytes().startswith(before)
    assert answers(by_key(tmp_path / "there")) == answers(by_key(tmp_path / "here"))
    entries = json.loads((tmp_path / "there" / "environment.json").read_text())["runs"]
    assert [entry["ray"]["workers"] for entry in entries] == [1, 1]
