"""Arms that use a session in another way: equal to the plain arm where the cache is right, and
unequal where a fault is planted that the plain arm does not meet."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from haystacks.tokenizer import BUNDLED_NAME, load_tokenizer
from models.protocols import Model, Piece, Session
from models.registry import load_model
from niah.errors import PlanError
from niah.execution.estimate import estimate_arm
from niah.execution.jobs import Tally, open_store
from niah.execution.loading import Bench
from niah.execution.session_use import check_uses
from niah.execution.sweeps import ask_what_is_left
from niah.report.html.page import write_report
from niah.sweep.config import Sweep, parse_sweep
from niah.sweep.planner import make_plan
from tests.models.servers.fake_server import Answer, FakeServer, Json, Request, serve
from tests.niah.fakes import RecallModel, RecallSession, sweep_of, tiny_materials
from tests.niah.rows import row_dicts

MATERIALS = tiny_materials(20_000)
SPELLING = load_tokenizer(BUNDLED_NAME)
USES = {
    "plain": {},
    "decoded": {"decode_tail": 48},
    "after-question": {"question_before": True},
    "after-sibling": {"sibling_tokens": 64},
    "all": {"decode_tail": 300, "question_before": True, "sibling_tokens": 130},
}
LLAMA: dict[str, Json | Answer] = {
    "/props": {"default_generation_settings": {"n_ctx": 8192}},
    "/v1/models": {"data": [{"id": "tiny"}]},
}


def sweep_with(uses: dict[str, dict[str, Any]], **fields: Any) -> Sweep:
    arms = [
        {"name": name, "role": "compressed", "model": "m", "session": use}
        for name, use in uses.items()
    ]
    small = {"lengths": [512], "depths": [0.3, 1.0], "repeats": 2, "chunk_tokens": 100}
    return sweep_of(arms=arms, **(small | fields))


def run(folder: Path, sweep: Sweep, models: dict[str, Model]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each arm in the order of their questions."""
    sessions = {arm.name: arm.session for arm in sweep.arms}
    bench = Bench(models, MATERIALS, sessions)
    plan = make_plan(sweep, MATERIALS)
    check_uses(sweep.arms, models)
    with open_store(folder, plan, bench) as store:
        ask_what_is_left(plan, bench, store, lambda arm, tokens: None, Tally())
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    for row in sorted(row_dicts(folder), key=lambda row: row["pair"]):
        found[row["arm"]].append(row)
    return found


def answers(rows: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    return [(row["pair"], row["answer"], row["outcome"], row["error"]) for row in rows]


@pytest.mark.parametrize("layout", ["stream", "isolated"])
def test_a_right_session_answers_the_same_in_every_use(tmp_path: Path, layout: str) -> None:
    sweep = sweep_with(USES, layout=layout, controls=["question_only"])
    rows = run(tmp_path, sweep, {name: RecallModel() for name in USES})
    assert any(row["outcome"] == "exact" for row in rows["plain"])
    for name in USES:
        assert answers(rows[name]) == answers(rows["plain"])
        assert all(r["computed_tokens"] + r["reused_tokens"] == r["length"] for r in rows[name])
        assert {row["cache_bytes"]["total"] for row in rows[name]} == {
            row["cache_bytes"]["total"] for row in rows["plain"]
        }
    assert len({row["key"] for arm in rows.values() for row in arm}) == sum(map(len, rows.values()))


def test_a_page_says_how_an_arm_used_its_sessions(tmp_path: Path) -> None:
    arms = [
        {"name": "plain", "role": "baseline", "model": "m"},
        {"name": "decoded", "role": "compressed", "model": "m", "session": {"decode_tail": 7}},
    ]
    run(tmp_path / "run", sweep_of(arms=arms), {arm["name"]: RecallModel() for arm in arms})
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<dd>compressed: decode_tail 7</dd>" in page


def test_nano_v4_answers_the_same_in_every_use(tmp_path: Path) -> None:
    """The trained model with its compressed cache; the steps cross a block of 128 tokens."""
    model = load_model("nano-v4", {}, threads=1)
    uses: dict[str, dict[str, Any]] = {
        "plain": {},
        "all": {"decode_tail": 24, "question_before": True, "sibling_tokens": 130},
    }
    sweep = sweep_with(uses, lengths=[660], depths=[1.0], repeats=1, spread=0.0)
    rows = run(tmp_path, sweep, dict.fromkeys(uses, model))
    (plain,), (used,) = rows.values()
    assert plain["correct"]
    assert used["answer_ids"] == plain["answer_ids"]
    assert used["gold_logprob"] == pytest.approx(plain["gold_logprob"], abs=1e-4)


@dataclass
class StaleWindowSession(RecallSession):
    """Of a model whose forks read the window of whichever session read last."""

    is_fresh: bool = False

    def fork(self) -> Session:
        return StaleWindowSession(self.model, self.chunks, self.position, is_fresh=True)

    def extend(self, piece: Piece) -> None:
        model = self.model
        assert isinstance(model, StaleWindowModel)
        if self.is_fresh and self.position:
            past = np.concatenate([np.asarray(chunk) for chunk in self.chunks])
            self.chunks = (past[: -model.window], model.newest[-model.window :])
        self.is_fresh = False
        super().extend(piece)
        model.newest = np.concatenate([model.newest, np.asarray(piece.ids)])


@dataclass
class StaleWindowModel(RecallModel):
    window: int = 24
    newest: Any = field(default_factory=lambda: np.zeros(0, np.int64))

    def session(self) -> Session:
        return StaleWindowSession(self)


class LostOverlapSession(RecallSession):
    """Forgets a token that arrives alone and closes a block of four."""

    def fork(self) -> Session:
        return LostOverlapSession(self.model, self.chunks, self.position)

    def extend(self, piece: Piece) -> None:
        super().extend(piece)
        if len(piece.ids) == 1 and self.position % 4 == 0:
            self.chunks = self.chunks[:-1]


class LostOverlapModel(RecallModel):
    def session(self) -> Session:
        return LostOverlapSession(self)


@pytest.mark.parametrize(
    ("faulty", "seen"),
    [(StaleWindowModel, "after-question after-sibling"), (LostOverlapModel, "decoded all")],
)
def test_a_planted_fault_is_seen_by_its_arm_alone(
    tmp_path: Path, faulty: type[RecallModel], seen: str
) -> None:
    rows = run(tmp_path, sweep_with(USES, depths=[1.0]), {name: faulty() for name in USES})
    assert {row["outcome"] for row in rows["plain"]} == {"exact"}
    wrong = {name for name in USES if not all(row["correct"] for row in rows[name])}
    assert wrong == set(seen.split())
    assert not any(row["error"] for arm in rows.values() for row in arm)


@dataclass
class LlamaServer:
    """One slot that keeps its last prompt, as llama.cpp's does, perhaps with a fault."""

    stale_window: int = 0  # tokens in front of a divergence that stay the last prompt's
    loses_overlap: bool = False
    hides_steps: bool = False  # says that it computed more than the one token
    held: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)

    def __call__(self, request: Request) -> Answer:
        prompt = request.body["prompt"]
        reuse = request.body.get("cache_prompt", True)
        pairs = zip(self.held, prompt[:-1], strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if same is None:
            same = min(len(self.held), len(prompt) - 1)
        cached = same if reuse else 0
        diverges = 0 < cached < len(self.held)
        read = self.read[:cached]
        if diverges and self.stale_window:
            read = [*read[: -self.stale_window], *self.held[-self.stale_window :]]
        lost = self.loses_overlap and len(prompt) - cached == 1 and len(prompt) % 4 == 0
        self.held, self.read = prompt, [*read, *([] if lost else prompt[cached:])]
        context, _, statement = SPELLING.decode(self.read).rpartition("?")
        value = context.partition(f"{statement} ")[2].partition(".")[0]
        told = max(0, cached - 1) if self.hides_steps else cached
        return Answer(
            {
                "content": f" {value}",
                "stop_type": "word",
                "tokens_evaluated": len(prompt),
                "timings": {"cache_n": told},
            }
        )


STALE, LOSING = {"stale_window": 24}, {"loses_overlap": True}
SERVED: dict[str, dict[str, Any]] = {
    "cold": {},
    "plain": {},
    "decoded": {"decode_tail": 12},
    "after-question": {"question_before": True},
    "after-sibling": {"sibling_tokens": 64},
}


def served(fake: FakeServer, uses: dict[str, dict[str, Any]], **options: object) -> dict[str, Any]:
    address = {"base_url": fake.base_url, "tokenizer": BUNDLED_NAME}
    return {
        name: load_model(
            "openai:tiny", address | ({"prefix": "cold"} if name == "cold" else {}) | options
        )
        for name in uses
    }


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [({}, ""), (LOSING, "decoded"), (STALE, "after-question after-sibling")],
    ids=["right", "overlap", "window"],
)
def test_a_server_in_every_use(tmp_path: Path, fault: dict[str, Any], wrong: str) -> None:
    """A server for each arm: what one arm leaves in a faulty cache is found by the next."""
    sweep, models = sweep_with(SERVED, depths=[1.0], repeats=2), dict[str, Model]()
    with ExitStack() as running:
        for name in SERVED:
            fake = running.enter_context(serve(LlamaServer(**fault), LLAMA))
            models |= served(fake, {name: {}})
        rows = run(tmp_path, sweep, models)
    assert not [row["error"] for arm in rows.values() for row in arm if row["error"]]
    found = {name for name in SERVED if not all(row["correct"] for row in rows[name])}
    assert found == set(wrong.split())
    for row in rows["decoded"]:
        assert 0 < row["computed_tokens"] < 40, "the question alone was computed"


def test_a_step_that_a_server_does_not_prove_is_an_error(tmp_path: Path) -> None:
    uses = {"decoded": {"decode_tail": 3}}
    with serve(LlamaServer(hides_steps=True), LLAMA) as fake:
        rows = run(tmp_path, sweep_with(uses, repeats=1), served(fake, uses))
    assert {row["error"] for row in rows["decoded"]} == {
        "ServerError: session.decode_tail: the server computed 2 prompt tokens at a step, "
        "expected 1"
    }


def test_what_a_server_is_sent_is_counted_beforehand(tmp_path: Path) -> None:
    sweep = sweep_with(SERVED, depths=[0.5], repeats=1)
    plan = make_plan(sweep, MATERIALS)
    for arm in sweep.arms:
        with serve(LlamaServer(), LLAMA) as fake:
            models = served(fake, {arm.name: {}})
            told = estimate_arm(plan, models[arm.name], MATERIALS.tokenizer, arm.session)
            one = sweep.model_copy(update={"arms": (arm,)})
            run(tmp_path / arm.name, one, models)
        sent = [len(request.body["prompt"]) for request in fake.asked]
        assert told is not None
        assert told[:2] == (len(sent), sum(sent)), arm.name


@pytest.mark.parametrize(
    ("options", "use", "told"),
    [
        (
            {"dialect": "openai"},
            {"decode_tail": 8},
            "arm one: session.decode_tail = 8: this server computes no prompt token alone; "
            "expected 0, or a server of llama.cpp",
        ),
        (
            {"concurrency": 2},
            {"decode_tail": 8},
            "arm one: options.concurrency = 2: other requests come between the tokens of "
            "session.decode_tail; expected 1",
        ),
        (
            {"prefix": "cold"},
            {"question_before": True},
            "arm one: options.prefix = cold: no cached prefix is used, which session asks for; "
            "expected as_is",
        ),
    ],
)
def test_a_use_that_a_server_does_not_have_is_refused(
    options: dict[str, object], use: dict[str, Any], told: str
) -> None:
    with serve(LlamaServer(), LLAMA) as fake:
        models = served(fake, {"one": {}}, **options)
    with pytest.raises(PlanError) as caught:
        check_uses(sweep_with({"one": use}).arms, models)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("use", "told"),
    [
        ({"decode_tail": -1}, "arms.0.session.decode_tail = -1: Input should be greater than or"),
        ({"decode_tail": True}, "arms.0.session.decode_tail = True: Input should be a valid int"),
        ({"question_before": 3}, "arms.0.session.question_before = 3: Input should be a valid bo"),
        ({"tail": 3}, "arms.0.session.tail: no such field"),
    ],
)
def test_a_wrong_use_is_one_line(use: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told.replace(".", r"\.")) as caught:
        sweep_with({"one": use})
    assert "\n" not in str(caught.value)


def test_a_repeat_uses_its_session_as_the_baseline_does() -> None:
    arms = [
        {"name": "a", "role": "baseline", "model": "m"},
        {"name": "b", "role": "repeat", "model": "m", "session": {"decode_tail": 4}},
    ]
    fields = sweep_of().model_dump(mode="json") | {"arms": arms}
    with pytest.raises(ValueError, match="arm b should have the model, options and session of a"):
        parse_sweep(fields, "sweep")
