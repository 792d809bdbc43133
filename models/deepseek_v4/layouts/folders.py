"""Reads the tensors of a checkpoint's folder, whatever its layout, into a model.

A folder holds `model.safetensors`, or shards with `model.safetensors.index.json`. Names, shapes and
types are known from the files' headers, so that what does not fit is found before anything is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.deepseek_v4.layouts.headers import FP4_TYPES, FP8_TYPES, Stored, read_headers
from models.deepseek_v4.layouts.names import DOWN_MATRIX, Place, ours, rows_of
from models.deepseek_v4.layouts.quantized import BLOCK, ROW, from_fp4, from_fp8
from models.deepseek_v4.model import DeepseekV4
from models.errors import ModelError

SCALES = (".scale", ".weight_scale_inv")
LEFT_OUT = ("mtp.", "model.mtp.")
"""Layers that only draft; no answer depends on them."""


class Part(NamedTuple):
    """A stored tensor, where it goes, and its scales if it is quantised."""

    name: str
    place: Place
    scale: str | None


def load_folder_into(model: DeepseekV4, folder: Path) -> None:
    """Fill every weight of `model` from the folder.

    Raises:
        ModelError: a file cannot be read, or a tensor is missing, unknown, of another shape, or of
            a type that is not read.
    """
    stored = read_headers(folder)
    parts = find_parts(stored, shapes_of(model), folder)
    targets = model.state_dict()
    with ExitStack() as stack, torch.no_grad():
        files: dict[Path, Any] = {}

        def tensor(name: str) -> Tensor:
            path = stored[name].path
            if path not in files:
                files[path] = stack.enter_context(_opened(path))
            read: Tensor = files[path].get_tensor(name)
            return read

        for part in parts:
            numbers = _numbers(tensor(part.name), tensor(part.scale) if part.scale else None)
            rows_of(targets[part.place.name], part.place).copy_(numbers)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelError(f"model: {path} cannot be read: {error}") from None


def shapes_of(model: DeepseekV4) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that a checkpoint of `model` has."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def find_parts(
    stored: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]], folder: Path
) -> list[Part]:
    """The stored tensors that together fill tensors of the given shapes, each number once.

    Raises:
        ModelError: one line that names the first tensor that does not fit.
    """
    places = _places(stored, shapes, folder)
    parts = []
    filled = dict.fromkeys(shapes, 0)
    for name, place in places.items():
        if place.name not in shapes:
            raise _misfit(folder, f"{name} is no tensor of this configuration")
        wanted = shapes[place.name] if place.expert is None else _expert_shape(shapes, place)
        count = 1 if place.expert is None else shapes[place.name][0]
        if place.expert is not None and place.expert >= count:
            raise _misfit(folder, f"{name} is one expert more than the {count} of config.json")
        scale = next((s for s in _scale_names(name) if s in stored), None)
        _check(stored, name, scale, wanted, folder)
        parts.append(Part(name, place, scale))
        filled[place.name] += _size(wanted)
    for name, shape in shapes.items():
        if filled[name] != _size(shape):
            raise _misfit(folder, f"{_missing(name, places)} is missing")
    return parts


def _places(
    stored: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]], folder: Path
) -> dict[str, Place]:
    """Where each stored tensor goes, scales and draft layers left out.

    A name of the model itself is its own place: latent attention has no published names in V4.
    """
    places = {}
    for name in stored:
        if name.startswith(LEFT_OUT) or _scaled(name, stored) is not None:
            continue
        place = Place(name) if name in shapes else ours(name)
        if place is None and (weight := _lost_weight(name)) is not None:
            raise _misfit(folder, f"{weight} is missing")
        if place is None:
            raise _misfit(folder, f"{name} is no tensor of DeepSeek-V4")
        places[name] = place
    return places


def _scale_names(name: str) -> Iterable[str]:
    base = name.removesuffix(".weight")
    return (base + ending for ending in SCALES) if base != name else ()


def _scaled(name: str, stored: Mapping[str, Stored]) -> str | None:
    """The weight whose scales a tensor holds; None where it holds none."""
    for ending in SCALES:
        weight = f"{name.removesuffix(ending)}.weight"
        if name.endswith(ending) and weight in stored:
            return weight
    return None


def _lost_weight(name: str) -> str | None:
    """The weight that scales without one belong to; None where `name` holds no scales."""
    bases = (name.removesuffix(ending) for ending in SCALES if name.endswith(ending))
    weights = (f"{base}.weight" for base in bases)
    return next((weight for weight in weights if ours(weight) is not None), None)


def _check(
    stored: Mapping[str, Stored],
    name: str,
    scale: str | None,
    wanted: tuple[int, ...],
    folder: Path,
) -> None:
    """Raises: ModelError where a tensor is not of the wanted shape, or its scales are not."""
    kind, shape = stored[name].dtype, stored[name].shape
    if scale is None:
        if kind in (*FP8_TYPES, *FP4_TYPES):
            raise _misfit(folder, f"{name} is of type {kind} and has no scales")
        if shape != wanted:
            raise _misfit(folder, f"{name} has shape {list(shape)}, expected {list(wanted)}")
        return
    rows, columns = wanted
    expected: dict[str, tuple[int, ...]]
    if kind in FP4_TYPES:
        expected = {name: (rows, columns // 2), scale: (rows, columns // ROW)}
    elif kind in FP8_TYPES:
        expected = {name: wanted, scale: (-(-rows // BLOCK), -(-columns // BLOCK))}
    else:
        raise _misfit(folder, f"{name} has scales and is of type {kind}, expected FP8 or FP4")
    for tensor, shape in expected.items():
        if stored[tensor].shape != shape:
            found = list(stored[tensor].shape)
            raise _misfit(folder, f"{tensor} has shape {found}, expected {list(shape)}")


def _expert_shape(shapes: Mapping[str, tuple[int, ...]], place: Place) -> tuple[int, ...]:
    """Of one matrix of one expert."""
    _, rows, columns = shapes[place.name]
    return (rows, columns) if place.matrix == DOWN_MATRIX else (rows // 2, columns)


def _numbers(tensor: Tensor, scales: Tensor | None) -> Tensor:
    if scales is None:
        return tensor
    if tensor.dtype == torch.float8_e4m3fn:
        return from_fp8(tensor, scales)
    return from_fp4(tensor, scales)


def _missing(name: str, places: Mapping[str, Place]) -> str:
    """A tensor that is not whole: its name, or what of it is there."""
    held = sum(place.name == name for place in places.values())
    return f"{name} (its experts but {held} matrices)" if held else name


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _misfit(folder: Path, reason: str) -> ModelError:
    return ModelError(f"model: weights do not fit {folder / 'config.json'}: {reason}")
