"""Finds tensors made on another device than the model's, on a machine with a CPU alone.

The default device is `meta` while a model on the CPU runs, so a factory call that names no device
makes a meta tensor, and that is refused at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RefuseMeta(TorchDispatchMode):
    """Fails where an operation returns a tensor on the meta device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            assert not isinstance(leaf, Tensor) or leaf.device.type != "meta", f"{func}"
        return result


@contextmanager
def no_default_device() -> Iterator[None]:
    with torch.device("meta"), RefuseMeta():
        yield
