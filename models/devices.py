"""Devices of torch: choosing them, waiting for them, their memory, and clocks that wait."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import ModelError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def find_device(value: object) -> torch.device:
    """The device that an option names: auto, cpu, cuda, cuda:N or mps.

    Raises:
        ModelError: no device of that name, or this machine has none.
    """
    if value == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(value))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"options.device: got {value!r}, expected auto, cpu, or a device of this machine "
            f"such as cuda or mps ({reason})"
        ) from None
    return device


def find_dtype(value: object) -> torch.dtype:
    """The type that an option names. Raises: ModelError."""
    if not isinstance(value, str) or value not in DTYPES:
        raise ModelError(f"options.dtype: got {value!r}, expected one of {', '.join(DTYPES)}")
    return DTYPES[value]


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages behind `tensors`: what is allocated, used or not."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum(size for _, size in {(each.data_ptr(), each.nbytes()) for each in storages})


def free_bytes(device: str) -> int | None:
    """Memory that a device has left; None where it is the process's own, or is not known."""
    if torch.device(device).type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(torch.device(device))[0])


def reset_peak(device: str) -> None:
    """Begin to measure `peak_bytes` anew."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(torch.device(device))


def peak_bytes(device: str) -> int | None:
    """The most that torch held on a device since `reset_peak`; None where it does not count."""
    if torch.device(device).type != "cuda":
        return None
    return int(torch.cuda.max_memory_allocated(torch.device(device)))


@dataclass
class Stopwatch:
    """Seconds that a session spends on its device, by what it does."""

    device: torch.device
    prefill: float = 0.0
    decode: float = 0.0
    gold: float = 0.0

    @contextmanager
    def timing(self, field: str) -> Iterator[None]:
        """Add the block's seconds to `field`, the device's work included."""
        synchronize(self.device)
        began = time.perf_counter()
        try:
            yield
        finally:
            synchronize(self.device)
            setattr(self, field, getattr(self, field) + time.perf_counter() - began)
