"""Functions of a float that kernels use inside their loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from models.kernels.compile import kernel

LARGEST_EXP = np.float32(87)
"""The largest operand of `exp`."""
LEAST = -(2**31)
"""Below all that `ordered` gives."""


@intrinsic
def as_float(typing: Any, bits: Any) -> Any:
    """The float with these 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@kernel
def exp(x: np.float32) -> np.float32:
    """exp(x) for x <= 87 within 2 units in the last place, in operations that a vector has."""
    x = max(x, np.float32(-87.0))
    whole = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - whole * np.float32(0.693359375) - whole * np.float32(-2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * r + np.float32(1.3981999507e-3)
    y = y * r + np.float32(8.3334519073e-3)
    y = y * r + np.float32(4.1665795894e-2)
    y = y * r + np.float32(1.6666665459e-1)
    y = y * r + np.float32(5.0000001201e-1)
    y = y * r * r + r + np.float32(1.0)
    scale: Any = as_float((np.int32(whole) + np.int32(127)) << np.int32(23))  # type: ignore[call-arg]
    return np.float32(y * scale)


@kernel
def ordered(bits: np.int32) -> np.int32:
    """Integers that are in the order of the floats with these bits, and back: NaN is the highest.

    Vectors of integers are compared at once; of floats one by one, for there may be a NaN.
    """
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))
