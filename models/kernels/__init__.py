"""Kernels for inference on a CPU: what torch computes with many small operations, in one pass.

Compiled on first use by numba, and kept on disk. Numba rather than a C++ extension because it
comes as a wheel: a fresh machine has Python and no compiler, so with C++ the slow path would be
the common one. Where register tiling decides (the indexer's scores) the kernel is written as
LLVM vectors, which leaves nothing that a C++ compiler would do better.

Every kernel has a plain torch twin that is its oracle in tests and its fallback: without numba,
without vector units, while gradients are wanted, or with NIAH_NATIVE=0 in the environment.
"""

from __future__ import annotations

import os
from functools import cache

import torch
from torch import Tensor

SWITCH = "NIAH_NATIVE"


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels may take the place of torch for these operands."""
    if torch.is_grad_enabled() or os.environ.get(SWITCH) == "0" or _missing():
        return False
    return all(t.dtype is torch.float32 and t.is_cpu for t in tensors)


def describe() -> str:
    """Which path inference takes, and why, in a few words for environment files."""
    if os.environ.get(SWITCH) == "0":
        return f"torch ({SWITCH}=0)"
    missing = _missing()
    if missing:
        return f"torch ({missing})"
    import numba

    return f"numba {numba.__version__}"


@cache
def _missing() -> str | None:
    """What the kernels lack on this machine; None if nothing."""
    try:
        from models.kernels.compile import VECTOR_UNIT
    except ImportError as error:
        return f"no numba: {error}"
    return None if VECTOR_UNIT else "the processor has no fused multiply-add"
