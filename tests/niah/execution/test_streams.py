"""Arms whose sessions are the same until the question share one reading; rows are those of each
arm read to alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from haystacks.tokenizer import BUNDLED_NAME
from models.protocols import Decoding, Model, Piece, Reply, Session, TokenizerRef
from models.registry import load_model
from niah.cli.printing import estimate_text, total_text
from niah.execution import batches
from niah.execution.ask import with_total
from niah.execution.estimate import Curve, Estimate, estimate_arms
from niah.execution.jobs import Tally, jobs_left, open_store
from niah.execution.loading import Bench
from niah.execution.sweeps import ask_what_is_left
from niah.runs.store import CHECKPOINTS
from niah.sweep.config import Arm, Sweep
from niah.sweep.planner import Materials, make_plan
from tests.niah.fakes import RecallModel, RecallSession, sweep_of, tiny_materials
from tests.niah.rows import row_dicts

PRESSES: dict[str, dict[str, Any]] = {
    "full": {},
    "snapkv": {"press": {"name": "snapkv", "keep": 0.25, "window": 8}},
    "expected": {"press": {"name": "expected_attention", "keep": 0.5}},
    "quest": {"press": {"name": "quest", "keep": 0.25, "dense_layers": 1}},
    "seen": {"press": {"name": "tova", "keep": 0.25, "sees_question": True}},
}
LAYOUTS = pytest.mark.parametrize("layout", ["stream", "isolated"])


def arms_of(names: Sequence[str], model: str = "random-dense") -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "role": "baseline" if name == "full" else "compressed",
            "model": model,
            "options": PRESSES[name],
        }
        for name in names
    ]


def pressed_sweep(names: Sequence[str] = tuple(PRESSES), **fields: Any) -> Sweep:
    settings: dict[str, Any] = {
        "lengths": [150, 200],
        "depths": 2,
        "repeats": 1,
        "max_needle_share": 0.3,
        "chunk_tokens": 64,
        "decoding": {"max_new_tokens": 2},
        "checkpoint_minutes": 0,
    }
    return sweep_of(arms=arms_of(names), **(settings | fields))


@cache
def model_of(name: str) -> Model:
    return load_model("random-dense", PRESSES[name], threads=1)


@cache
def materials() -> Materials:
    return tiny_materials(20_000)


def bench_of(sweep: Sweep) -> Bench:
    return Bench({arm.name: model_of(arm.name) for arm in sweep.arms}, materials())


def carry_out(
    folder: Path,
    sweep: Sweep,
    bench: Bench,
    progress: Callable[[Arm, int], None] = lambda arm, tokens: None,
) -> tuple[dict[str, dict[str, Any]], Tally]:
    plan, tally = make_plan(sweep, bench.materials), Tally()
    with open_store(folder, plan, bench) as store:
        ask_what_is_left(plan, bench, store, progress, tally)
    return told(row_dicts(folder)), tally


def told(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By key, all that is no time."""
    return {
        row["key"]: {name: value for name, value in row.items() if not name.endswith("_seconds")}
        for row in rows
    }


@LAYOUTS
def test_rows_are_those_of_each_arm_alone(tmp_path: Path, layout: str) -> None:
    """Also bytes, and what each arm computed."""
    sweep = pressed_sweep(layout=layout)
    shared, _ = carry_out(tmp_path / "shared", sweep, bench_of(sweep))
    alone: dict[str, dict[str, Any]] = {}
    for name in PRESSES:
        single = pressed_sweep([name], layout=layout)
        rows, _ = carry_out(tmp_path / name, single, bench_of(single))
        alone |= rows
    assert shared == alone
    assert len({row["gold_logprob"] for row in shared.values()}) > 12  # of 20
    assert not any(row["error"] for row in shared.values())


def test_a_resumed_run_asks_what_is_missing(tmp_path: Path) -> None:
    """Arms that got further than others, as after a kill in the middle of a question."""
    missing = 5
    sweep = pressed_sweep(["full", "snapkv", "quest"])
    bench = bench_of(sweep)
    whole, _ = carry_out(tmp_path, sweep, bench)
    path = tmp_path / "rows.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-missing]), encoding="utf-8")
    plan = make_plan(sweep, bench.materials)
    with open_store(tmp_path, plan, bench) as store:
        assert sum(len(job.pairs) for job in jobs_left(plan, bench, store)) == missing
    again, tally = carry_out(tmp_path, sweep, bench)
    assert tally.rows == missing
    for key, row in whole.items():
        costs = ("computed_tokens", "reused_tokens")  # a resumed run reads the text once more
        for cost in costs:
            again[key].pop(cost), row.pop(cost)
    assert again == whole


@LAYOUTS
def test_a_killed_reading_goes_on(tmp_path: Path, layout: str) -> None:
    """The file of the session holds what the presses have seen of queries."""
    fields: dict[str, Any] = {"layout": layout, "depths": [1.0]}
    plain = pressed_sweep(["snapkv", "expected"], **fields)
    whole, _ = carry_out(tmp_path / "whole", plain, bench_of(plain))
    sweep = pressed_sweep(["snapkv", "expected"], checkpoint_minutes=1e-9, **fields)
    chunks = 0

    class Killed(BaseException):
        pass

    def kill(arm: Arm, tokens: int) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 5:
            raise Killed

    with pytest.raises(Killed):
        carry_out(tmp_path / "run", sweep, bench_of(sweep), kill)
    assert len(list((tmp_path / "run" / CHECKPOINTS).iterdir())) == 1
    seen: list[int] = []
    rows, _ = carry_out(
        tmp_path / "run", sweep, bench_of(sweep), lambda arm, tokens: seen.append(tokens)
    )
    assert rows == whole
    assert seen[0] >= 64
    assert not (tmp_path / "run" / CHECKPOINTS).exists()


@dataclass
class CountedSession(RecallSession):
    """Counts what its model reads, and is told where the context ends."""

    model: CountedModel  # type: ignore[assignment]
    owner: str = ""

    def fork(self) -> Session:
        return CountedSession(self.model, self.chunks, self.position)

    def extend(self, piece: Piece) -> None:
        super().extend(piece)
        self.model.read.append(len(piece.ids))

    def context_ends(self) -> None:
        if self.owner == self.model.breaks:
            raise RuntimeError("the press broke")

    def question_ends(self) -> None:
        assert self.owner


@dataclass
class CountedModel(RecallModel):
    read: list[int] = field(default_factory=list)
    breaks: str = "nobody"
    trunk: str = "one"

    def session(self) -> Session:
        return CountedSession(self)

    def share(self, session: Session, models: Sequence[Model]) -> None:
        assert isinstance(session, CountedSession)

    def adopt(self, session: Session) -> None:
        assert isinstance(session, CountedSession)
        session.owner = self.fingerprint


def counted(
    sweep: Sweep, read: list[int], trunks: Sequence[str] = (), breaks: str = "nobody"
) -> Bench:
    names = [*trunks, *["one"] * len(sweep.arms)]
    models: dict[str, Model] = {
        arm.name: CountedModel(fingerprint=f"{i:016}", read=read, trunk=names[i], breaks=breaks)
        for i, arm in enumerate(sweep.arms)
    }
    return Bench(models, materials())


@LAYOUTS
def test_the_text_is_read_once(tmp_path: Path, layout: str) -> None:
    sweep = pressed_sweep(["full", "snapkv", "quest"], layout=layout)
    read: list[int] = []
    progress: dict[str, int] = {}

    def advance(arm: Arm, tokens: int) -> None:
        progress[arm.name] = progress.get(arm.name, 0) + tokens

    bench = counted(sweep, read)
    rows, tally = carry_out(tmp_path, sweep, bench, advance)
    plan = make_plan(sweep, bench.materials)
    contexts = plan.computed_tokens - sum(t.length - t.cut for _, t in plan.trials())
    questions = sum(trial.length - trial.cut for _, trial in plan.trials())
    assert sum(read) == contexts + 3 * questions == tally.computed_tokens
    assert tally.computed_tokens + tally.reused_tokens == 3 * plan.prompt_tokens
    assert set(progress.values()) == {plan.computed_tokens}
    for arm in ("full", "snapkv", "quest"):
        own = [row for row in rows.values() if row["arm"] == arm]
        assert sum(row["computed_tokens"] for row in own) == plan.computed_tokens
    assert tally.model_seconds <= tally.seconds


@dataclass
class MeasuredElsewhere(CountedModel):
    """A tenth of a second a token read, a second a token decoded."""

    curve: Curve = Curve(0.1, 0, 0, 0, 1.0)  # noqa: RUF009
    free_bytes: int = 1 << 40


@LAYOUTS
def test_what_is_read_once_is_estimated_once(tmp_path: Path, layout: str) -> None:
    sweep = pressed_sweep(["full", "snapkv", "quest"], layout=layout)
    read: list[int] = []
    plan = make_plan(sweep, materials())

    def estimated(*trunks: str) -> list[Estimate]:
        models: dict[str, Model] = {
            arm.name: MeasuredElsewhere(read=read, trunk=trunk)
            for arm, trunk in zip(sweep.arms, trunks, strict=True)
        }
        found = estimate_arms(plan, models, materials().tokenizer)
        return [needs for needs in found.values() if isinstance(needs, Estimate)]

    shared = estimated("one", "one", "one")
    carry_out(tmp_path, sweep, counted(sweep, read))
    assert sum(needs.computed_tokens or 0 for needs in shared) == sum(read)
    questions = sum(trial.length - trial.cut for _, trial in plan.trials())
    assert [needs.computed_tokens for needs in shared] == [
        plan.computed_tokens,
        questions,
        questions,
    ]
    decoded = sum(trial.max_new_tokens for _, trial in plan.trials())
    for needs in shared:
        assert needs.seconds == pytest.approx(0.1 * (needs.computed_tokens or 0) + decoded)
    assert [needs.read_with for needs in shared] == [None, "full", "full"]
    assert [needs.read_with for needs in estimated("one", "two", "one")] == [None, None, "full"]
    told = total_text(shared)
    assert told is not None
    assert told.endswith(f"{sum(read):,} prompt tokens computed")
    assert "reading shared with full" in estimate_text(shared[1])
    assert total_text(estimated("one", "two", "three")) is None


def test_who_does_not_share(tmp_path: Path) -> None:
    """Other trunks, a repeat of the baseline, and a sweep without reuse."""
    arms = [
        *arms_of(["full", "snapkv"]),
        {"name": "again", "role": "repeat", "model": "random-dense"},
    ]

    def total(name: str, trunks: Sequence[str] = (), **fields: Any) -> float:
        sweep = pressed_sweep(**fields).model_copy(
            update={"arms": tuple(Arm.model_validate(arm) for arm in arms)}
        )
        read: list[int] = []
        bench = counted(sweep, read, trunks)
        carry_out(tmp_path / name, sweep, bench)
        return sum(read) / make_plan(sweep, bench.materials).computed_tokens

    assert 2 < total("shared") < 2.7  # the repeat is read to alone
    assert total("apart", ["one", "two"]) == 3
    assert total("cold", reuse=False) == 3


def test_an_arm_whose_press_fails_harms_no_other(tmp_path: Path) -> None:
    sweep = pressed_sweep(["full", "snapkv", "quest"])
    rows, _ = carry_out(tmp_path, sweep, counted(sweep, [], breaks=f"{1:016}"))
    errors = {row["arm"]: row["error"] for row in rows.values()}
    assert errors == {"full": None, "snapkv": "RuntimeError: the press broke", "quest": None}


TINY = ["full", "snapkv", "expected", "quest"]


def models_of_transformers(names: Sequence[str], **options: Any) -> Bench:
    pytest.importorskip("transformers", reason="needs transformers")
    from models.transformers_models.loading import HuggingFaceModel, in_memory
    from tests.models.transformers_models.tiny import tiny_llama

    network = tiny_llama(vocab_size=2048, max_position_embeddings=512)
    network.config.eos_token_id = network.generation_config.eos_token_id = None
    weights, tokenizer = in_memory(network), TokenizerRef(BUNDLED_NAME)
    models: dict[str, Model] = {
        name: HuggingFaceModel("hf:tiny", weights, {**PRESSES[name], **options}, tokenizer)
        for name in names
    }
    return Bench(models, materials())


def compared(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without the room for tokens to come, since questions of all arms write behind one past, and
    without the company in which an answer was decoded."""
    for row in rows.values():
        row["cache_bytes"]["total"] -= row["cache_bytes"].pop("reserve")
        del row["requests_in_flight"]
    return rows


def test_models_of_transformers_share_too(tmp_path: Path) -> None:
    def rows_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
        folder, bench = tmp_path / "-".join(names), models_of_transformers(names)
        return compared(carry_out(folder, pressed_sweep(names), bench)[0])

    shared = rows_of(TINY)
    alone: dict[str, dict[str, Any]] = {}
    for name in TINY:
        alone |= rows_of([name])
    assert shared == alone
    assert len({row["gold_logprob"] for row in shared.values()}) > 12  # of 16


@LAYOUTS
def test_questions_decoded_together_have_the_rows_of_each_alone(
    tmp_path: Path, layout: str
) -> None:
    sweep = pressed_sweep(TINY, layout=layout)
    rows, tally = carry_out(tmp_path / "together", sweep, models_of_transformers(TINY, batch=5))
    flights = [(row["arm"], row["requests_in_flight"]) for row in row_dicts(tmp_path / "together")]
    assert {flight for arm, flight in flights if arm == "quest"} == {None}  # it reads by a mask
    # In the order of the forks; at quest's answer those that wait are decoded.
    assert [flight for arm, flight in flights if arm != "quest"] == [3] * 12
    for row in row_dicts(tmp_path / "together"):
        assert (row["decode_seconds"] is None) == (row["arm"] != "quest")
    single, before = carry_out(tmp_path / "alone", sweep, models_of_transformers(TINY, batch=1))
    assert compared(rows) == compared(single)
    assert tally.computed_tokens == before.computed_tokens
    assert 0 < tally.model_seconds <= tally.seconds


def test_questions_of_several_cuts_are_decoded_together(tmp_path: Path) -> None:
    sweep = pressed_sweep(["full"])
    rows, tally = carry_out(tmp_path / "together", sweep, models_of_transformers(["full"]))
    flights = [row["requests_in_flight"] for row in rows.values()]
    assert max(flight or 1 for flight in flights) > 1
    single, _ = carry_out(tmp_path / "alone", sweep, models_of_transformers(["full"], batch=1))
    assert compared(rows) == compared(single)
    assert tally.model_seconds <= tally.seconds


def test_forks_that_hold_much_do_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 1)
    rows, _ = carry_out(tmp_path, pressed_sweep(TINY), models_of_transformers(TINY))
    assert {row["requests_in_flight"] for row in rows.values()} == {None}
    assert all(row["decode_seconds"] > 0 for row in row_dicts(tmp_path))


def test_one_answer_that_fails_harms_no_other(tmp_path: Path) -> None:
    bench = models_of_transformers(["full", "snapkv"])
    model = bench.models["full"]
    together = model.generate_many  # type: ignore[attr-defined]

    def failing(sessions: Any, decodings: Any) -> Any:
        first, *rest = together(sessions, decodings)
        return [RuntimeError("the device is lost"), *rest] if rest else [first]

    model.generate_many = failing  # type: ignore[attr-defined]
    rows, _ = carry_out(tmp_path, pressed_sweep(["full", "snapkv"]), bench)
    errors = [row["error"] for row in rows.values()]
    assert 0 < errors.count("RuntimeError: the device is lost") < len(errors)
    assert set(errors) == {None, "RuntimeError: the device is lost"}


class OddSession(RecallSession):
    """Its replies are changed."""

    model: OddModel

    def fork(self) -> Session:
        return OddSession(self.model, self.chunks, self.position)

    def generate(self, decoding: Decoding) -> Reply:
        return self.model.changed(super().generate(decoding))


@dataclass
class OddModel(RecallModel):
    changed: Callable[[Reply], Reply] = lambda reply: reply

    def session(self) -> Session:
        return OddSession(self)


def rows_of(folder: Path, changed: Callable[[Reply], Reply]) -> list[dict[str, Any]]:
    sweep = sweep_of(
        arms=arms_of(["full"]), lengths=[200], depths=2, repeats=1, max_needle_share=0.3
    )
    bench = Bench({"full": OddModel(changed=changed)}, tiny_materials())
    plan = make_plan(sweep, bench.materials)
    with open_store(folder, plan, bench) as store:
        ask_what_is_left(plan, bench, store, lambda *_: None, Tally())
    rows = row_dicts(folder)
    assert len(rows) == len(list(plan.trials()))
    return rows


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"gold_logprob": -math.inf}, "gold_logprob is -inf, should be a finite number"),
        ({"finish": "done"}, "finish is 'done', should be"),
    ],
)
def test_an_answer_that_no_row_can_hold_is_an_error_of_its_question(
    tmp_path: Path, reply: dict[str, Any], said: str
) -> None:
    rows = rows_of(tmp_path, lambda found: found._replace(**reply))
    assert {row["outcome"] for row in rows} == {"error"}
    assert all(said in row["error"] for row in rows)


def test_half_a_character_in_an_answer_is_replaced(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, lambda found: found._replace(text=f"{found.text} \ud83d"))
    assert all(row["answer"].endswith(" \ufffd") for row in rows)
    assert {row["error"] for row in rows} == {None}


def test_bytes_of_another_integer_type_count_and_unknown_ones_are_not_zero() -> None:
    assert with_total({"full": np.int64(3), "window": 4}) == {"full": 3, "window": 4, "total": 7}
    assert with_total({}) is None
    with pytest.raises(TypeError):
        with_total({"full": 3.5})  # type: ignore[dict-item]
