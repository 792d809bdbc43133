"""A run's folder: whole rows or none, one writer, the same configuration."""

import errno
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from niah.errors import BusyError, ChangedError, StoreError
from niah.runs.row import Row
from niah.runs.store import Store, parsed_rows, read_rows
from tests.niah.rows import row_of

SWEEP = {"name": "small", "lengths": [1, 2], "decoding": {"max_new_tokens": None}, "threads": 1}
IDENTITY = {"models": {"dense": "aa"}, "corpora": {"kjv": "bb"}}


def opened(folder: Path, **changes: object) -> Store:
    return Store(folder, SWEEP | changes, IDENTITY, {"cpu": "any"})


def row(key: str, error: str | None = None) -> Row:
    asked = {"pair": key, "arm": "a", "role": "baseline", "model": "m", "family": "f"}
    answered = {"error": error, "answer": "ü 48213", "correct": None if error else True}
    return row_of(key=key, **asked, **answered, corpus="c", length=1024, depth=0.5, schema=2)


def test_rows_are_read_back_as_written(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as store:
        store.append(row("a"))
        store.append(row("b"))
    assert read_rows(tmp_path / "run") == [row("a"), row("b")]
    assert (tmp_path / "run" / "spec.yaml").exists()
    (entry,) = json.loads((tmp_path / "run" / "environment.json").read_text())["runs"]
    assert (entry["cpu"], entry["from_row"]) == ("any", 0)


def test_any_torn_last_line_is_cut_off_and_asked_again(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.append(row("a"))
        store.append(row("b"))
    path = tmp_path / "rows.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole), 11):
        path.write_bytes(whole[:end])
        assert read_rows(tmp_path) == [row("a")]
        with opened(tmp_path) as store:
            assert store.answered == {"a"}
            store.append(row("b"))
        assert path.read_bytes() == whole


def test_a_damaged_line_elsewhere_is_refused_and_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.append(row("a"))
    path = tmp_path / "rows.jsonl"
    for line in (b"{not json}\n", b"[]\n", b"{}\n", b"\xff\xfe\n"):
        damaged = line + path.read_bytes()
        (tmp_path / "rows.jsonl").write_bytes(damaged)
        with pytest.raises(StoreError, match=r"rows\.jsonl: line 1 is no"):
            opened(tmp_path)
        assert path.read_bytes() == damaged
        path.write_bytes(damaged.removeprefix(line))


def test_an_error_is_asked_again_and_its_retry_wins(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.append(row("a", error="MemoryError: full"))
    with opened(tmp_path) as store:
        assert store.answered == set()
        store.append(row("a"))
    with opened(tmp_path) as store:
        assert store.answered == {"a"}
    assert read_rows(tmp_path) == [row("a")]


def test_two_writers_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second is a process of its own: a lock may well be shared within one."""
    other = (
        "import sys; from pathlib import Path; from niah.runs.store import Store; "
        f"Store(Path(sys.argv[1]), {SWEEP!r}, {IDENTITY!r}, {{}}).close()"
    )
    command = [sys.executable, "-c", other, str(tmp_path)]
    with opened(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        with pytest.raises(BusyError, match="another process is writing here"):
            opened(tmp_path)
    assert second.returncode != 0
    assert "BusyError" in second.stderr
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lengths": [1, 3]}, "lengths = [1, 2], now [1, 3]"),
        ({"decoding": {"max_new_tokens": 4}}, "decoding.max_new_tokens = null, now 4"),
        ({"spread": 0.5}, "spread = null, now 0.5"),
    ],
)
def test_a_changed_sweep_is_refused_and_told(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    opened(tmp_path).close()
    with pytest.raises(ChangedError) as raised:
        opened(tmp_path, **changes)
    assert told in str(raised.value)
    opened(tmp_path).close()


def test_changed_weights_are_refused_and_changed_threads_are_not(tmp_path: Path) -> None:
    opened(tmp_path).close()
    opened(tmp_path, threads=2).close()
    other = {"models": {"dense": "cc"}, "corpora": {"kjv": "bb"}}
    with pytest.raises(ChangedError, match=r'models\.dense = "aa", now "cc"'):
        Store(tmp_path, SWEEP, other, {})


class FullDisk:
    """A file on a disk that takes `room` more bytes."""

    def __init__(self, path: Path, room: int) -> None:
        self._file = path.open("ab", buffering=0)
        self._room = room

    def write(self, data: bytes) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._file.write(data[: self._room])
        self._room = 0
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 7])
def test_a_full_disk_leaves_whole_rows_and_a_clear_line(tmp_path: Path, room: int) -> None:
    with opened(tmp_path) as store:
        store.append(row("a"))
        store._file.close()
        store._file = FullDisk(tmp_path / "rows.jsonl", room)  # type: ignore[assignment]
        with pytest.raises(StoreError, match=r"every row before it is safe: make room"):
            store.append(row("b"))
    assert (tmp_path / "rows.jsonl").read_bytes().count(b"\n") == 1
    with opened(tmp_path) as store:
        assert store.answered == {"a"}


def test_a_row_after_a_failed_one_is_whole_and_may_fail_too(tmp_path: Path) -> None:
    """The end of the file is where it was cut, not where the failed write had come to."""
    path = tmp_path / "rows.jsonl"
    with opened(tmp_path) as store:
        for key in ("a", "b"):
            store._file.close()
            store._file = FullDisk(path, 7)  # type: ignore[assignment]
            for _ in range(2):
                with pytest.raises(StoreError, match="cannot be written"):
                    store.append(row("lost"))
            store._file.close()
            store._file = path.open("ab", buffering=0)
            store.append(row(key))
    assert read_rows(tmp_path) == [row("a"), row("b")]
    assert b"\0" not in path.read_bytes()


def test_the_plan_is_kept_before_the_first_row(tmp_path: Path) -> None:
    planned = [{"pair": "p1"}, {"pair": "p2"}]
    Store(tmp_path, SWEEP, IDENTITY, {}, planned[:1]).close()
    Store(tmp_path, SWEEP, IDENTITY, {}, planned).close()
    opened(tmp_path).close()
    lines = (tmp_path / "planned.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == planned


def test_an_output_that_cannot_be_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        opened(tmp_path / "file" / "run")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_read_only_output_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As a read-only disk would answer; root, whom tests may run as, can write anywhere else."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(StoreError, match=f"cannot be written: {os.strerror(code)}"):
        opened(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run"):
        read_rows(tmp_path)


def alive() -> int:
    """How many rows are in memory."""
    return sum(type(found) is Row for found in gc.get_objects())


def test_a_store_keeps_no_rows_in_memory(tmp_path: Path) -> None:
    before = alive()
    with opened(tmp_path) as store:
        for number in range(10):
            store.append(row(str(number)))
        assert alive() == before
    with opened(tmp_path) as store:
        assert len(store.answered) == 10
        assert alive() == before
    assert [alive() - before for _ in parsed_rows(tmp_path / "rows.jsonl")] == [1] * 10


def test_rows_of_unknown_models_are_not_gone_on_with(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.append(row("a"))
    (tmp_path / "environment.json").unlink()
    with pytest.raises(ChangedError, match=r"environment\.json is missing"):
        opened(tmp_path)
