"""A run may grow: what was asked stays, what is new is asked, and who asked is kept."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from haystacks.corpora.registry import Corpus
from haystacks.needles.registry import FamilyError
from haystacks.tokenizer import BUNDLED_FILE, load_tokenizer
from niah.errors import ChangedError, NiahError
from niah.execution.jobs import Tally, open_store
from niah.execution.loading import load_materials
from niah.execution.sweeps import ask_what_is_left
from niah.runs.archive import open_archive, run_tokenizer, show_lines
from niah.runs.history import (
    asked_sweeps,
    earlier_sweeps,
    identity_changes,
    read_environment,
    read_history,
)
from niah.runs.store import is_finished, read_planned
from niah.sweep.config import Sweep, load_sweep
from niah.sweep.planner import Materials, make_plan
from tests.niah.fakes import fake_bench, sweep_of, tiny_materials
from tests.niah.rows import row_dicts

BASE: dict[str, object] = {"depths": [0.0, 1.0], "lengths": [512], "repeats": 2}
THIRD = {"name": "third", "role": "compressed", "model": "forgetful"}
ARMS = [
    {"name": "dense", "role": "baseline", "model": "perfect"},
    {"name": "sparse", "role": "compressed", "model": "forgetful"},
]
GROWN: dict[str, dict[str, object]] = {
    "repeats": {"repeats": 4},
    "lengths": {"lengths": [512, 1024]},
    "depths": {"depths": [0.0, 0.5, 1.0]},
    "families": {"families": ["single_number", "multi_key"]},
    "corpora": {"corpora": ["tiny", "other"]},
    "wordings": {"templates": ["trained", "unseen"]},
    "controls": {"controls": ["no_needle", "question_only"]},
    "questions alone": {"controls": ["question_only"]},
    "arms": {"arms": [*ARMS, THIRD]},
    "all": {
        "repeats": 3,
        "lengths": [1024, 512],
        "depths": [1.0, 0.0, 0.25],
        "controls": ["question_only"],
        "arms": [THIRD, *ARMS],
    },
}
LAYOUTS = pytest.mark.parametrize("layout", ["stream", "isolated"])


@cache
def materials() -> Materials:
    tiny = tiny_materials(20_000)
    other: Corpus = replace(tiny.corpora["tiny"], name="other")
    return replace(tiny, corpora={**tiny.corpora, "other": other})


def run(folder: Path, sweep: Sweep) -> int:
    """Ask what is left; how many rows that gave."""
    used = replace(materials(), corpora={name: materials().corpora[name] for name in sweep.corpora})
    bench = fake_bench(sweep, used)
    plan = make_plan(sweep, used, earlier_sweeps(folder, sweep))
    tally = Tally()
    with open_store(folder, plan, bench) as store:
        ask_what_is_left(plan, bench, store, lambda arm, tokens: None, tally)
    assert is_finished(folder, sweep.model_dump(mode="json"), bench.identity())
    return tally.rows


@LAYOUTS
@pytest.mark.parametrize("what", GROWN)
def test_a_run_grows_by_what_is_new(tmp_path: Path, what: str, layout: str) -> None:
    small = sweep_of(**BASE, layout=layout)
    large = sweep_of(**(BASE | GROWN[what]), layout=layout)
    run(tmp_path, small)
    before = {row["key"]: row for row in row_dicts(tmp_path)}
    whole = make_plan(large, materials()).questions * len(large.arms)
    assert run(tmp_path, large) == whole - len(before)
    rows = {row["key"]: row for row in row_dicts(tmp_path)}
    assert len(rows) == whole
    assert {key: rows[key] for key in before} == before
    assert not any(row["error"] for row in rows.values())
    place = ("arm", "corpus", "repeat", "family", "template_split", "control")
    cells = [
        tuple(row[name] for name in (*place, "requested_length", "depth")) for row in rows.values()
    ]
    assert len(set(cells)) == len(cells)
    assert {q["pair"] for q in read_planned(tmp_path)} == {row["pair"] for row in rows.values()}
    assert run(tmp_path, large) == 0
    with pytest.raises(ChangedError, match="a run may only grow"):
        run(tmp_path, small)


def test_a_changed_file_of_needles_is_named_and_a_further_one_is_none() -> None:
    before = {"models": {}, "corpora": {}}
    with_file = before | {"families": {"file:/n.jsonl": "1"}}
    assert identity_changes(before, with_file) == []
    assert (
        identity_changes(with_file, before | {"families": {"file:/n.jsonl": "1", "b": "2"}}) == []
    )
    changed = identity_changes(with_file, before | {"families": {"file:/n.jsonl": "2"}})
    assert changed == ['families.file:/n.jsonl = "1", now "2"']


def test_further_repeats_are_those_of_a_run_that_asked_them_at_once(tmp_path: Path) -> None:
    small, large = sweep_of(repeats=2), sweep_of(repeats=5)
    run(tmp_path, small)
    run(tmp_path, large)
    pairs = {trial.pair for _, trial in make_plan(large, materials()).trials()}
    assert {row["pair"] for row in row_dicts(tmp_path)} == pairs


def test_no_two_questions_of_a_grown_repeat_share_a_fact(tmp_path: Path) -> None:
    small, large = sweep_of(depths=2), sweep_of(depths=5)
    plan = make_plan(large, materials(), [small])
    for repeat in range(large.repeats):
        keys = [t.fact.key for s, t in plan.trials() if s.repeat == repeat]
        assert len(set(keys)) == len(keys)


def test_a_run_may_grow_twice_and_every_prompt_is_found_again(tmp_path: Path) -> None:
    sweeps = [
        sweep_of(depths=[0.0]),
        sweep_of(depths=[0.0, 1.0]),
        sweep_of(depths=[0.0, 0.5, 1.0], repeats=3),
    ]
    for sweep in sweeps:
        run(tmp_path, sweep)
    kept = asked_sweeps(tmp_path)
    assert kept == [sweep.model_dump(mode="json") for sweep in sweeps]
    plan = make_plan(sweeps[-1], materials(), sweeps[:-1])
    assert {t.pair for _, t in plan.trials()} == {row["pair"] for row in row_dicts(tmp_path)}


def test_the_label_of_an_arm_may_change(tmp_path: Path) -> None:
    asked = run(tmp_path, sweep_of(**BASE))
    labelled = [arm | {"technique": "eviction"} for arm in ARMS]
    assert asked
    assert run(tmp_path, sweep_of(**(BASE | {"arms": labelled}))) == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 9}, "seed = 0, now 9"),
        ({"repeats": 1}, "repeats = 2, now 1"),
        ({"lengths": [1024]}, "lengths = [512], now [1024]"),
        ({"depths": [0.0]}, "depths = [0.0, 1.0], now [0.0]"),
        ({"layout": "isolated"}, 'layout = "stream", now "isolated"'),
        ({"arms": ARMS[:1]}, "arms.sparse = "),
        ({"arms": [ARMS[0], ARMS[1] | {"model": "other"}]}, 'arms.sparse.model = "forgetful"'),
    ],
)
def test_what_was_asked_is_not_taken_back(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    run(tmp_path, sweep_of(**BASE))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ChangedError) as refused:
        earlier_sweeps(tmp_path, sweep_of(**(BASE | changes)))
    assert told in str(refused.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_plan_made_before_another_process_grew_the_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path, sweep_of(**BASE))
    late = sweep_of(**(BASE | GROWN["all"] | {"families": ["single_number", "multi_key"]}))
    plan = make_plan(late, materials(), earlier_sweeps(tmp_path, late))
    run(tmp_path, sweep_of(**(BASE | GROWN["all"])))
    with pytest.raises(ChangedError, match="has grown meanwhile"):
        open_store(tmp_path, plan, fake_bench(late, materials()))


@pytest.mark.parametrize("lost", ["spec.yaml", "planned.jsonl"])
def test_a_growth_cut_off_between_two_files_is_made_good(tmp_path: Path, lost: str) -> None:
    """environment.json decides: the others are written from it again."""
    small, large = sweep_of(**BASE), sweep_of(**(BASE | GROWN["lengths"]))
    run(tmp_path, small)
    old = (tmp_path / lost).read_bytes()
    run(tmp_path, large)
    new = (tmp_path / lost).read_bytes()
    (tmp_path / lost).write_bytes(old)
    plan = make_plan(large, materials(), earlier_sweeps(tmp_path, large))
    used = replace(materials(), corpora={"tiny": materials().corpora["tiny"]})
    open_store(tmp_path, plan, fake_bench(large, used)).close()
    assert (tmp_path / lost).read_bytes() == new


def test_every_invocation_that_wrote_rows_is_kept(tmp_path: Path) -> None:
    run(tmp_path, sweep_of(repeats=1))
    first = len(row_dicts(tmp_path))
    run(tmp_path, sweep_of(repeats=1))
    run(tmp_path, sweep_of(repeats=2))
    history = read_history(tmp_path)
    assert history is not None
    assert [entry["from_row"] for entry in history.runs] == [0, first]
    assert all(entry["python"] and entry["started"] for entry in history.runs)
    environment = read_environment(tmp_path)
    assert environment["python"] == history.runs[0]["python"]
    assert set(environment["models"]) == {"dense", "sparse"}
    assert [entry["from_row"] for entry in environment["resumed"]] == [first]


def test_an_environment_of_before_is_read_and_kept(tmp_path: Path) -> None:
    """One mapping: the machine, `models` and `identity` side by side."""
    run(tmp_path, sweep_of(repeats=1))
    history = read_history(tmp_path)
    assert history is not None
    old = {"cpu": "another", "models": history.models, "identity": history.identity}
    (tmp_path / "environment.json").write_text(json.dumps(old))
    assert read_environment(tmp_path) == old
    run(tmp_path, sweep_of(repeats=2))
    now = read_history(tmp_path)
    assert now is not None
    assert [entry.get("cpu") == "another" for entry in now.runs] == [True, False]
    assert (now.identity, now.models) == (history.identity, history.models)
    assert read_environment(tmp_path)["cpu"] == "another"


def test_a_sweep_of_before_that_lacks_a_field_has_its_default(tmp_path: Path) -> None:
    run(tmp_path, sweep_of(repeats=1))
    spec = tmp_path / "spec.yaml"
    spec.write_text("".join(x for x in spec.read_text().splitlines(True) if "spread:" not in x))
    assert run(tmp_path, sweep_of(repeats=1)) == 0


@pytest.mark.parametrize("missing", ["rows.jsonl", "planned.jsonl", "spec.yaml"])
def test_a_run_that_lacks_a_file_is_not_finished(tmp_path: Path, missing: str) -> None:
    sweep = sweep_of(repeats=1)
    run(tmp_path, sweep)
    bench = fake_bench(sweep, replace(materials(), corpora={"tiny": materials().corpora["tiny"]}))
    spec = sweep.model_dump(mode="json")
    assert is_finished(tmp_path, spec, bench.identity())
    assert not is_finished(tmp_path, spec | {"repeats": 2}, bench.identity())
    other = bench.identity() | {"models": {"dense": "other", "sparse": "other"}}
    with pytest.raises(NiahError, match=r"models\.dense"):
        is_finished(tmp_path, spec, other)
    (tmp_path / missing).unlink()
    assert not is_finished(tmp_path, spec, bench.identity())


def test_a_run_that_lacks_an_answer_is_not_finished(tmp_path: Path) -> None:
    sweep = sweep_of(repeats=1)
    run(tmp_path, sweep)
    bench = fake_bench(sweep, replace(materials(), corpora={"tiny": materials().corpora["tiny"]}))
    *lines, last = (tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)
    row = json.loads(last) | {"error": "MemoryError: full", "correct": None}
    for ending in ("", json.dumps(row) + "\n"):
        (tmp_path / "rows.jsonl").write_text("".join([*lines, ending]))
        assert not is_finished(tmp_path, sweep.model_dump(mode="json"), bench.identity())


def test_a_local_text_is_found_from_where_the_run_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    (made / "texts").mkdir(parents=True)
    words = " ".join(f"w{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}" for i in range(4000))
    (made / "texts" / "own 😀.txt").write_text(words, encoding="utf-8")
    monkeypatch.setenv("NIAH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(made)
    from haystacks.corpora.registry import load_corpus

    name = "file:texts/own 😀.txt"
    sweep = sweep_of(corpora=[name], lengths=[512], depths=2, repeats=1)
    text = load_corpus(name, materials().tokenizer)
    used = replace(materials(), corpora={name: text})
    bench = fake_bench(sweep, used)
    for _ in range(2):  # the second time it resumes
        plan = make_plan(sweep, used, earlier_sweeps(Path("run"), sweep))
        with open_store(Path("run"), plan, bench) as store:
            ask_what_is_left(plan, bench, store, lambda arm, tokens: None, Tally())
    monkeypatch.chdir(tmp_path)
    row = row_dicts(made / "run")[0]
    shown = "\n".join(show_lines(made / "run", row["key"]))
    assert f"{row['gold'][0]}. <<<" in shown
    assert len(open_archive(made / "run").places) == 2


def test_a_local_tokenizer_is_found_from_where_the_run_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    made = tmp_path / "made"
    bundled = load_tokenizer("bundled-bpe-2048")
    own = transformers.PreTrainedTokenizerFast(tokenizer_file=str(BUNDLED_FILE))
    own.save_pretrained(made / "own")
    facts = {"identity": {"tokenizer_name": "hf:./own"}, "runs": [{"working_folder": ".."}]}
    (made / "run").mkdir()
    (made / "run" / "environment.json").write_text(json.dumps(facts), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run_tokenizer(made / "run").encode("the toll at gate") == bundled.encode(
        "the toll at gate"
    )


def test_a_family_of_a_file_has_the_name_that_the_user_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In rows, plan, sweep and identity; its prompts are found again from any other folder."""
    made = tmp_path / "made"
    (made / "configs").mkdir(parents=True)
    lines = [
        {
            "fact": f"The toll at gate {n} is {700 + n}.",
            "question": f"Gate {n}?",
            "answer": f"{700 + n}",
        }
        for n in range(11, 20)
    ]
    needles = made / "configs" / "needles.jsonl"
    needles.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    name = "file:needles.jsonl"
    fields: dict[str, object] = {"corpora": "manual", "lengths": [512], "depths": 2, "repeats": 1}
    spec = sweep_of(families=[name], **fields).model_dump(mode="json")
    (made / "configs" / "sweep.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    monkeypatch.chdir(made)
    run = made / "run"

    def ask() -> int:
        sweep = load_sweep(Path("configs") / "sweep.yaml")
        used = load_materials(sweep, materials().tokenizer)
        bench, tally = fake_bench(sweep, used), Tally()
        plan = make_plan(sweep, used, earlier_sweeps(run, sweep))
        with open_store(run, plan, bench) as store:
            ask_what_is_left(plan, bench, store, lambda arm, tokens: None, tally)
        return tally.rows

    assert ask() > 0
    assert ask() == 0
    rows = row_dicts(run)
    assert {row["family"] for row in rows} == {name}
    for file in ("rows.jsonl", "planned.jsonl", "spec.yaml", "environment.json"):
        assert str(needles) not in (run / file).read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "toll at gate" in "\n".join(show_lines(run, rows[0]["key"]))
    monkeypatch.chdir(made)
    needles.write_text(json.dumps(lines[0]), encoding="utf-8")
    with pytest.raises(ChangedError, match=r"families\.file:needles\.jsonl"):
        ask()
    needles.write_text("{", encoding="utf-8")
    with pytest.raises(FamilyError, match=r"^family: needles\.jsonl, line 1"):
        ask()
