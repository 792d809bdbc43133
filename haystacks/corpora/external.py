"""Texts of the user's own: a file, a folder of files, or a column of a Hugging Face data set.

A text is read once and held in memory: its fingerprint and its tokens are of the same bytes,
whatever becomes of the file, and a pipe can be read as well.
"""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from haystacks.corpora.texts import CorpusError, Text

MAX_DATASET_CHARS = 1 << 26
UNSTATED = "not stated: yours to know"
SUFFIXES = (".txt", ".md", ".rst")
FORMAT = "?format="  # behind the path of a file of needles


def resolve_name(name: str, base: Path) -> str:
    """`name` with the paths of its `file:` parts made absolute; relative ones begin at `base`.

    Two spellings of one file give one name. Names of other forms are returned as they are.
    """
    form, _, rest = name.partition(":")
    if form == "shuffled":
        return f"shuffled:{resolve_name(rest, base)}"
    if form == "mixed":
        return "mixed:" + "+".join(resolve_name(part, base) for part in rest.split("+"))
    if form != "file" or not rest:
        return name
    path, mark, kind = rest.partition(FORMAT)
    place = base / expanded(path)
    # The resolved name of a pipe cannot be opened.
    is_pipe = place.exists() and not (place.is_file() or place.is_dir())
    return f"file:{place.absolute() if is_pipe else place.resolve()}{mark}{kind}"


def expanded(path: str) -> Path:
    """`path` with a leading ~ replaced. Raises CorpusError where there is no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise CorpusError(f"file:{path}: there is no home folder; write the whole path") from None


def local(path: str) -> Text:
    """The UTF-8 text file at `path`, or the folder's files of text.

    Of a folder the files that end in .txt, .md or .rst are read, in the order of their paths,
    subfolders included, hidden files and folders left out. Raises CorpusError if the text is
    missing, empty or not UTF-8.
    """
    place = expanded(path)
    if place.is_dir():
        return _folder(path, place)
    content = _content(path, place)
    if not content:
        raise CorpusError(f"corpus: 'file:{path}' is empty")
    fingerprint = hashlib.sha256(content).hexdigest()[:16]
    return _held(f"file:{path}", "a local file", UNSTATED, path, fingerprint, content)


def _folder(path: str, folder: Path) -> Text:
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*")}
    names = sorted(
        name
        for name, file in found.items()
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in Path(name).parts)
    )
    digest = hashlib.sha256()
    parts = []
    for name in names:
        content = _content(str(found[name]), found[name])
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
        parts.append(content if not content or content.endswith(b"\n") else content + b"\n")
    if not any(parts):
        raise CorpusError(f"corpus: 'file:{path}' holds no text in files {', '.join(SUFFIXES)}")
    description = f"a folder of {len(names)} files"
    fingerprint = digest.hexdigest()[:16]
    return _held(f"file:{path}", description, UNSTATED, path, fingerprint, b"".join(parts))


def _content(path: str, place: Path) -> bytes:
    """The bytes of a file of UTF-8. Raises CorpusError."""
    try:
        content = place.read_bytes()
        content.decode()
    except UnicodeDecodeError as error:
        raise CorpusError(f"corpus: 'file:{path}' is not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise CorpusError(f"corpus: 'file:{path}' cannot be read ({error.strerror})") from None
    return content


def _held(
    name: str, description: str, licence: str, source: str, fingerprint: str, content: bytes
) -> Text:
    """A text whose content is in memory; lines are decoded as they are read."""

    def lines() -> Iterator[str]:
        yield from io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="\n")

    return Text(name, description, licence, source, fingerprint, lines)


def huggingface(location: str) -> Text:
    """`NAME:COLUMN` or `NAME:COLUMN:SPLIT` (split "train" if not given) of a data set.

    A data set of several configurations is named with one: `NAME@CONFIGURATION`. Rows are streamed,
    one after the other, and at most the first 67 million characters are used. Rows without a value
    are left out. Raises CorpusError where `datasets` is missing, the data set, configuration,
    column or split does not exist, or a value is not text.
    """
    name, _, rest = location.partition(":")
    column, _, split = rest.partition(":")
    if not name or not column:
        raise CorpusError(
            f"corpus: 'hf:{location}' is not 'hf:NAME:COLUMN', 'hf:NAME:COLUMN:SPLIT' or either "
            "with NAME@CONFIGURATION"
        )
    rows, licence = _load(name, split or "train")
    content = "".join(_column(location, column, rows)).encode()
    if not content:
        raise CorpusError(f"corpus: 'hf:{location}' is empty")
    fingerprint = hashlib.sha256(content).hexdigest()[:16]
    return _held(
        f"hf:{location}", f"column {column} of {name}", licence, name, fingerprint, content
    )


def _column(location: str, column: str, rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """The column's texts, each ended by a newline, up to `MAX_DATASET_CHARS`."""
    left = MAX_DATASET_CHARS
    for number, row in enumerate(rows):
        if column not in row:
            choices = ", ".join(row)
            raise CorpusError(f"corpus: 'hf:{location}' has no column {column!r}; it has {choices}")
        value = row[column]
        if value is None:
            continue
        if not isinstance(value, str):
            raise CorpusError(
                f"corpus: 'hf:{location}' holds a {type(value).__name__} in row {number}; choose a "
                "column of text"
            )
        text = value.rstrip("\n") + "\n"
        yield text[:left]
        left -= len(text)
        if left <= 0:
            return


def _load(name: str, split: str) -> tuple[Iterator[dict[str, Any]], str]:
    """A data set's rows, to be streamed once, and its licence."""
    try:
        import datasets
    except ImportError:
        raise CorpusError(
            f"corpus: 'hf:{name}' needs datasets: in a checkout, pip install '.[hf]'"
        ) from None
    failures = (OSError, ValueError, datasets.exceptions.DatasetsError)
    path, _, configuration = name.partition("@")

    def told(error: Exception) -> CorpusError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return CorpusError(f"corpus: 'hf:{name}' cannot be loaded: {reason}")

    def streamed(data: Any) -> Iterator[dict[str, Any]]:
        try:
            yield from data
        except failures as error:
            raise told(error) from None

    try:
        data = datasets.load_dataset(path, configuration or None, split=split, streaming=True)
    except failures as error:
        raise told(error) from None
    return streamed(data), data.info.license or UNSTATED
