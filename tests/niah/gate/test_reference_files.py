"""Where a reference is put: over another reference and nothing else, and never half."""

import json
from pathlib import Path

import pytest

from niah.errors import NiahError
from niah.gate.accept import accept
from niah.runs.store import read_rows
from tests.synthetic_rows import Synthetic, write_run

MADE = Synthetic(lengths=(1024,), depths=(0.0, 1.0), repeats=4)
BETTER = Synthetic(
    lengths=(1024,), depths=(0.0, 1.0), repeats=4, arms={"dense": lambda *_: 1.0}, weights="w-2"
)


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("inside", ["notes.txt", "gate/rows.jsonl", "spec.yaml/page.html"])
def test_a_folder_that_holds_something_else_is_left_as_it_is(tmp_path: Path, inside: str) -> None:
    results, run = tmp_path / "results", write_run(tmp_path / "run", MADE)
    (results / inside).parent.mkdir(parents=True)
    (results / inside).write_text("dear", encoding="utf-8")
    before = everything(tmp_path)
    with pytest.raises(NiahError, match=rf"results: holds {inside.split('/')[0]}, which is no"):
        accept(run, results, despite_regression=True)
    assert everything(tmp_path) == before


def test_a_whole_run_is_not_replaced_by_a_small_one(tmp_path: Path) -> None:
    run, other = write_run(tmp_path / "run", MADE), write_run(tmp_path / "other", BETTER)
    before = everything(tmp_path)
    for target in (other, run):
        with pytest.raises(NiahError, match="holds a whole run"):
            accept(run, target, despite_regression=True)
    assert everything(tmp_path) == before


def test_a_file_is_no_place_for_a_reference(tmp_path: Path) -> None:
    run, target = write_run(tmp_path / "run", MADE), tmp_path / "gate"
    target.write_text("dear", encoding="utf-8")
    with pytest.raises(NiahError, match="gate: is a file"):
        accept(run, target)
    assert target.read_text(encoding="utf-8") == "dear"


def test_an_empty_folder_becomes_the_reference(tmp_path: Path) -> None:
    run, target = write_run(tmp_path / "run", MADE), tmp_path / "gate"
    target.mkdir()
    accept(run, target)
    assert len(read_rows(target)) == len(read_rows(run))


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_between_the_renames_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    first, later = write_run(tmp_path / "run", MADE), write_run(tmp_path / "later", BETTER)
    reference, done = tmp_path / "gate", []
    accept(first, reference)
    before = everything(reference)
    rename, remove = Path.replace, Path.rmdir

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def cut_off(path: Path, target: Path) -> Path:
        if len(done) == renames:
            killed()
        done.append(target)
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", cut_off)
    monkeypatch.setattr(Path, "rmdir", killed)
    with pytest.raises(KeyboardInterrupt):
        accept(later, reference)
    monkeypatch.setattr(Path, "replace", rename)
    monkeypatch.setattr(Path, "rmdir", remove)
    kept = [everything(path) for path in tmp_path.glob("*gate*")]
    assert before in kept or renames == 2
    assert accept(later, reference)[0] != f"{reference}: there was none; it is {later} now"
    assert {row.key for row in read_rows(reference)} == {row.key for row in read_rows(later)}
    assert [path.name for path in tmp_path.glob("*gate*")] == ["gate"]


def test_a_reference_of_schema_1_is_replaced(tmp_path: Path) -> None:
    """Its rows carry no number, and no field that a reference does not keep."""
    run, target = write_run(tmp_path / "run", MADE), tmp_path / "gate"
    accept(run, target)
    rows = [json.loads(line) for line in (target / "rows.jsonl").read_text().splitlines()]
    old = [{name: row[name] for name in row if name != "schema"} for row in rows]
    (target / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    accept(run, target, despite_regression=True)
    assert len(read_rows(target)) == len(old)
