"""A sweep with an arm behind a server: equal rows, several at once, resumes, no key anywhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from haystacks.tokenizer import BUNDLED_NAME, load_tokenizer
from models.errors import StopRunError
from models.registry import load_model
from niah.cli.printing import estimate_text
from niah.errors import ChangedError, PlanError
from niah.execution.estimate import check_ceilings, estimate_arm
from niah.execution.jobs import Tally, open_store
from niah.execution.loading import Bench
from niah.execution.sweeps import ask_what_is_left
from niah.runs.history import earlier_sweeps
from niah.sweep.config import Sweep
from niah.sweep.planner import make_plan
from tests.models.servers.fake_server import Answer, FakeServer, Request, completion, serve
from tests.niah.fakes import RecallModel, sweep_of, tiny_materials
from tests.niah.rows import row_dicts

KEY = "sk-a-long-secret-0123456789"
MATERIALS = tiny_materials(20_000)
SMALL = {"lengths": [512], "depths": [0.2, 0.8], "repeats": 2}


def recalled(request: Request) -> Answer:
    """Perfect recall of a prompt of ids, by a server that goes on after the answer."""
    spelling = load_tokenizer(BUNDLED_NAME)
    prompt = spelling.decode(request.body["prompt"])
    context, _, statement = prompt.rpartition("?")
    value = context.partition(f"{statement} ")[2].partition(".")[0]
    tokens = len(request.body["prompt"])
    return Answer(completion(f" {value}.25 more", tokens, cached_tokens=tokens - 100))


def bench_of(sweep: Sweep, fake: FakeServer, **options: object) -> Bench:
    """The baseline in this process, the other arm behind the server."""
    address = {"base_url": fake.base_url, "tokenizer": BUNDLED_NAME}
    models = {"dense": RecallModel(), "sparse": load_model("openai:tiny", address | options)}
    return Bench(models, MATERIALS)


def run(folder: Path, sweep: Sweep, bench: Bench) -> Tally:
    plan, tally = make_plan(sweep, bench.materials), Tally()
    with open_store(folder, plan, bench) as store:
        ask_what_is_left(plan, bench, store, lambda arm, tokens: None, tally)
    return tally


def by_arm(folder: Path, *fields: str) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in row_dicts(folder):
        found.setdefault(row["arm"], []).append(tuple(row[name] for name in fields))
    return found


@pytest.mark.parametrize("layout", ["stream", "isolated"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_server_answers_as_a_model_in_process(
    tmp_path: Path, layout: str, concurrency: int
) -> None:
    sweep = sweep_of(layout=layout, **SMALL)
    with serve(recalled) as fake:
        tally = run(tmp_path, sweep, bench_of(sweep, fake, concurrency=concurrency))
    arms = by_arm(tmp_path, "pair", "answer", "outcome", "length")
    assert arms["dense"] == arms["sparse"], "the same questions, answers and order"
    assert {outcome for _, _, outcome, _ in arms["sparse"]} == {"exact"}
    assert tally.untold == tally.errors == 0
    for row in row_dicts(tmp_path):
        if row["arm"] == "sparse":
            assert row["server_prompt_tokens"] == row["length"]
            assert (row["computed_tokens"], row["cached_tokens"]) == (100, row["length"] - 100)
            assert row["reused_tokens"] == row["cached_tokens"]
            assert row["request_seconds"] > 0
            unknown = ("cache_bytes", "prefill_seconds", "cold_prefill_seconds", "decode_seconds")
            assert [row[name] for name in (*unknown, "answer_ids", "answer_tokens")] == [None] * 6


def test_questions_of_several_streams_are_asked_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(3)  # breaks unless three requests meet

    def reply(request: Request) -> Answer:
        together.wait(20)
        return recalled(request)

    sweep = sweep_of(lengths=[512], depths=[0.5], repeats=3, layout="isolated")
    with serve(reply) as fake:
        bench = bench_of(sweep, fake, concurrency=3)
        assert len(make_plan(sweep, MATERIALS).streams) == 3
        assert run(tmp_path, sweep, bench).errors == 0
        assert fake.most_in_flight == 3


def test_a_server_that_counts_nothing_leaves_unknowns(tmp_path: Path) -> None:
    sweep = sweep_of(**SMALL)
    with serve(completion(" 1.", prompt_tokens=None)) as fake:
        tally = run(tmp_path, sweep, bench_of(sweep, fake))
    counts = by_arm(tmp_path, "server_prompt_tokens", "cached_tokens", "computed_tokens")
    assert set(counts["sparse"]) == {(None, None, None)}
    assert tally.untold == len(counts["sparse"])


def refusing_after(answers: int) -> Callable[[Request], Answer]:
    def reply(request: Request) -> Answer:
        nonlocal answers
        answers -= 1
        return recalled(request) if answers >= 0 else Answer({"error": "credit used up"}, 402)

    return reply


@pytest.mark.parametrize("concurrency", [1, 4])
def test_five_refusals_end_the_run_and_a_resume_goes_on(tmp_path: Path, concurrency: int) -> None:
    sweep = sweep_of(lengths=[512], depths=5, repeats=3)
    with serve(refusing_after(3)) as fake:
        bench = bench_of(sweep, fake, concurrency=concurrency)
        with pytest.raises(
            StopRunError, match=r"^5 requests in a row failed at http.*, the last: HTTP 402: credit"
        ):
            run(tmp_path, sweep, bench)
        assert 8 <= len(fake.asked) < 8 + 2 * concurrency, "some were on their way"
        rows = [row for row in row_dicts(tmp_path) if row["arm"] == "sparse"]
        errors = [row["error"] for row in rows if row["error"]]
        assert len(rows) - len(errors) <= 3
        assert set(errors) <= {"RefusedError: HTTP 402: credit used up"}
        answered = len(rows) - len(errors)
        fake.answers, fake.asked = recalled, []
        tally = run(tmp_path, sweep, bench_of(sweep, fake, concurrency=concurrency))
        assert tally.errors == 0
        assert len(fake.asked) == make_plan(sweep, MATERIALS).questions - answered


def test_the_key_is_written_nowhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEST_SERVER_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    sweep = sweep_of(**SMALL)
    number = 0

    def reply(request: Request) -> Answer:
        nonlocal number
        number += 1
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        if number == 1:
            return Answer({"error": f"not with {request.headers}"}, 400)
        return Answer(completion(f"I was called with {KEY}")) if number == 2 else recalled(request)

    pages = {"/v1/models": {"data": [{"id": "tiny", "owned_by": f"Bearer {KEY}"}]}}
    with serve(reply, pages) as fake:
        bench = bench_of(sweep, fake, key_env="TEST_SERVER_KEY")
        assert run(tmp_path, sweep, bench).errors == 2
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(written) >= 4
    assert not [path for path, content in written.items() if KEY.encode() in content]
    out, err = capfd.readouterr()
    assert KEY not in caplog.text + out + err
    assert KEY not in repr(bench.models["sparse"].describe())


def test_a_plan_says_what_will_be_sent_and_keeps_to_a_ceiling() -> None:
    sweep = sweep_of(**SMALL)
    plan = make_plan(sweep, MATERIALS)
    with serve(recalled) as fake:
        plain = bench_of(sweep, fake).models["sparse"]
        assert estimate_text(estimate_arm(plan, plain, MATERIALS.tokenizer)) == (
            f"a server: {plan.prompt_tokens:,} prompt tokens in {plan.questions} requests will be "
            f"sent; {plan.prompt_tokens - plan.computed_tokens:,} of them begin as an earlier "
            "prompt does, which a prefix cache saves; time and memory are not estimated"
        )
        forks = sum(trial.fork_at for _, trial in plan.trials())
        warm = bench_of(sweep, fake, prefix="warm").models["sparse"]
        sent = estimate_arm(plan, warm, MATERIALS.tokenizer)
        assert sent[:2] == (2 * plan.questions, plan.prompt_tokens + forks)
        enough = bench_of(sweep, fake, max_prompt_tokens=plan.prompt_tokens)
        check_ceilings(plan, enough.models, MATERIALS.tokenizer)
        short = bench_of(sweep, fake, max_prompt_tokens=plan.prompt_tokens - 1)
        with pytest.raises(PlanError, match=rf"arm sparse will be sent {plan.prompt_tokens} promp"):
            check_ceilings(plan, short.models, MATERIALS.tokenizer)


def test_options_of_an_arm_may_be_nested() -> None:
    options = {"extra": {"provider": {"only": ["one"], "allow_fallbacks": False}}, "retries": 1}
    arms = [{"name": "far", "role": "compressed", "model": "openai:m", "options": options}]
    assert sweep_of(arms=arms).arms[0].options == options


def test_a_server_that_moved_is_the_same_arm(tmp_path: Path) -> None:
    """The address, the key's name and the pace decide no answer; what is declared does."""
    far: dict[str, Any] = {"name": "far", "role": "compressed", "model": "openai:tiny"}

    def asked(fake: FakeServer, **options: object) -> tuple[Sweep, Bench]:
        given = {"base_url": fake.base_url, "tokenizer": BUNDLED_NAME} | options
        sweep = sweep_of(arms=[far | {"options": given}], lengths=[512], depths=5, repeats=2)
        return sweep, Bench({"far": load_model("openai:tiny", given)}, MATERIALS)

    with serve(refusing_after(3)) as first, pytest.raises(StopRunError):
        run(tmp_path, *asked(first))
    written = len([row for row in row_dicts(tmp_path) if not row["error"]])
    with serve(recalled) as moved:
        sweep, bench = asked(moved, timeout=30, retries=1)
        assert earlier_sweeps(tmp_path, sweep) == ()
        assert run(tmp_path, sweep, bench).errors == 0
        assert len(moved.asked) == make_plan(sweep, MATERIALS).questions - written
        other, _ = asked(moved, declared={"cache": "q4_0"})
        with pytest.raises(ChangedError, match=r"arms\.far\.options\.declared = null, now \{"):
            earlier_sweeps(tmp_path, other)


def test_arms_of_one_server_do_not_meet(tmp_path: Path) -> None:
    """One arm asks four at once, the other one at a time; none of one while the other's run."""
    crowd: set[int] = set()
    lock = threading.Lock()

    def reply(request: Request) -> Answer:
        time.sleep(0.05)
        with lock:
            crowd.add(fake.in_flight if request.body["kind"] == "many" else -fake.in_flight)
        return recalled(request)

    sweep = sweep_of(lengths=[512], depths=[0.1, 0.3, 0.5, 0.7], repeats=3, max_needle_share=0.5)
    with serve(reply) as fake:
        address = {"base_url": fake.base_url, "tokenizer": BUNDLED_NAME}
        models = {
            "dense": load_model("openai:tiny", address | {"extra": {"kind": "one"}}),
            "sparse": load_model(
                "openai:tiny", address | {"extra": {"kind": "many"}, "concurrency": 4}
            ),
        }
        assert run(tmp_path, sweep, Bench(models, MATERIALS)).errors == 0
    assert -1 in crowd
    assert min(crowd) == -1, "a request of the first arm met others"
    assert max(crowd) == 4
    flights = by_arm(tmp_path, "requests_in_flight")
    assert set(flights["dense"]) == {(1,)}
    assert max(flights["sparse"]) == (4,)
    assert [model.describe()["concurrency"] for model in models.values()] == [1, 4]


def test_a_slow_answer_holds_up_no_others(tmp_path: Path) -> None:
    """Others go on while the first is waited for, and rows keep their order."""
    answered, slow, met = threading.Semaphore(0), threading.Event(), list[bool]()

    def reply(request: Request) -> Answer:
        if not slow.is_set():
            slow.set()
            met.extend(answered.acquire(timeout=10) for _ in range(4))
        answered.release()
        return recalled(request)

    sweep = sweep_of(lengths=[512], depths=[0.1, 0.5, 0.9], repeats=3, max_needle_share=0.5)
    with serve(reply) as fake:
        assert run(tmp_path / "slow", sweep, bench_of(sweep, fake, concurrency=2)).errors == 0
    assert met == [True] * 4
    with serve(recalled) as fake:
        run(tmp_path / "quick", sweep, bench_of(sweep, fake, concurrency=2))
    assert by_arm(tmp_path / "slow", "pair") == by_arm(tmp_path / "quick", "pair")
