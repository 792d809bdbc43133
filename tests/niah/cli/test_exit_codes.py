"""What a user can mend is one line and exit code 2; a defect is a traceback and another code."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from niah.cli.main import BROKEN_PIPE, DEFECT
from niah.errors import can_be_mended
from niah.gate import verdict
from niah.runs.store import read_rows
from niah.runs.tables import load_run
from tests.niah.cli.conftest import Call
from tests.synthetic_rows import Synthetic, write_run

ROOT = Path(__file__).parents[3]
MADE = Synthetic((1024,), (0.5,), repeats=4)


def niah(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """In a process of its own."""
    command = [sys.executable, "-m", "niah", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, cwd=ROOT, capture_output=True, check=False
    )


@pytest.mark.parametrize(
    "defect", [ValueError("nan is not in list"), KeyError("a"), RuntimeError(), OSError("lost")]
)
def test_a_defect_is_a_traceback_and_no_verdict(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, defect: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise defect

    monkeypatch.setattr(verdict, "run_gate", broken)
    done = call("gate", write_run(tmp_path / "run", MADE), "--max-tax", 0.1)
    assert done.code == DEFECT
    assert done.code not in (0, 1, 2, 3)
    assert "Traceback" in done.err
    assert type(defect).__name__ in done.err


def test_a_named_file_and_a_full_disk_can_be_mended(call: Call, tmp_path: Path) -> None:
    assert can_be_mended(OSError(errno.ENOSPC, "No space left on device"))
    (tmp_path / "file").write_text("")
    run = write_run(tmp_path / "run", MADE)
    done = call("gate", run, "--max-tax", 0.1, "--json", tmp_path / "file" / "gate.json")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert str(tmp_path / "file") in done.err


def test_a_reader_that_goes_away_is_no_verdict(tmp_path: Path) -> None:
    """`niah ... | head -n 0`: not exit code 1, which is a verdict of the gate."""
    command = [sys.executable, "-m", "niah", "needles"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60
    )
    os.close(writing)
    assert done.returncode == BROKEN_PIPE
    assert b"Traceback" not in done.stderr


def test_a_verdict_does_not_hang_on_the_terminals_signs(tmp_path: Path) -> None:
    """Points lost are written with a minus sign that Latin-1 does not have."""
    arms = {"dense": lambda *_: 0.9, "v4": lambda *_: 1.0}
    run = write_run(tmp_path / "run", Synthetic((1024,), repeats=16, arms=arms))
    written = tmp_path / "gate.md"
    plain = niah("gate", run, "--max-tax", 0.5, "--markdown", written)
    latin = niah("gate", run, "--max-tax", 0.5, PYTHONIOENCODING="latin-1")
    assert (plain.returncode, latin.returncode) == (0, 0), latin.stderr
    said = plain.stdout.decode("utf-8")
    assert any(ord(sign) > 255 for sign in said)
    assert latin.stdout.decode("latin-1") == said.encode("latin-1", "replace").decode("latin-1")
    assert written.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["rows.jsonl", "planned.jsonl", "spec.yaml", "environment.json"])
@pytest.mark.parametrize("form", ["--json", "--junit", "--markdown"])
def test_a_gate_does_not_write_over_a_run(call: Call, tmp_path: Path, name: str, form: str) -> None:
    run = write_run(tmp_path / "run", MADE)
    before = (run / name).read_bytes()
    (tmp_path / "link").symlink_to(run / name)
    for path in (run / name, run / "x" / ".." / name, tmp_path / "link"):
        (run / "x").mkdir(exist_ok=True)
        done = call("gate", run, "--max-tax", 0.1, form, path)
        assert (done.code, done.out) == (2, "")
        assert f"{path}: belongs to the run in {run}" in done.err
        assert (run / name).read_bytes() == before
    beside = run / "verdict"
    call("gate", run, "--max-tax", 0.1, form, beside)
    assert beside.exists()


def test_an_export_and_a_report_do_not_write_over_a_run(call: Call, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    (tmp_path / "page.html").symlink_to(run / "rows.jsonl")
    for arguments in (
        ("export", run, run / "rows.jsonl"),
        ("export", run, run / "checkpoints" / "a.jsonl"),
        ("report", run, "--out", tmp_path / "page.html"),
    ):
        done = call(*arguments)
        assert done.code == 2
        assert "belongs to the run in" in done.err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_row_without_its_depth_is_one_line_that_names_it(call: Call, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    first, *rest = (run / "rows.jsonl").read_text().splitlines()
    row = json.loads(first) | {"depth": None}
    (run / "rows.jsonl").write_text("\n".join([json.dumps(row), *rest, ""]))
    for command in (
        ("gate", run, "--max-tax", 0.1),
        ("report", run, "--out", tmp_path / "page"),
        ("report", run, "--terminal"),
    ):
        done = call(*command)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "rows.jsonl: line 1 is not a row: depth is None" in done.err


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_have_is_named_with_its_line(
    call: Call, tmp_path: Path, value: str
) -> None:
    run = write_run(tmp_path / "run", MADE)
    first, *rest = (run / "rows.jsonl").read_text().splitlines()
    odd = first.removesuffix("}") + f', "prefill_seconds": {value}}}'
    (run / "rows.jsonl").write_text("\n".join([odd, *rest, ""]))
    done = call("report", run, "--out", tmp_path / "page")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"line 1 is not a row: prefill_seconds is {float(value)}" in done.err


def test_runs_of_one_name_are_told_apart_by_their_folders(call: Call, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / parent / "smoke", MADE) for parent in ("a", "b")]
    done = call("report", *runs, "--out", tmp_path / "page")
    assert done.code == 0, done.err
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "a/smoke" in page
    assert "b/smoke" in page
    done = call("report", runs[0], runs[0], "--out", tmp_path / "page")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "is given twice" in done.err


def test_fields_that_this_version_does_not_know_are_no_obstacle(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    lines = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    text = "".join(json.dumps(line | {"entropy": 0.5}) + "\n" for line in lines)
    (run / "rows.jsonl").write_text(text)
    assert len(load_run(run).rows) == len(lines)
    assert all(row.model_extra == {"entropy": 0.5} for row in read_rows(run))


def test_two_forms_of_a_verdict_are_two_files(call: Call, tmp_path: Path) -> None:
    run, same = write_run(tmp_path / "run", MADE), tmp_path / "gate"
    done = call("gate", run, "--max-tax", 0.1, "--json", same, "--junit", same)
    assert (done.code, done.out) == (2, "")
    assert f"{same} is named twice" in done.err
    assert not same.exists()


def test_a_file_and_a_folder_are_told_apart_before_anything_is_done(
    call: Call, tmp_path: Path
) -> None:
    run, file = write_run(tmp_path / "run", MADE), tmp_path / "file"
    file.write_text("kept", encoding="utf-8")
    in_a_folder = [
        ("run", "configs/smoke.yaml", "--out", file),
        ("report", run, "--out", file / "page"),
        ("train", "configs/train-smoke.yaml", "--arm", "dense", "--out", file),
        ("export-model", "random-v4", "--out", file),
        ("accept", run, file),
    ]
    for arguments in in_a_folder:
        done = call(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert f"{file} is a file; name a folder" in done.err
    for arguments in [
        ("gate", run, "--max-tax", 0.1, "--json", tmp_path / "new", "--junit", tmp_path),
        ("export", run, tmp_path),
    ]:
        done = call(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert f"{tmp_path} is a folder; name a file" in done.err
    assert file.read_text(encoding="utf-8") == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "file"}


def test_a_suffix_that_names_no_format_is_refused(call: Call, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", MADE)
    done = call("export", run, tmp_path / "rows.csv")
    assert (done.code, done.out) == (2, "")
    assert ".csv is neither .jsonl nor .parquet; give --format" in done.err
    assert not (tmp_path / "rows.csv").exists()
