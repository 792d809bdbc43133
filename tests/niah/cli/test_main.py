"""The commands as a user calls them, on tiny random models: output, exit codes, one-line errors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file, save_file

from haystacks.tokenizer import BUNDLED_NAME, load_tokenizer
from models.deepseek_v4 import weights
from models.deepseek_v4.checkpoint_files import write_card
from models.deepseek_v4.loading import LoadedModel
from models.registry import load_model
from niah import waiting
from niah.cli import main as cli
from niah.errors import NiahError
from niah.execution.interrupts import Interrupts
from niah.gate import verdict
from niah.runs import export
from niah.statistics import intervals
from niah.statistics.power import smallest_detectable_tax
from niah.training import config as training
from niah.training.trainer import Trainer
from tests.niah.cli.conftest import Call
from tests.niah.rows import row_dicts
from tests.niah.training.test_trainer import TINY
from tests.synthetic_rows import Synthetic, write_run

ROOT = Path(__file__).parents[3]
SWEEP = {
    "name": "dry",
    "arms": [
        {"name": "dense", "role": "baseline", "model": "random-dense"},
        {"name": "v4", "role": "compressed", "model": "random-v4"},
        {
            "name": "v4-top8",
            "role": "compressed",
            "model": "random-v4",
            "options": {"index_topk": 8},
        },
    ],
    "corpora": "kjv",
    "families": "single_number",
    "lengths": [128, 256],
    "depths": [0, 1],
    "repeats": 1,
    "decoding": {"max_new_tokens": 2},
    "controls": ["no_needle"],
}
QUESTIONS = 2 * 2 + 2


def written(folder: Path, **changes: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(SWEEP | changes), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder."""
    folder = tmp_path_factory.mktemp("cli")
    out = folder / "run"
    command = [sys.executable, "-m", "niah", "run", str(written(folder)), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{3 * QUESTIONS} rows" in done.stdout
    assert "prompt tokens computed" in done.stdout
    assert "right answers / questions" in done.stdout
    assert done.stdout.count("tax, points lost") == 2  # an arm each
    return out


def test_a_run_writes_every_row_and_what_made_it(finished: Path) -> None:
    rows = row_dicts(finished)
    assert len(rows) == 3 * QUESTIONS
    assert {row["error"] for row in rows} == {None}
    environment = json.loads((finished / "environment.json").read_text(encoding="utf-8"))
    assert set(environment["models"]) == {"dense", "v4", "v4-top8"}
    assert len(set(environment["identity"]["models"].values())) == 3
    planned = [json.loads(line) for line in (finished / "planned.jsonl").read_text().splitlines()]
    assert len(planned) == QUESTIONS
    asked = {row["pair"]: row for row in rows}
    assert {question["pair"] for question in planned} == set(asked)
    for question in planned:
        assert question == {name: asked[question["pair"]][name] for name in question}
    assert yaml.safe_load((finished / "spec.yaml").read_text(encoding="utf-8"))["seed"] == 0


def test_the_same_command_again_asks_nothing(call: Call, finished: Path) -> None:
    before = (finished / "rows.jsonl").read_bytes()
    done = call("run", finished.parent / "sweep.yaml", "--out", finished)
    assert done.code == 0
    assert done.out.startswith(f"nothing is left to ask: {finished} holds an answer")
    assert done.out.count("tax, points lost") == 2
    assert (finished / "rows.jsonl").read_bytes() == before


def test_a_changed_sweep_is_refused(call: Call, finished: Path, tmp_path: Path) -> None:
    done = call("run", written(tmp_path, seed=9), "--out", finished)
    assert done.code == 2
    assert "was started with seed = 0, now 9; choose another --out" in done.err
    assert done.err.count("\n") == 1


def test_a_plan_says_what_a_sweep_costs_and_shows(call: Call, tmp_path: Path) -> None:
    done = call("plan", written(tmp_path))
    assert done.code == 0
    for told in (f"{QUESTIONS} questions", "cell by cell", "arm v4-top8: about", "detectable tax"):
        assert told in done.out
    assert not list(tmp_path.glob("results"))


def test_a_plan_says_what_each_length_can_show_and_what_one_stream_cannot(
    call: Call, tmp_path: Path
) -> None:
    sweep = {"max_needle_share": 1.0, "depths": 8, "lengths": ["1K", "2K"]}
    alone = call("plan", written(tmp_path, **sweep)).out.split("detectable tax")[1]
    assert [line.count("too few streams") for line in alone.splitlines()[2:5]] == [2, 2, 2]
    told = call("plan", written(tmp_path, **sweep, repeats=4)).out.split("detectable tax")[1]
    found = {line.split()[0]: line.split()[1:] for line in told.splitlines()[2:5]}
    assert {name: numbers[:2] for name, numbers in found.items()} == {
        "all": ["64", "4"],
        "1K": ["32", "4"],
        "2K": ["32", "4"],
    }
    now, doubled = map(float, found["1K"][2:])
    overall = float(found["all"][2])
    assert doubled < now
    assert overall < now
    assert overall == pytest.approx(100 * (smallest_detectable_tax([16] * 4, 0.03) or 0), abs=0.05)


def test_plan_says_what_streams_share(call: Call, tmp_path: Path) -> None:
    sweep = {"max_needle_share": 1.0, "depths": 2, "lengths": ["64K"], "repeats": 40}
    told = " ".join(call("plan", written(tmp_path, **sweep)).out.split())
    assert "note: Streams of kjv share text: on average" in told
    assert "share text" not in call("plan", written(tmp_path, **sweep | {"repeats": 2})).out


def test_plan_says_how_many_streams_a_pass_takes(call: Call, tmp_path: Path) -> None:
    sweep = {"max_needle_share": 1.0, "depths": 8, "lengths": ["1K", "2K"]}
    two = call("plan", written(tmp_path, **sweep, repeats=2), "--max-tax", "0.05").out
    assert "can decide nothing: worth 2.0, where 3 are needed" in " ".join(two.split())
    enough = call("plan", written(tmp_path, **sweep, repeats=4), "--max-tax", "0.05").out
    four = " ".join(enough.split())
    assert "4 streams cannot pass at 5.0 points, even if no pair differs" in four
    assert "streams (repeats:" in four
    wrong = call("plan", written(tmp_path, **sweep), "--max-tax", "0")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "0.0 is no share above 0 and below 1" in wrong.err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lengths": ["4M"]}, "lengths = 4194304: corpus kjv has"),
        ({"lengths": [16]}, "lengths = 16: family single_number needs"),
        ({"corpora": "quran"}, "'quran' is not one of"),
        ({"families": "magic"}, "'magic' is not one of"),
        (
            {"arms": [{"name": "a", "role": "baseline", "model": "gpt-9"}]},
            "arm a: model: got 'gpt-9'",
        ),
        (
            {
                "arms": [
                    {
                        "name": "a",
                        "role": "baseline",
                        "model": "random-v4",
                        "options": {"index_top": 1},
                    }
                ]
            },
            "arm a: options: got 'index_top'",
        ),
        ({"max_memory_gb": 1e-6}, "more than the 1e-06 GB of max_memory_gb"),
        ({"depth": 3}, "depth: no such field"),
        ({"threads": 2048}, "threads = 2048: this machine has"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    call: Call, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    done = call("run", written(tmp_path, **changes), "--out", tmp_path / "run")
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_an_absent_file_and_an_unknown_option_exit_with_2(call: Call, tmp_path: Path) -> None:
    assert call("run", tmp_path / "none.yaml").code == 2
    assert call("run", "--fast").code == 2
    assert call("report", tmp_path).code == 2
    assert call("gate", tmp_path, "--max-tax", "0.1").code == 2


def test_a_question_is_shown_with_every_arms_answer(call: Call, finished: Path) -> None:
    row = next(row for row in row_dicts(finished) if row["control"] is None)
    done = call("show", finished, row["key"][:8])
    assert done.code == 0
    assert f"[{row['needle_start']}..{row['needle_end']}) >>>" in done.out
    assert f"{row['gold'][0]}. <<<" in done.out
    assert row["question"] in done.out
    for arm in ("dense", "v4", "v4-top8"):
        assert f"\n{arm} (" in done.out


def test_a_control_is_shown_without_a_needle(call: Call, finished: Path) -> None:
    row = next(row for row in row_dicts(finished) if row["control"])
    assert ">>>" not in call("show", finished, row["key"]).out


@pytest.mark.parametrize(
    ("key", "told"), [("zz", "no row key starts with zz"), ("", "18 row keys start with ''")]
)
def test_a_key_that_names_no_question_is_refused(
    call: Call, finished: Path, key: str, told: str
) -> None:
    done = call("show", finished, key)
    assert done.code == 2
    assert told in done.err


def test_a_reference_has_nothing_to_show_or_export(
    call: Call, finished: Path, tmp_path: Path
) -> None:
    reference, out = tmp_path / "reference", tmp_path / "out" / "a.jsonl"
    assert call("accept", finished, reference).code == 0
    key = row_dicts(reference)[0]["key"]
    for done in (call("show", reference, key), call("export", reference, out)):
        assert done.code == 2
        assert "its rows lack answer; a reference of `niah accept` keeps" in done.err
        assert done.err.count("\n") == 1
    assert not out.parent.exists()


def test_an_export_that_fails_halfway_leaves_nothing(
    call: Call, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = dict(export.SHAPES)

    def fails_at_third(index: int, *rest: object) -> dict[str, object]:
        if index == 2:
            raise NiahError("no such field")
        return shapes["ruler"](index, *rest)  # type: ignore[arg-type]

    monkeypatch.setitem(export.SHAPES, "ruler", fails_at_third)
    done = call("export", finished, tmp_path / "a.jsonl")
    assert (done.code, done.err) == (2, "niah: no such field\n")
    assert not list(tmp_path.iterdir())


def test_an_export_of_an_arm_and_what_it_may_not_replace(
    call: Call, finished: Path, tmp_path: Path
) -> None:
    rows = row_dicts(finished)
    arm = rows[-1]["arm"]
    out = tmp_path / "a.jsonl"
    assert call("export", finished, out, "--arm", arm).code == 0
    kept = [json.loads(line)["pred"] for line in out.read_text(encoding="utf-8").splitlines()]
    asked = [row for row in rows if row["arm"] == arm]
    assert kept == [row["answer"] for row in asked if row["control"] is None]
    assert len(kept) < len(asked)  # other tools would average over controls
    done = call("export", finished, out, "--arm", "v5")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "arm 'v5' is not in this run" in done.err
    done = call("export", finished, tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"{tmp_path} is a folder; name a file" in done.err
    done = call("export", finished, "/dev/null")
    assert (done.code, done.err) == (2, "niah: /dev/null: is no regular file\n")


@pytest.mark.parametrize("shape", ["ruler", "lm-eval"])
def test_exports_hold_every_prompt_and_answer(
    call: Call, finished: Path, tmp_path: Path, shape: str
) -> None:
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    for path in (lines, table):
        assert call("export", finished, path, "--shape", shape, "--controls").code == 0
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    rows = row_dicts(finished)
    assert [as_written(record) for record in pq.read_table(table).to_pylist()] == records
    assert len(records) == len(rows)
    for record, row in zip(records, rows, strict=True):
        doc = record if shape == "ruler" else record["doc"]
        assert doc["input"].endswith(row["question"])
        assert doc["outputs"] == row["gold"]
        said = record["pred"] if shape == "ruler" else record["resps"][0][0]
        assert said == row["answer"]
        told = record["others"] if shape == "ruler" else doc
        assert told["control"] == row["control"]
        again = load_tokenizer(BUNDLED_NAME).encode(doc["input"])
        assert told["tokenises_back"] in (True, False)
        assert len(again) == row["length"] or not told["tokenises_back"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.parquet"]


def test_arms_number_their_questions_alike(call: Call, finished: Path, tmp_path: Path) -> None:
    """Rows come in another order where a run grew, or where workers had its jobs."""
    run, found = tmp_path / "run", []
    shutil.copytree(finished, run)
    rows = (run / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    mine = [line for line in rows if '"arm":"v4"' in line]
    others = [line for line in rows if line not in mine]
    (run / "rows.jsonl").write_text("".join([*others, *reversed(mine)]), encoding="utf-8")
    for arm in ("dense", "v4"):
        out = tmp_path / f"{arm}.jsonl"
        assert call("export", run, out, "--shape", "lm-eval", "--arm", arm).code == 0
        records = map(json.loads, out.read_text(encoding="utf-8").splitlines())
        found.append({record["doc_id"]: record["doc"]["pair"] for record in records})
    assert found[0] == found[1]
    assert len(found[0]) == 4


def as_written(record: dict[str, object]) -> dict[str, object]:
    """A Parquet record with its JSON texts read: dictionaries, and lm-eval's arguments."""
    nested = {name: record[name] for name in ("others", "doc", "arguments") if name in record}
    return record | {name: json.loads(str(text)) for name, text in nested.items()}


@pytest.mark.parametrize(
    ("kept", "code", "verdict"), [(1.0, 0, "PASS"), (0.5, 1, "FAIL"), (0.93, 3, "INCONCLUSIVE")]
)
def test_a_gate_ends_with_its_verdicts_code_and_writes_its_forms(
    call: Call, tmp_path: Path, kept: float, code: int, verdict: str
) -> None:
    arms = {"dense": lambda *_: 1.0, "v4": lambda *_: kept}
    run = write_run(tmp_path / "run", Synthetic((1024, 4096), repeats=9, arms=arms))
    forms = {f"--{form}": tmp_path / f"gate.{form}" for form in ("json", "junit", "markdown")}
    done = call("gate", run, "--max-tax", 0.06, *(part for form in forms.items() for part in form))
    assert (done.code, done.err) == (code, "")
    assert done.out.startswith(verdict)
    content = json.loads(forms["--json"].read_text(encoding="utf-8"))
    assert (content["exit_code"], content["verdict"]) == (code, verdict.lower())
    suite = ElementTree.fromstring(forms["--junit"].read_text(encoding="utf-8"))
    assert (suite.attrib["failures"] != "0") == (code == 1)
    assert (suite.attrib["errors"] != "0") == (code == 3)
    assert verdict in forms["--markdown"].read_text(encoding="utf-8")


def test_a_gate_makes_the_folders_of_its_forms(call: Call, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Synthetic((1024,), repeats=2))
    form = tmp_path / "not" / "there" / "gate.json"
    call("gate", run, "--max-tax", 0.06, "--json", form)
    assert json.loads(form.read_text(encoding="utf-8"))["max_tax"] == 0.06


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("gate", "run", "--max-tax", "two"), "'--max-tax': 'two' is no number; see niah gate"),
        (("report", "run", "--floor", "half"), "'--floor': 'half' is no number; see niah report"),
        (("gate", "run"), "Missing option '--max-tax'; see niah gate --help"),
        (("gate", "run", "--margin", "1"), "No such option: --margin"),
        (("judge",), "No such command 'judge'; see niah --help"),
    ],
)
def test_wrong_usage_is_one_line(call: Call, arguments: tuple[str, ...], reason: str) -> None:
    done = call(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert reason in done.err


def test_no_arguments_ask_for_help(call: Call) -> None:
    done = call()
    assert done.code == 0
    assert "gate" in done.out


@pytest.mark.parametrize("name", ["spec.yaml", "environment.json"])
@pytest.mark.parametrize("content", ["", "{", "- a list"])
def test_a_damaged_file_is_named_on_resume(
    call: Call, finished: Path, tmp_path: Path, name: str, content: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / name).write_text(content, encoding="utf-8")
    done = call("run", written(tmp_path), "--out", run)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert str(run / name) in done.err


def test_a_gate_against_an_earlier_run(call: Call, tmp_path: Path) -> None:
    made = Synthetic((1024,), repeats=8, arms={"v4": lambda *_: 1.0})
    before = write_run(tmp_path / "before", made)
    worse = write_run(tmp_path / "worse", replace(made, arms={"v4": lambda *_: 0.5}))
    assert call("gate", before, "--max-tax", 0.1).code == 2  # one arm, nothing to compare it with
    assert call("gate", before, "--against", before, "--max-tax", 0.1).code == 0
    done = call("gate", worse, "--against", before, "--max-tax", 0.1)
    assert done.code == 1
    assert f"FAIL {worse} against {before}" in done.out


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--max-slice-tax", "-1", "max_slice_tax is -1.0; a share from 0 to less than 1"),
        ("--alpha", "0", "alpha is 0.0; a share above 0 and below 0.5"),
        ("--slice", "colour", "slice 'colour' is not one of"),
    ],
)
def test_a_gate_that_cannot_be_is_one_line(
    call: Call, tmp_path: Path, option: str, value: str, told: str
) -> None:
    run = write_run(tmp_path / "run", Synthetic((1024,), repeats=2))
    done = call("gate", run, "--max-tax", 0.1, option, value)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1


def test_a_report_is_written_where_it_is_said(call: Call, finished: Path, tmp_path: Path) -> None:
    done = call("report", finished, "--out", tmp_path)
    assert done.code == 0
    assert f"report: {tmp_path / 'index.html'}" in done.out
    assert (tmp_path / "index.html").stat().st_size > 10_000


def test_a_report_is_printed(call: Call, finished: Path, tmp_path: Path) -> None:
    done = call("report", finished, "--terminal")
    assert done.code == 0
    assert done.out.count("tax, points lost") == 2


def test_a_report_is_written_as_files(call: Call, finished: Path, tmp_path: Path) -> None:
    done = call("report", finished, "--format", "csv", "--out", tmp_path / "tables")
    assert done.code == 0
    assert f"{tmp_path / 'tables' / 'heatmap.csv'}\n" in done.out
    assert len(done.out.splitlines()) == len(list((tmp_path / "tables").iterdir()))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--format", "pdf"), "format is 'pdf'; it should be html, png, svg, csv, md"),
        (("--format", "png", "--out", "page.html"), "png files need a folder"),
        (("--terminal", "--format", "md"), "--terminal writes nothing"),
        (("--floor", "50"), "floor is 50.0; a share from 0 to 1"),
    ],
)
def test_a_report_that_cannot_be_is_one_line(
    call: Call,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("report", finished, *arguments)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["models", "corpora", "needles"])
def test_lists_name_what_there_is(call: Call, command: str) -> None:
    named = {"models": "nano-v4", "corpora": "kjv", "needles": "single_number"}
    assert f"\n{named[command]} " in f"\n{call(command).out}"


def test_costs_are_listed_for_published_and_own_models(call: Call) -> None:
    done = call("cost", "v4-pro", "random-v4", "--length", "4096")
    assert done.code == 0
    assert done.out == call("cost", "v4-pro", "random-v4", "--length", "4K").out
    assert "v4-pro" in done.out
    assert "random-v4" in done.out
    assert call("cost", "--claims").code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--length", "0"], "--length: '0' should be 1 at least"),
        (["--length", "4KB"], "--length: '4KB' should be a count of tokens, such as 4096 or 4K"),
        (["gpt-9"], "model: got 'gpt-9', expected one of v3.2, v4-pro, v4-flash, v4.1-flash, gqa8"),
        (["gqa8", "--layout", "v4"], "layout: v4 stores latent entries"),
        (["--block", "16"], "block: got 16, expected a multiple of 128"),
        (["--memory", "80", "--weights", "1GB"], "--memory: got '80', expected a size with a unit"),
        (["--memory", "80GB"], "--memory needs --weights"),
        (["--cards", "4"], "--weights, --cards, --reserve and --split need --memory"),
        (["--memory", "80GB", "--weights", "1TB"], "weights: 1,000.0 GB on 1 × 80.0 GB"),
        (["none/config.json"], "none/config.json: cannot be read: No such file"),
        (["hf:owner/name"], "model: 'hf:owner/name' is no folder here"),
        (["--claims", "v4-pro"], "--claims checks published figures"),
        (["--claims", "--layout", "nvfp4"], "--claims checks published figures"),
        (["--claims", "--weights", "5GB"], "--claims checks published figures"),
    ],
)
def test_costs_that_cannot_be_told(call: Call, arguments: list[str], told: str) -> None:
    done = call("cost", *arguments)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1


def test_help_names_every_command(call: Call) -> None:
    done = call("--help")
    assert done.code == 0
    commands = ("plan", "run", "report", "gate", "show", "export", "cost", "train", "models")
    assert all(f" {command} " in done.out for command in (*commands, "corpora", "needles"))


def test_defaults_are_those_of_the_rooms_below() -> None:
    assert cli.FLOOR == intervals.BASELINE_FLOOR
    assert cli.ALPHA == verdict.ALPHA
    assert cli.MAX_SEED == training.MAX_SEED


def test_a_run_that_goes_on_says_what_is_left(call: Call, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    for repeats in (1, 2):
        sweep.write_text(yaml.safe_dump({**SWEEP, "repeats": repeats}), encoding="utf-8")
        run = call("run", sweep, "--out", tmp_path / "run")
        assert run.code == 0
        each = ", ".join(f"{arm['name']} {QUESTIONS}" for arm in SWEEP["arms"])
        assert (f"left to ask of 12 questions each: {each}" in run.out) == (repeats == 2)


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    config = written(tmp_path, lengths=[1024, 4096], depths=11)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "niah", "run", str(config), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    rows = out / "rows.jsonl"
    while process.poll() is None and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    assert 0 < len(row_dicts(out)) < 3 * 2 * 12


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_says_so_and_goes_on(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sent: signal.Signals
) -> None:
    config, out = tmp_path / "train.yaml", tmp_path / "trained"
    config.write_text(yaml.safe_dump(TINY | {"keep_buffers": False}), encoding="utf-8")
    steps = Trainer._steps

    def killed_in_the_second_step(self: Trainer) -> Iterator[Callable[[], dict[str, float]]]:
        for take_figures in steps(self):
            if self.step == 2:
                os.kill(os.getpid(), sent)
            yield take_figures

    monkeypatch.setattr(Trainer, "_steps", killed_in_the_second_step)
    stopped = call("train", config, "--arm", "dense", "--out", out)
    assert stopped.code == 130
    assert "checkpoint" not in stopped.out
    told = stopped.err.splitlines()[-1]  # the bar's lines come before
    assert told.startswith("stopped after step 2 of 6;")
    assert told.endswith("the same command goes on from there")

    finished = call("train", config, "--arm", "dense", "--out", out)
    assert (finished.code, finished.out) == (0, f"checkpoint: {out / 'dense'}\n")


def test_an_interrupt_that_a_library_swallows_still_stops_the_run() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        interrupts.check()
        with suppress(KeyboardInterrupt):  # as a callback inside a compiler does
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(
    f"typer=={version('typer')}\n" not in (ROOT / "constraints.txt").read_text(encoding="utf-8"),
    reason="another release of typer words it otherwise",
)
def test_the_command_line_reference_is_current() -> None:
    """`make docs` writes it anew."""
    written = subprocess.run(
        [sys.executable, "-m", "typer", "niah.cli.main", "utils", "docs", "--name", "niah"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.stdout.strip() == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize(("before", "after"), [(None, waiting.LOOKS), ("7", "7")])
def test_waiting_threads_sleep_soon_unless_told_otherwise(
    call: Call, monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    monkeypatch.delenv(waiting.VARIABLE, raising=False)
    if before:
        monkeypatch.setenv(waiting.VARIABLE, before)
    assert call("needles").code == 0
    assert os.environ[waiting.VARIABLE] == after


def test_the_version_is_told(call: Call) -> None:
    done = call("--version")
    assert (done.code, done.out) == (0, f"niah {version('niah-harness')}\n")


@pytest.mark.parametrize("name", ["models", "haystacks"])
def test_another_package_of_a_name_of_ours_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("", encoding="utf-8")
    command = [sys.executable, "-m", "niah", "models"]
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"niah: {name}: Python finds {tmp_path / name}")


def test_a_model_that_computes_no_number_gives_errors_and_no_tax(
    call: Call, tmp_path: Path
) -> None:
    """NaN in one weight: once this read as 100 points of forgetting."""
    broken = load_model("random-v4")
    assert isinstance(broken, LoadedModel)
    folder = tmp_path / "broken"
    weights.save(broken.network, folder)
    write_card(folder, broken.card)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    arms = [SWEEP["arms"][0], {"name": "v4", "role": "compressed", "model": f"path:{folder}"}]  # type: ignore[index]
    done = call("run", written(tmp_path, arms=arms, controls=[]), "--out", tmp_path / "run")
    assert done.code == 1
    rows = [row for row in row_dicts(tmp_path / "run") if row["arm"] == "v4"]
    assert {row["outcome"] for row in rows} == {"error"}
    assert all("logits are not finite after token" in row["error"] for row in rows)
    gated = call("gate", tmp_path / "run", "--max-tax", 0.5)
    assert gated.code == 3
