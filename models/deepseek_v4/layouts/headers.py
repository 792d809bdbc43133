"""What safetensors files hold, from their headers alone: names, shapes and types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import ModelError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FP8_TYPES = ("F8_E4M3",)
FP4_TYPES = ("I8", "U8")
"""Two numbers a byte."""
LONGEST_HEADER = 100_000_000  # bytes, as in safetensors itself


class Stored(NamedTuple):
    """A tensor in a file. FP4 counts bytes: half as many columns as numbers."""

    path: Path
    shape: tuple[int, ...]
    dtype: str


def read_headers(folder: Path) -> dict[str, Stored]:
    """The tensors of a folder, shards included.

    Raises:
        ModelError: no weights, a shard that is missing or torn, or an index that names a tensor
            which its shard does not hold.
    """
    index = folder / INDEX
    if not index.exists():
        return read_header(folder / SINGLE)
    shards = read_index(index)
    stored: dict[str, Stored] = {}
    for shard in sorted(set(shards.values())):
        stored |= read_header(folder / shard)
    lost = next((name for name in shards if name not in stored), None)
    if lost is not None:
        raise ModelError(f"model: {folder / shards[lost]} does not hold {lost}, as {INDEX} says")
    return stored


def read_index(path: Path) -> dict[str, str]:
    """The shard of each tensor. Raises: ModelError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): _file_name(shard) for name, shard in values["weight_map"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"model: {path} is no index of safetensors: {error}") from None


def _file_name(shard: Any) -> str:
    """Raises: ValueError for what is no plain name: an index may come from anybody."""
    if not isinstance(shard, str) or Path(shard).name != shard:
        raise ValueError(f"a shard's name is {shard!r}, expected a file's name without folders")
    return shard


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file. Raises: ModelError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LONGEST_HEADER:
                raise ValueError(f"its header would take {length} bytes")
            values = json.loads(file.read(length))
        return {
            name: Stored(path, tuple(int(n) for n in entry["shape"]), str(entry["dtype"]))
            for name, entry in values.items()
            if name != "__metadata__"
        }
    except OSError as error:
        raise ModelError(f"model: {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"model: {path} cannot be read: {error}") from None
