"""A session in a file: a long prefill can be taken up again where it was left.

One safetensors file with every layer's memory and, as metadata, the position and the weights it
belongs to. A restored session goes on bit for bit like the one that was saved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.deepseek_v4.cache import LayerCache, Tensors, below
from models.errors import ModelError
from models.files import replacing

FORMAT = "2"


class State(NamedTuple):
    """What a session is made of besides its model; `notes` are the saver's own."""

    position: int
    tensors: Tensors
    notes: dict[str, str]


def save(path: Path, fingerprint: str, state: State) -> None:
    """Write a whole file or none. Raises: OSError."""
    metadata = {"format": FORMAT, "fingerprint": fingerprint, "position": str(state.position)}
    tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(tensors, partial, {**metadata, "notes": json.dumps(state.notes)})
        except SafetensorError as error:  # a full disk, say
            raise OSError(str(error)) from None


def load(path: Path, fingerprint: str) -> State:
    """Raises: ModelError where the file is torn, or of other weights or another format."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            expected = {"format": FORMAT, "fingerprint": fingerprint}
            for name, wanted in expected.items():
                if metadata.get(name) != wanted:
                    found = metadata.get(name)
                    raise ModelError(f"{path}: {name} = {found}: expected {wanted}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return State(int(metadata["position"]), tensors, json.loads(metadata["notes"]))
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: cannot be read as a session: {error}") from None


def layer_tensors(caches: list[LayerCache]) -> Tensors:
    """Every layer's tensors, by layer and name."""
    return {
        f"{i}.{name}": tensor
        for i, cache in enumerate(caches)
        for name, tensor in cache.tensors().items()
    }


def layer_caches(tensors: Tensors, empty: list[LayerCache]) -> list[LayerCache]:
    """Caches of the kinds and formats of `empty`, with what `layer_tensors` gave."""
    return [cache.of(below(tensors, str(i))) for i, cache in enumerate(empty)]
