"""The commands as a user calls them, on tiny random models: output, exit codes, one-line errors."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq
import pytest
import yaml

from niah import cli, gate, stats
from niah.store import read_rows

ROOT = Path(__file__).parents[2]
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


class Called(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Called]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`niah ARGUMENTS` in this process."""

    def called(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["niah", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        return Called(code if isinstance(code, int) else 0, *capsys.readouterr())

    return called


def written(folder: Path, **changes: object) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(SWEEP | changes), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder."""
    folder = tmp_path_factory.mktemp("cli")
    out = folder / "run"
    command = [sys.executable, "-m", "niah.cli", "run", str(written(folder)), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{3 * QUESTIONS} rows" in done.stdout
    assert "prompt tokens computed" in done.stdout
    assert "right answers / questions" in done.stdout
    assert done.stdout.count("tax, points lost") == 2  # an arm each
    return out


def test_a_run_writes_every_row_and_what_made_it(finished: Path) -> None:
    rows = read_rows(finished)
    assert len(rows) == 3 * QUESTIONS
    assert {row["error"] for row in rows} == {None}
    environment = json.loads((finished / "environment.json").read_text(encoding="utf-8"))
    assert set(environment["models"]) == {"dense", "v4", "v4-top8"}
    assert len(set(environment["identity"]["models"].values())) == 3
    assert yaml.safe_load((finished / "spec.yaml").read_text(encoding="utf-8"))["seed"] == 0


def test_the_same_command_again_asks_nothing(call: Call, finished: Path) -> None:
    before = (finished / "rows.jsonl").read_bytes()
    done = call("run", finished.parent / "sweep.yaml", "--out", finished)
    assert done.code == 0
    assert "0 rows in" in done.out
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


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lengths": ["4M"]}, "lengths = 4194304: corpus kjv has"),
        ({"lengths": [16]}, "lengths = 16: family single_number needs"),
        ({"corpora": "quran"}, "'quran' is not one of"),
        ({"families": "magic"}, "'magic' is not one of"),
        ({"arms": [{"name": "a", "role": "baseline", "model": "gpt-9"}]}, "got 'gpt-9'"),
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
            "index_top",
        ),
        ({"max_memory_gb": 1e-6}, "more than the 0.00 GB of max_memory_gb"),
        ({"depth": 3}, "depth: no such field"),
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
    row = next(row for row in read_rows(finished) if row["control"] is None)
    done = call("show", finished, row["key"][:8])
    assert done.code == 0
    assert f"[{row['needle_start']}..{row['needle_end']}) >>>" in done.out
    assert f"{row['gold'][0]}. <<<" in done.out
    assert row["question"] in done.out
    for arm in ("dense", "v4", "v4-top8"):
        assert f"\n{arm} (" in done.out


def test_a_control_is_shown_without_a_needle(call: Call, finished: Path) -> None:
    row = next(row for row in read_rows(finished) if row["control"])
    assert ">>>" not in call("show", finished, row["key"]).out


@pytest.mark.parametrize(("key", "told"), [("zz", "no rows begin so"), ("", "rows begin so")])
def test_a_key_that_names_no_question_is_refused(
    call: Call, finished: Path, key: str, told: str
) -> None:
    done = call("show", finished, key)
    assert done.code == 2
    assert told in done.err


@pytest.mark.parametrize("shape", ["ruler", "lm-eval"])
def test_exports_hold_every_prompt_and_answer(
    call: Call, finished: Path, tmp_path: Path, shape: str
) -> None:
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    for path in (lines, table):
        assert call("export", finished, path, "--shape", shape).code == 0
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    rows = read_rows(finished)
    assert pq.read_table(table).num_rows == len(records) == len(rows)
    for record, row in zip(records, rows, strict=True):
        doc = record if shape == "ruler" else record["doc"]
        assert doc["input"].endswith(row["question"])
        assert doc["outputs"] == row["gold"]
        said = record["pred"] if shape == "ruler" else record["resps"][0][0]
        assert said == row["answer"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "a.parquet"]


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
    done = call("cost", "random-v4", "--length", "4096")
    assert done.code == 0
    assert "V4-Pro" in done.out
    assert "random-v4" in done.out
    assert call("cost", "--length", "0").code == 2
    assert call("cost", "gpt-9").code == 2


def test_help_names_every_command(call: Call) -> None:
    done = call("--help")
    assert done.code == 0
    commands = ("plan", "run", "report", "gate", "show", "export", "cost", "train", "models")
    assert all(f" {command} " in done.out for command in (*commands, "corpora", "needles"))


def test_defaults_are_those_of_the_statistics() -> None:
    assert cli.FLOOR == stats.BASELINE_FLOOR
    assert cli.ALPHA == gate.ALPHA


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    config = written(tmp_path, lengths=[1024, 4096], depths=11)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "niah.cli", "run", str(config), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    rows = out / "rows.jsonl"
    while process.poll() is None and not (rows.exists() and rows.stat().st_size):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    assert 0 < len(read_rows(out)) < 3 * 2 * 12


def test_the_command_line_reference_is_current() -> None:
    """`make docs` writes it anew."""
    written = subprocess.run(
        [sys.executable, "-m", "typer", "niah.cli", "utils", "docs", "--name", "niah"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert written.stdout.strip() == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").strip()
