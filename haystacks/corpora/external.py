"""Texts of the user's own: a local file, or a column of a Hugging Face data set.

Knows nothing about tokens.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from haystacks.corpora.texts import CorpusError, Text

MAX_DATASET_CHARS = 1 << 26
UNSTATED = "not stated: yours to know"


def local_file(path: str) -> Text:
    """The UTF-8 text file at `path`. Raises CorpusError if it is missing, empty or not UTF-8."""

    def lines() -> Iterator[str]:
        with Path(path).expanduser().open(encoding="utf-8", newline="\n") as file:
            yield from file

    try:
        fingerprint, characters = _digest(lines)
    except UnicodeDecodeError as error:
        raise CorpusError(f"corpus: 'file:{path}' is not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise CorpusError(f"corpus: 'file:{path}' cannot be read ({error.strerror})") from None
    if not characters:
        raise CorpusError(f"corpus: 'file:{path}' is empty")
    return Text(f"file:{path}", "a local file", UNSTATED, path, fingerprint, lines)


def huggingface(location: str) -> Text:
    """`NAME:COLUMN` or `NAME:COLUMN:SPLIT` (split "train" if not given) of a data set.

    A data set of several configurations is named with one: `NAME@CONFIGURATION`. Rows are streamed,
    one after the other, and at most the first 67 million characters are used. Raises CorpusError
    where `datasets` is missing, or the data set, configuration, column or split does not exist.
    """
    name, _, rest = location.partition(":")
    column, _, split = rest.partition(":")
    if not name or not column:
        raise CorpusError(
            f"corpus: 'hf:{location}' is not 'hf:NAME:COLUMN', 'hf:NAME:COLUMN:SPLIT' or either "
            "with NAME@CONFIGURATION"
        )
    rows, first = _load(name, split or "train")
    if first is None:
        raise CorpusError(f"corpus: 'hf:{location}' is empty")
    if column not in first:
        choices = ", ".join(first)
        raise CorpusError(f"corpus: 'hf:{location}' has no column {column!r}; it has {choices}")

    def texts() -> Iterator[str]:
        left = MAX_DATASET_CHARS
        for row in rows:
            text = str(row[column]).rstrip("\n") + "\n"
            yield text[:left]
            left -= len(text)
            if left <= 0:
                return

    fingerprint, _ = _digest(texts)
    licence = rows.info.license or UNSTATED
    return Text(f"hf:{location}", f"column {column} of {name}", licence, name, fingerprint, texts)


def _load(name: str, split: str) -> tuple[Any, dict[str, Any] | None]:
    """A data set's rows, to be streamed as often as wanted, and its first row."""
    try:
        import datasets
    except ImportError:
        raise CorpusError(
            f"corpus: 'hf:{name}' needs datasets: in a checkout, pip install '.[hf]'"
        ) from None
    path, _, configuration = name.partition("@")
    try:
        rows = datasets.load_dataset(path, configuration or None, split=split, streaming=True)
        return rows, next(iter(rows), None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorpusError(f"corpus: 'hf:{name}' cannot be loaded: {reason}") from None


def _digest(pieces: Callable[[], Iterator[str]]) -> tuple[str, int]:
    digest = hashlib.sha256()
    characters = 0
    for piece in pieces():
        digest.update(piece.encode())
        characters += len(piece)
    return digest.hexdigest()[:16], characters
