"""Owns a run's folder: rows appended one at a time, the configuration and environment beside them.

Survives SIGKILL at any byte: a row counts once its whole line is in the file, and a torn last
line is cut off before the next is written. A power cut loses a second's rows at most, which are
asked again. Knows nothing of what a row means.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from niah.errors import BusyError, ChangedError, StoreError

SYNC_SECONDS = 1.0
ROWS, PLANNED, LOCK = "rows.jsonl", "planned.jsonl", ".lock"
SPEC, ENVIRONMENT = "spec.yaml", "environment.json"

Row = dict[str, Any]

# Fields of a sweep that decide how fast it runs, not what it asks.
FREE_FIELDS = frozenset({"threads", "max_memory_gb", "checkpoint_minutes"})


class Store:
    """A run's folder, opened for writing by one process at a time.

    `identity` holds what the answers depend on beyond the sweep (fingerprints); it is kept in
    environment.json and, like the sweep, must be the same when a run is resumed. `planned` holds
    the questions put to every arm, as far as a row tells them before it is answered; they are
    kept in planned.jsonl before the first row, so that an interrupted run shows what it lacks.
    Raises: BusyError, ChangedError, StoreError.
    """

    def __init__(
        self,
        folder: Path,
        sweep: Mapping[str, Any],
        identity: Mapping[str, Any],
        environment: Mapping[str, Any],
        planned: Iterable[Row] = (),
    ) -> None:
        self.folder = folder
        self._synced = time.monotonic()
        beside = {**environment, "identity": identity}
        with ExitStack() as undo:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock = lock(folder)
                undo.callback(os.close, self._lock)
                refuse_changes(folder, sweep, identity)
                self.rows = cut_torn_line(folder / ROWS)
                write_once(folder / SPEC, yaml.safe_dump(dict(sweep), sort_keys=False))
                write_once(folder / ENVIRONMENT, json.dumps(beside, indent=2) + "\n")
                write_once(folder / PLANNED, "".join(json.dumps(row) + "\n" for row in planned))
                self._file = (folder / ROWS).open("ab", buffering=0)
            except OSError as error:
                raise StoreError(f"{folder}: cannot be written: {error.strerror}") from None
            undo.pop_all()

    @property
    def answered(self) -> set[str]:
        """Keys of the rows that need not be asked again; an error is asked again."""
        return {row["key"] for row in self.rows if row.get("error") is None}

    def append(self, row: Row) -> None:
        """Write one row, all of it or none. Raises: StoreError (a full disk, say)."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        end = self._file.tell()
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(None, "the disk is full")
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._sync()
        except OSError as error:
            self._file.truncate(end)
            self._file.seek(end)  # or the next row's end would be told from behind the cut
            raise StoreError(
                f"{self.folder / ROWS}: cannot be written: {error.strerror}; every row before it "
                "is safe: make room and run the same command again"
            ) from None
        self.rows.append(row)

    def close(self) -> None:
        self._sync()
        self._file.close()
        os.close(self._lock)

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def lock(folder: Path) -> int:
    """A lock that ends with this process. Raises: BusyError where another process holds it."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise BusyError(
            f"{folder}: another process is writing here; wait for it or choose another --out"
        ) from None
    return handle


def refuse_changes(folder: Path, sweep: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raises: ChangedError saying what a resumed run would change."""
    if not (folder / SPEC).exists():
        return
    changed = differences(read_mapping(folder / SPEC), sweep, ignore=FREE_FIELDS)
    if (folder / ENVIRONMENT).exists():
        beside = read_mapping(folder / ENVIRONMENT)
        changed += differences(beside.get("identity", {}), identity)
    if changed:
        raise ChangedError(
            f"{folder}: was started with {'; '.join(changed)}; "
            "choose another --out, or restore the configuration to resume"
        )


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON file (which is YAML) that holds names and values. Raises: StoreError."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: should hold names and values, holds {value!r:.40}")
    return value


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], ignore: frozenset[str] = frozenset()
) -> list[str]:
    """`field = old, now new` for each field that differs, at the depth where it does."""
    found = []
    for field in sorted((before.keys() | now.keys()) - ignore):
        old, new = before.get(field), now.get(field)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{field}.{change}" for change in differences(old, new)]
        elif old != new:
            found.append(f"{field} = {json.dumps(old)}, now {json.dumps(new)}")
    return found


def cut_torn_line(path: Path) -> list[Row]:
    """The rows of a file whose last line, if it was torn, has been cut off.

    Raises: StoreError where any other line is not a row.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    rows = parse_rows(content[:whole], path)
    if whole < len(content):
        os.truncate(path, whole)
    return rows


def parse_rows(content: bytes, path: Path, key: str = "key") -> list[Row]:
    """A JSON object a line, each with the field `key`. Raises: StoreError naming the line."""
    rows = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            row = json.loads(line)
            row[key]
        except ValueError as error:
            raise StoreError(f"{path}: line {number} is no JSON: {error}") from None
        except (KeyError, TypeError):
            raise StoreError(f"{path}: line {number} is not a row: it has no {key!r}") from None
        rows.append(row)
    return rows


def latest_rows(rows: list[Row]) -> dict[str, Row]:
    """Rows by key; a retried error gives way to what came after it."""
    return {row["key"]: row for row in rows}


def read_rows(folder: Path) -> list[Row]:
    """A run's rows, each key once, a torn last line left out.

    Raises: StoreError where there is no run in `folder` or a line is not a row.
    """
    path = folder / ROWS
    try:
        content = path.read_bytes()
    except OSError as error:
        why = f"{ROWS}: {error.strerror}" if folder.is_dir() else "there is no such folder"
        raise StoreError(f"{folder}: holds no run ({why})") from None
    return list(latest_rows(parse_rows(content[: content.rfind(b"\n") + 1], path)).values())


def write_once(path: Path, text: str) -> None:
    """Write a file whole or not at all, unless it is there already."""
    if path.exists():
        return
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
