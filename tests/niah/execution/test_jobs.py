"""A sweep carried out by fakes: what rows say, what is reused, what failure leaves behind."""

import json
import random
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from haystacks.compressibility import compression_ratio, context_ratio
from haystacks.tokenizer import BUNDLED_FILE, BUNDLED_NAME, Tokenizer
from models.protocols import Decoding, Piece, TokenizerRef
from niah.errors import NiahError
from niah.execution.ask import with_total
from niah.execution.executors import local
from niah.execution.jobs import Tally, open_store
from niah.execution.loading import Bench, load_bench
from niah.execution.sweeps import ask_what_is_left
from niah.report.html.page import write_report
from niah.runs.history import read_environment
from niah.sweep import prompts
from niah.sweep.config import Arm, Sweep
from niah.sweep.planner import Materials, make_plan
from niah.sweep.prompts import Context, Ids, build_context
from niah.sweep.trials import Stream
from tests.niah.fakes import RecallModel, fake_bench, sweep_of, tiny_materials
from tests.niah.rows import row_dicts

ROOT = Path(__file__).parents[3]
LAYOUTS = pytest.mark.parametrize("layout", ["stream", "isolated"])


@cache
def materials() -> Materials:
    return tiny_materials()


def run_sweep(folder: Path, sweep: Sweep, bench: Bench | None = None) -> list[dict[str, Any]]:
    """Everything that is left of a sweep; all rows of the folder."""
    bench = bench or fake_bench(sweep, materials())
    plan = make_plan(sweep, bench.materials)
    with open_store(folder, plan, bench) as store:
        ask_what_is_left(plan, bench, store, lambda arm, tokens: None, Tally())
    return row_dicts(folder)


def answers(rows: list[dict[str, Any]]) -> dict[str, object]:
    """What must not depend on how a run was cut up."""
    return {
        row["key"]: (row["answer"], row["outcome"], row["cache_bytes"], row["length"])
        for row in rows
    }


@LAYOUTS
def test_perfect_recall_is_exact_and_a_short_memory_is_not(tmp_path: Path, layout: str) -> None:
    rows = run_sweep(tmp_path, sweep_of(layout=layout, depths=5))
    assert all(row["correct"] for row in rows if row["arm"] == "dense")
    for row in rows:
        if row["arm"] == "sparse":
            remembered = row["length"] - row["needle_start"] <= 512
            assert row["correct"] == row["contains"] == remembered, row
            assert (row["gold_logprob"] == 0.0) == remembered
            assert row["outcome"] == ("exact" if remembered else "denied")


def test_a_run_of_fakes_with_a_repeat_has_its_whole_page(tmp_path: Path) -> None:
    """What rows and environment tell reaches the page: kinds of cache, noise, nats, tokens."""
    arms = [
        {"name": "dense", "role": "baseline", "model": "perfect"},
        {"name": "sparse", "role": "compressed", "model": "forgetful"},
        {"name": "again", "role": "repeat", "model": "perfect"},
    ]
    rows = run_sweep(tmp_path / "run", sweep_of(arms=arms, depths=5))
    models = read_environment(tmp_path / "run")["models"]
    assert isinstance(models, dict)
    assert models["sparse"]["cache_kinds"] == {"full": "every token"}
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<dt>full</dt><dd>every token</dd>" in page
    wrong = sum(not row["correct"] for row in rows if row["arm"] == "again")
    asked = sum(row["arm"] == "again" for row in rows)
    assert f"{wrong} of {asked} differ in again" in page
    for name in ("table-answers", "table-noise", "table-parting", "plate-logprob"):
        assert f'id="{name}"' in page


@LAYOUTS
def test_rows_of_the_arms_pair_and_keys_are_unique(tmp_path: Path, layout: str) -> None:
    rows = run_sweep(tmp_path, sweep_of(layout=layout))
    pairs = {arm: {row["pair"] for row in rows if row["arm"] == arm} for arm in ("dense", "sparse")}
    assert pairs["dense"] == pairs["sparse"]
    assert len({row["key"] for row in rows}) == len(rows) == 2 * len(pairs["dense"])


@LAYOUTS
def test_every_prompt_token_is_computed_or_reused(tmp_path: Path, layout: str) -> None:
    sweep = sweep_of(layout=layout, depths=5)
    rows = run_sweep(tmp_path, sweep)
    assert all(r["computed_tokens"] + r["reused_tokens"] == r["length"] for r in rows)
    computed = sum(row["computed_tokens"] for row in rows if row["arm"] == "dense")
    assert computed == make_plan(sweep, materials()).computed_tokens


@LAYOUTS
def test_reuse_gives_the_answers_of_cold_prompts(tmp_path: Path, layout: str) -> None:
    sweep = sweep_of(layout=layout, depths=5, controls=["no_needle", "question_only"])
    bench = fake_bench(sweep, materials())
    warm = {(row["arm"], row["pair"]): row for row in run_sweep(tmp_path, sweep, bench)}
    plan = make_plan(sweep, materials())
    for stream, trial in plan.trials():
        prompt = build_context(stream, materials().corpora["tiny"], sweep.layout).prompt(trial)
        for arm, model in bench.models.items():
            session = model.session()
            decode = materials().tokenizer.decode
            session.extend(Piece(prompt, decode))
            cache_bytes = with_total(session.usage().cache_bytes)
            reply = session.generate(Decoding(trial.max_new_tokens, decode, ("\n", ".")))
            row = warm.pop((arm, trial.pair))
            assert (row["answer"], row["cache_bytes"]) == (reply.text, cache_bytes)
    assert not warm


def test_a_row_tells_where_its_needle_stands(tmp_path: Path) -> None:
    for row in run_sweep(tmp_path, sweep_of(needle_phase={"modulus": 4})):
        assert abs(row["actual_depth"] - row["depth"]) < 0.2
        assert row["spans"] == [[row["needle_start"], row["needle_end"]]]


@LAYOUTS
def test_a_row_has_the_ratio_of_its_own_context_not_of_the_stream(
    tmp_path: Path, layout: str
) -> None:
    sweep = sweep_of(layout=layout)
    streams = {(s.repeat, s.index): s for s in make_plan(sweep, materials()).streams}
    for row in run_sweep(tmp_path, sweep):
        stream = streams[row["repeat"], row["stream"]]
        corpus = materials().corpora[stream.corpus]
        ids = build_context(stream, corpus, sweep.layout).trunk[: row["length"]]
        text = materials().tokenizer.decode(ids.tolist())
        assert row["compression_ratio"] == compression_ratio(text)


def test_a_stream_is_planted_and_compressed_once_for_all_arms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arms' models share no reading here; the text is the same all the same."""
    planted: list[int] = []
    compressed: list[int] = []

    def build(stream: Stream, *rest: Any) -> Context:
        planted.append(stream.index)
        return build_context(stream, *rest)

    def ratio(ids: Ids, tokenizer: Tokenizer) -> float:
        compressed.append(len(ids))
        return context_ratio(ids, tokenizer)

    monkeypatch.setattr(local, "build_context", build)
    monkeypatch.setattr(prompts, "context_ratio", ratio)
    rows = run_sweep(tmp_path, sweep_of(depths=5))
    assert len({row["arm"] for row in rows}) == 2
    assert len(planted) == len({(row["stream"], row["repeat"]) for row in rows})
    prompts_read = {(row["stream"], row["repeat"], row["length"]) for row in rows}
    assert len(compressed) == len(prompts_read)


def test_controls_have_no_needle_and_are_named(tmp_path: Path) -> None:
    sweep = sweep_of(controls=["no_needle", "question_only"])
    rows = [row for row in run_sweep(tmp_path, sweep) if row["control"]]
    assert {row["control"] for row in rows} == {"no_needle", "question_only"}
    assert all(row["needle_start"] is None and row["depth"] is None for row in rows)
    assert not any(row["correct"] for row in rows)
    short = [row for row in rows if row["control"] == "question_only"]
    assert all(row["length"] < 100 for row in short)


def test_three_arms_answer_the_same_questions(tmp_path: Path) -> None:
    arms = [
        {"name": f"memory-{n}", "role": "compressed", "model": "m", "options": {"memory": n}}
        for n in (300, 600, 1200)
    ]
    sweep = sweep_of(arms=arms, depths=5)
    models = {
        arm.name: RecallModel(
            memory=int(arm.options["memory"] or 0), fingerprint=f"{arm.options['memory']:016}"
        )
        for arm in sweep.arms
    }
    rows = run_sweep(tmp_path, sweep, Bench(models, materials()))
    recalled = [sum(row["correct"] for row in rows if row["arm"] == arm) for arm in models]
    assert recalled == sorted(recalled)
    assert recalled[0] < recalled[-1]


def test_a_failing_model_leaves_error_rows_that_a_resumed_run_asks_again(tmp_path: Path) -> None:
    sweep = sweep_of(depths=5)
    broken = fake_bench(sweep, materials(), fails_after=700)
    rows = run_sweep(tmp_path, sweep, broken)
    failures = [row for row in rows if row["error"]]
    assert len(rows) == 2 * make_plan(sweep, materials()).questions
    assert 0 < len(failures) < len(rows)
    assert {row["error"] for row in failures} == {"MemoryError: the fake is full"}
    assert all(row["correct"] is None and row["outcome"] == "error" for row in failures)
    mended = run_sweep(tmp_path, sweep)
    assert not any(row["error"] for row in mended)
    assert answers(mended) == answers(run_sweep(tmp_path / "whole", sweep))


def test_a_finished_run_asks_nothing_again(tmp_path: Path) -> None:
    sweep = sweep_of()
    run_sweep(tmp_path, sweep)
    before = (tmp_path / "rows.jsonl").read_bytes()
    run_sweep(tmp_path, sweep, fake_bench(sweep, materials(), fails_after=0))
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def start(folder: Path, seconds_per_answer: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.niah.fake_run", str(folder), str(seconds_per_answer)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def finish(folder: Path) -> list[dict[str, Any]]:
    process = start(folder, 0)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told.decode()
    return row_dicts(folder)


@pytest.mark.slow
def test_a_run_killed_again_and_again_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = finish(tmp_path / "whole")
    rng = random.Random(0)
    seen = []
    for _ in range(6):
        process = start(tmp_path / "killed", 0.02)
        rows = tmp_path / "killed" / "rows.jsonl"
        before = rows.stat().st_size if rows.exists() else 0
        while process.poll() is None and (not rows.exists() or rows.stat().st_size == before):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        seen.append(len(row_dicts(tmp_path / "killed")))
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] < len(whole), "the kills should have come in mid-run"
    resumed = finish(tmp_path / "killed")
    assert answers(resumed) == answers(whole)
    lines = (tmp_path / "killed" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(whole) == len({json.loads(line)["key"] for line in lines})


def saved_tokenizer(folder: Path, **options: str) -> str:
    """The bundled tokenizer in transformers' layout; its name for `load_tokenizer`."""
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(BUNDLED_FILE), **options)
    fast.save_pretrained(folder)
    return f"hf:{folder}"


@pytest.mark.parametrize("same", [True, False])
def test_arms_read_the_same_tokens_whatever_their_tokenizers_are_called(
    tmp_path: Path, same: bool
) -> None:
    options = {} if same else {"eos_token": "<e>"}
    names = {
        "dense": saved_tokenizer(tmp_path / "one"),
        "sparse": saved_tokenizer(tmp_path / "two", **options),
    }

    def load(arm: Arm, _: Sweep) -> RecallModel:
        return RecallModel(tokenizer=TokenizerRef(names[arm.name]))

    sweep = sweep_of(corpora="kjv")
    if same:
        assert load_bench(sweep, load).materials.tokenizer.name == names["dense"]
    else:
        with pytest.raises(NiahError, match=r"dense reads hf:.*one, sparse reads hf:.*two"):
            load_bench(sweep, load)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tokenizer": TokenizerRef(BUNDLED_NAME, "0" * 16)}, "was trained with tokenizer 0000"),
        ({"tokenizer": None}, "no arm says which tokenizer"),
    ],
)
def test_a_model_that_does_not_fit_its_tokenizer_is_refused(
    settings: dict[str, object], told: str
) -> None:
    with pytest.raises(NiahError, match=told):
        load_bench(sweep_of(corpora="kjv"), lambda arm, sweep: RecallModel(**settings))  # type: ignore[arg-type]
