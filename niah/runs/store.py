"""A run's folder: rows appended one at a time, the configuration and environment beside them.

Survives SIGKILL at any byte: a row counts once its whole line is in the file, and a torn last
line is cut off before the next is written. A power cut loses a second's rows at most, which are
asked again.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import yaml

from niah.errors import BusyError, ChangedError, StoreError
from niah.files import read_mapping, write_atomically
from niah.runs.history import (
    ENVIRONMENT,
    SPEC,
    History,
    added_to,
    asked_sweeps,
    complete,
    identity_changes,
    is_same,
    read_history,
    refuse,
    sweep_changes,
)
from niah.runs.row import Row, parse_row
from niah.sweep.trials import key_identity

SYNC_SECONDS = 1.0
BLOCK = 1 << 16  # bytes read at a time where a line break is looked for
CHECKPOINTS = "checkpoints"  # sessions of models that can be kept, while they are read
ROWS, PLANNED, LOCK = "rows.jsonl", "planned.jsonl", ".lock"
OWN_FILES = (ROWS, PLANNED, SPEC, ENVIRONMENT, LOCK)

Question = dict[str, Any]  # a planned question, as far as a row tells it before it is answered


class Store:
    """A run's folder, opened for writing by one process at a time.

    `sweep` may add to what the folder was asked (see `history`). `identity` holds what the answers
    depend on beyond the sweep (fingerprints) and must stay the same. `environment` says what this
    process runs on, and under `models` what each model says of itself. `planned` holds the
    questions put to every arm, as far as a row tells them before it is answered; they are kept in
    planned.jsonl before the first row, so that an interrupted run shows what it lacks. `before`
    are the sweeps on which `planned` is built, where the folder has grown.
    `answered` holds the keys of the rows that need not be asked again; an error is asked again. Of
    the rows themselves nothing is kept in memory.
    Raises: BusyError, ChangedError, StoreError, FileError.
    """

    def __init__(
        self,
        folder: Path,
        sweep: Mapping[str, Any],
        identity: Mapping[str, Any],
        environment: Mapping[str, Any],
        planned: Iterable[Question] = (),
        before: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.folder = folder
        self._synced = time.monotonic()
        self._facts: dict[str, Any] | None = {
            n: environment[n] for n in environment if n != "models"
        }
        with ExitStack() as undo:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock = lock(folder)
                undo.callback(os.close, self._lock)
                kept = refuse_changes(folder, sweep, identity, before)
                self._count, self.answered = cut_torn_line(folder / ROWS)
                sweeps = [*map(dict, before), dict(sweep)] if before else []
                self._history = kept.grown_by(
                    dict(identity), dict(environment.get("models", {})), sweeps
                )
                write_plan(folder, list(planned))
                if self._history != kept or not (folder / ENVIRONMENT).exists():
                    self._history.write(folder)
                write_spec(folder, sweep)
                self._file = (folder / ROWS).open("ab", buffering=0)
            except OSError as error:
                raise StoreError(f"{folder}: cannot be written: {error.strerror}") from None
            undo.pop_all()

    def append(self, row: Row) -> None:
        """Write one row, all of it or none. Raises: StoreError (a full disk, say)."""
        line = row.json_line()
        end = self._file.tell()
        try:
            self._say_who_writes()
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
        self._count += 1
        if row.error is None:
            self.answered.add(row.key)

    def close(self) -> None:
        self._sync()
        self._file.close()
        os.close(self._lock)

    def _say_who_writes(self) -> None:
        """Before the first row of this process: its entry in environment.json."""
        if self._facts is not None:
            place = os.path.relpath(Path.cwd(), self.folder.resolve())
            facts = {**self._facts, "working_folder": Path(place).as_posix()}
            self._history = self._history.with_run(facts, from_row=self._count)
            self._history.write(self.folder)
            self._facts = None

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


def refuse_changes(
    folder: Path,
    sweep: Mapping[str, Any],
    identity: Mapping[str, Any],
    before: Sequence[Mapping[str, Any]],
) -> History:
    """The folder's history, of which nothing is changed.

    Raises: ChangedError saying what a resumed run would change; FileError.
    """
    added = added_to(folder, sweep)
    kept = read_history(folder)
    if kept:
        refuse(folder, identity_changes(kept.identity, identity))
    elif (folder / ROWS).exists() and (folder / ROWS).stat().st_size:
        raise ChangedError(
            f"{folder}: {ENVIRONMENT} is missing, so nobody can tell which models gave these "
            "answers; put it back or choose another --out"
        )
    if [complete(fields) for fields in before] != added:
        raise ChangedError(f"{folder}: has grown meanwhile; run the same command again")
    return kept or History({}, {})


def write_plan(folder: Path, planned: Sequence[Question]) -> None:
    """Keep the planned questions, unless the folder has them already, or they are not known."""
    path = folder / PLANNED
    if path.exists() and not planned:
        return
    known = {row["pair"] for row in read_planned(folder)} if path.exists() else None
    if known != {row["pair"] for row in planned}:
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in planned))


def write_spec(folder: Path, sweep: Mapping[str, Any]) -> None:
    """Keep the sweep, unless the folder has one that asks the same."""
    path = folder / SPEC
    if not path.exists() or not is_same(complete(read_mapping(path)), complete(sweep)):
        write_atomically(path, yaml.safe_dump(dict(sweep), sort_keys=False))


def is_finished(folder: Path, sweep: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Whether `folder` was asked `sweep` of the models of `identity`, and has every answer.

    Raises: ChangedError where it was asked something else; StoreError, FileError.
    """
    asked, kept = asked_sweeps(folder), read_history(folder)
    if not asked or not kept or not (folder / PLANNED).exists() or not (folder / ROWS).exists():
        return False
    refuse(folder, sweep_changes(asked[-1], sweep))
    refuse(folder, identity_changes(kept.identity, identity))
    if not is_same(asked[-1], sweep) or identity_changes(identity, kept.identity):
        return False
    answered = {row.key for row in parsed_rows(folder / ROWS) if row.error is None}
    planned = [row["pair"] for row in read_planned(folder)]
    models = identity["models"]
    return all(
        key_identity(pair, arm, models[arm]) in answered for pair in planned for arm in models
    )


def refuse_run_file(path: Path) -> None:
    """Raises: StoreError where `path` is a file of a run, which an output must not replace."""
    target = path.resolve()
    kept = target.parent.name == CHECKPOINTS
    folder = target.parent.parent if kept else target.parent
    is_run = (folder / ROWS).exists() or (folder / SPEC).exists()
    if is_run and (kept or target.name in OWN_FILES):
        raise StoreError(f"{path}: belongs to the run in {folder}; name another file")


def read_planned(folder: Path) -> list[Question]:
    """The questions put to every arm. Raises: StoreError."""
    try:
        content = (folder / PLANNED).read_bytes()
    except OSError as error:
        raise StoreError(f"{folder / PLANNED}: cannot be read: {error.strerror}") from None
    questions = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            question = json.loads(line)
        except ValueError as error:
            raise StoreError(f"{folder / PLANNED}: line {number} is no JSON: {error}") from None
        if not isinstance(question, dict) or not isinstance(question.get("pair"), str):
            raise StoreError(
                f"{folder / PLANNED}: line {number} is not a planned question: it has no 'pair'"
            )
        questions.append(question)
    return questions


def cut_torn_line(path: Path) -> tuple[int, set[str]]:
    """How many rows a file holds, and the keys of those without an error.

    The last line is cut off if it was torn. Raises: StoreError where any other line is not a row.
    """
    count, answered = 0, set[str]()
    if not path.exists():
        return count, answered
    for row in parsed_rows(path):
        count += 1
        if row.error is None:
            answered.add(row.key)
    with path.open("rb+") as file:
        file.truncate(end_of_lines(file))
    return count, answered


def end_of_lines(file: BinaryIO) -> int:
    """The index behind the last line break of a file."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def parsed_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, one a line, a torn last line left out; one at a time is in memory.

    Raises: StoreError naming the line that is not a row; OSError.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield parse_row(line[:-1], f"{path}: line {number}")


def iterate_rows(folder: Path) -> Iterator[Row]:
    """As `parsed_rows`, of a run. Raises: StoreError where there is no run in `folder`, too."""
    try:
        yield from parsed_rows(folder / ROWS)
    except OSError as error:
        raise StoreError(f"{folder}: {_why_no_run(folder, error)}") from None


def _why_no_run(folder: Path, error: OSError) -> str:
    if folder.is_dir():
        return f"holds no run ({ROWS}: {error.strerror})"
    if folder.exists():
        return "is a file; a run is the folder that holds its rows.jsonl"
    return "holds no run (there is no such folder)"


def read_rows(folder: Path) -> list[Row]:
    """A run's rows, each key once: a retried error gives way to what came after it.

    Raises: StoreError where there is no run in `folder` or a line is not a row.
    """
    return list({row.key: row for row in iterate_rows(folder)}.values())
