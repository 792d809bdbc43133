"""Bytes that a cache of transformers holds, by kind, read off its distinct storages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from models.deepseek_v4.config import HCA
from models.transformers_models.growing import Rows

CACHE_KINDS = {
    "window": "keys and values of the newest tokens, in layers that keep no others",
    "full": "every token's keys and values",
    "csa": "entries of a few tokens each, of which a query reads some (CSA)",
    "index": "keys of an indexer, by which a query chooses tokens or entries",
    "hca": "entries of many tokens each, all of which a query reads (HCA)",
    "state": "states of convolutions and of linear attention, the same at any length",
    "quantized": "keys and values in few bits, with their scales",
    "residual": "the newest keys and values of a quantized layer, not quantized yet",
    "queries": "what a press has seen of queries, until the context ends",
    "inputs": "what a press of kvpress has seen of attention layers' inputs, till the context ends",
    "pages": "bounds of the keys of each page, by which queries choose pages",
    "offloaded": "keys and values in the CPU's memory, while another layer works",
    "tail": "other state",
    "reserve": "room for the tokens to come in full layers: mostly one row in 32, at most 128",
}

SETTINGS = ("optimizer", "qtype", "quantizer")  # of quantized layers; objects without state
PLAIN = (type(None), bool, int, float, str, type, torch.dtype, torch.device, torch.Size)


class UnknownStateError(Exception):
    """An object in which tensors may hide."""


def held_bytes(cache: Any) -> dict[str, int] | None:
    """Bytes of distinct storages by kind; None where a layer holds what cannot be looked into."""
    total: dict[str, int] = {}
    seen: set[int] = set()  # K and V, or several layers, may be one storage
    offloading = getattr(cache, "offloading", False)
    try:
        for layer in cache.layers:
            for name, value in vars(layer).items():
                if name in SETTINGS:
                    continue
                for kind, tensor, spare in _found(layer, name, value):
                    storage = tensor.untyped_storage()
                    if offloading and tensor.device.type == "cpu":
                        kind = "offloaded"
                    if storage.data_ptr() not in seen and storage.nbytes():
                        seen.add(storage.data_ptr())
                        total[kind] = total.get(kind, 0) + storage.nbytes() - spare
                        if spare:
                            total["reserve"] = total.get("reserve", 0) + spare
    except UnknownStateError:
        return None
    return total


def window_bytes(cache: Any) -> tuple[int, int]:
    """Bytes of the layers that keep the newest tokens only: now, and with full windows."""
    held: dict[int, tuple[int, int]] = {}  # K and V may be one storage
    for layer in cache.layers:
        rows = getattr(layer, "sliding_window", None)
        for states in (getattr(layer, name, None) for name in ("keys", "values")):
            if rows and isinstance(states, Tensor) and states.numel():
                storage = states.untyped_storage()
                row = states[..., :1, :].numel() * states.element_size()
                held[storage.data_ptr()] = storage.nbytes(), max(storage.nbytes(), rows * row)
    return sum(now for now, _ in held.values()), sum(full for _, full in held.values())


def _found(layer: Any, name: str, value: Any) -> Iterator[tuple[str, Tensor, int]]:
    """Kind, tensor and spare bytes of all that an attribute holds."""
    if isinstance(value, Rows):
        yield _kind(layer, name), value.table.tensor, value.spare_bytes
        return
    named = value.items() if isinstance(value, dict) else [("", value)]
    for member, part in named:
        for tensor in tensors_in(part):
            # A layer keeps its window's size as a number on the device.
            if tensor.ndim or tensor.is_floating_point():
                yield _kind(layer, name, str(member)), tensor, 0


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Plain tensors in containers and in tensors that are made of others.

    Raises:
        UnknownStateError: an object of another kind.
    """
    if isinstance(value, Tensor):
        if is_traceable_wrapper_subclass(value):
            names, _ = value.__tensor_flatten__()
            for name in names:
                yield from tensors_in(getattr(value, name))
        else:
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        for part in value:
            yield from tensors_in(part)
    elif not isinstance(value, PLAIN):
        raise UnknownStateError


def _kind(layer: Any, name: str, member: str = "") -> str:
    if name in ("keys", "values"):
        if hasattr(layer, "_quantized_keys"):
            return "residual"
        return "window" if hasattr(layer, "sliding_window") else "full"
    if name == "compressed_kv":
        if member == "indexer":
            return "index"
        return "hca" if layer._layer_type == HCA else "csa"
    return KINDS.get(name, "tail")


KINDS = {
    "indexer_keys": "index",
    "idx_keys": "index",
    "conv_states": "state",
    "recurrent_states": "state",
    "_quantized_keys": "quantized",
    "_quantized_values": "quantized",
}
