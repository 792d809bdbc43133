"""Token streams on disk: built once, memory-mapped afterwards, safe for racing processes.

They lie in $NIAH_CACHE, else in ~/.cache/niah, else in a temporary folder, two files a stream:
NAME.npy (the ids) and NAME.json (count, sha256).
"""

import atexit
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from threading import get_ident
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

Ids = Sequence[int] | np.ndarray[Any, Any]

log = logging.getLogger(__name__)


class CacheError(ValueError):
    """The cache folder cannot be used; the message names it."""


def cache_folder() -> Path:
    """Where streams are kept; made if it is not there.

    Without $NIAH_CACHE, and where there is no home folder that can be written to, it is a folder
    of this process alone, and a warning says so once. Raises CacheError where it cannot be made.
    """
    chosen = os.environ.get("NIAH_CACHE")
    if chosen:
        folder = Path(chosen) / "tokens"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"NIAH_CACHE: {folder} cannot be made ({error})") from None
        return folder
    try:
        folder = Path.home() / ".cache" / "niah" / "tokens"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return temporary_folder()
    return folder if os.access(folder, os.W_OK | os.X_OK) else temporary_folder()


@cache
def temporary_folder() -> Path:
    """A folder for the tokens of this process, removed when it ends; warns that it is one."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="niah-tokens-"))
    except OSError as error:
        raise CacheError(f"NIAH_CACHE: names no folder, and none can be made ({error})") from None
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log.warning(
        "no home folder to keep tokens in: they go to %s and are made anew in every process; "
        "set NIAH_CACHE to a folder that can be written to",
        folder,
    )
    return folder


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """uint16 where every id fits, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def load_or_build(
    key: str, chunks: Callable[[], Iterable[Ids]], dtype: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    """The stream `key`, [num_tokens], read-only: mapped from disk, or built from `chunks`.

    A stream on disk that is incomplete, without tokens, or has other ids than were written is
    built again. Raises CacheError where nothing can be written.
    """
    path = cache_folder() / f"{key}.npy"
    stream = _mapped(path, dtype)
    if stream is None or not len(stream):
        try:
            _build(path, chunks(), dtype)
        except OSError as error:
            raise CacheError(f"NIAH_CACHE: {path.parent} cannot be written ({error})") from None
        stream = _mapped(path, dtype)
    if stream is None:
        raise CacheError(f"NIAH_CACHE: {path} is not what was just written to it")
    return stream


def _mapped(path: Path, dtype: np.dtype[Any]) -> np.ndarray[Any, Any] | None:
    """The stream of a file; None where it is not there, not whole, or not what was written."""
    try:
        recorded = json.loads(path.with_suffix(".json").read_text())
        stream: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    if stream.dtype != dtype or stream.shape != (recorded.get("num_tokens"),):
        return None
    return stream if hashlib.sha256(stream.data).hexdigest() == recorded.get("sha256") else None


def _build(path: Path, chunks: Iterable[Ids], dtype: np.dtype[Any]) -> None:
    # Every process and thread writes a file of its own and renames it: of two racers the last
    # wins, with the same content.
    temporary = path.with_suffix(f".{os.getpid()}-{get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            recorded = _write(file, chunks, dtype)
        temporary.replace(path)
        temporary.write_text(json.dumps(recorded) + "\n")
        temporary.replace(path.with_suffix(".json"))
    finally:
        temporary.unlink(missing_ok=True)


def _write(file: BinaryIO, chunks: Iterable[Ids], dtype: np.dtype[Any]) -> dict[str, object]:
    """Writes a .npy file of unknown length: header, ids, then the header again with the count."""
    digest = hashlib.sha256()
    num_tokens = 0
    _write_header(file, 0, dtype)
    offset = file.tell()
    for block in _blocks(chunks, dtype):
        data = block.tobytes()
        digest.update(data)
        file.write(data)
        num_tokens += len(block)
    file.seek(0)
    _write_header(file, num_tokens, dtype)
    if file.tell() != offset:
        raise OSError("the .npy header changed its size")
    return {"num_tokens": num_tokens, "sha256": digest.hexdigest()}


def _write_header(file: BinaryIO, num_tokens: int, dtype: np.dtype[Any]) -> None:
    header = {
        "descr": npy.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (num_tokens,),
    }
    npy.write_array_header_1_0(file, header)


def _blocks(chunks: Iterable[Ids], dtype: np.dtype[Any]) -> Iterator[np.ndarray[Any, Any]]:
    for chunk in chunks:
        block = np.asarray(chunk)
        if block.size and (block.min() < 0 or block.max() > np.iinfo(dtype).max):
            raise ValueError(f"token ids outside {dtype}: {block.min()} to {block.max()}")
        yield block.astype(dtype)
