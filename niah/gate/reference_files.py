"""Writes a reference: the fields of a run's rows that the gate reads, kilobytes of megabytes.

A reference has a folder of its own, which is replaced as a whole and never lost.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from niah.errors import NiahError
from niah.runs.history import ENVIRONMENT, SPEC
from niah.runs.row import Row
from niah.runs.store import OWN_FILES, ROWS, read_rows

KEPT = frozenset(
    """
    schema_ key pair arm role model family corpus length depth correct layout template_split stream
    repeat control requested_length needle_start outcome error gold_logprob
    """.split()  # noqa: SIM905
)


class TargetError(NiahError):
    """A folder that a reference must not replace."""


def check_target(reference: Path) -> None:
    """Raises: TargetError where `reference` is there and is not a reference."""
    if not reference.exists():
        return
    if not reference.is_dir():
        raise TargetError(f"{reference}: is a file; name a folder for the reference")
    other = sorted(path.name for path in reference.iterdir() if not is_own(path))
    if other:
        raise TargetError(
            f"{reference}: holds {other[0]}, which is no part of a reference; name another folder"
        )
    if (reference / ROWS).exists() and any(map(holds_more, read_rows(reference))):
        raise TargetError(
            f"{reference}: holds a whole run, of which little would be left; name another folder, "
            "or move it away"
        )


def holds_more(row: Row) -> bool:
    """Whether a row is one of a whole run."""
    return bool(row.model_fields_set - KEPT)


def is_own(path: Path) -> bool:
    return path.name in OWN_FILES and path.is_file() and not path.is_symlink()


def write_reference(folder: Path, reference: Path) -> None:
    """Put the small form of a run in the place of `reference`, which is there until it is."""
    reference = reference.resolve()
    new, old = beside(reference, "new"), beside(reference, "old")
    remove(new)
    write_small(folder, new)
    if reference.exists():
        reference.replace(old)
    new.replace(reference)
    remove(old)


def put_back(reference: Path) -> None:
    """Undo a replacement that was cut off between its two renames; finish one cut off later."""
    reference = reference.resolve()
    old = beside(reference, "old")
    if old.exists() and not reference.exists():
        old.replace(reference)
    remove(old)


def beside(reference: Path, which: str) -> Path:
    return reference.with_name(f".{reference.name}.niah-{which}")


def remove(folder: Path) -> None:
    """A folder of a reference's files; anything else in it is left there, and is an OSError."""
    if folder.exists():
        for name in OWN_FILES:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def write_small(folder: Path, target: Path) -> None:
    target.mkdir(parents=True)
    kept = (row.model_dump_json(by_alias=True, include=set(KEPT)) for row in read_rows(folder))
    (target / ROWS).write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")
    for name in (SPEC, ENVIRONMENT):
        if (folder / name).exists():
            shutil.copyfile(folder / name, target / name)
