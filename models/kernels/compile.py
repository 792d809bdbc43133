"""How kernels are compiled: without the interpreter's lock, and cached on disk.

Also what the processor's vectors hold. Importing this module needs numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(function: Kernel) -> Kernel:
    """Strict arithmetic: operations in the order written, whatever the shapes."""
    return cast(Kernel, numba.njit(nogil=True, cache=True)(function))


def reordering_kernel(function: Kernel) -> Kernel:
    """Sums may be reordered and products fused, as a vectorised reduction needs."""
    flags = {"reassoc", "contract", "nsz"}
    return cast(Kernel, numba.njit(nogil=True, cache=True, fastmath=flags)(function))


_FEATURES = llvm.get_host_cpu_features()
_X86 = llvm.get_process_triple().startswith(("x86_64", "i386", "i686"))

VECTOR_UNIT = bool(_FEATURES.get("fma")) if _X86 else True
LANES = 16 if _FEATURES.get("avx512f") else 8
"""Floats in a vector of the kernels: a register with AVX-512, one of AVX2, or two of NEON."""
VECTORS = 4 if LANES == 16 else 2
"""Vectors of keys beside each other in a tile: with 4 heads, as many sums as registers allow."""
