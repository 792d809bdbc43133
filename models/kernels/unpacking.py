"""Rows of few bits to float32, in one pass: the codes of a block, times its scale.

See `models.number_formats`. Shapes: n rows, C channels, b blocks of `block` channels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.compile import as_float, kernel
from models.kernels.threads import run_shares

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
SHARE = 4096  # rows worth a thread


def unpack_e4m3(
    stored: Tensor, scales: Tensor, block: int, channels: int, at: tuple[int, int], out: Tensor
) -> None:
    """Codes of `channels` in stored [n, S] from byte at[0] on -> out [n, W] from channel at[1] on.

    `scales` [n, b].
    """
    _in_shares(_e4m3, stored, scales, out, block, channels, *at)


def unpack_e2m1(
    stored: Tensor, scales: Tensor, block: int, channels: int, at: tuple[int, int], out: Tensor
) -> None:
    """As `unpack_e4m3`, two codes a byte; `block` and `channels` are even."""
    _in_shares(_e2m1, stored, scales, out, block, channels, *at)


def unpack_integers(
    stored: Tensor,
    bits: int,
    pairs: Tensor,
    block: int,
    channels: int,
    at: tuple[int, int],
    out: Tensor,
) -> None:
    """As `unpack_e4m3`; `pairs` [n, 2 b] are least and step of each block."""
    _in_shares(_integers, stored, pairs, out, block, channels, *at, bits)


def _in_shares(
    rows_of: Callable[..., None], stored: Tensor, scales: Tensor, out: Tensor, *others: int
) -> None:
    codes, factors, found = stored.numpy(), scales.contiguous().numpy(), out.numpy()

    def work(part: slice) -> None:
        rows_of(codes[part], factors[part], found[part], *others)

    run_shares(len(codes), SHARE, work)


@kernel
def _e4m3(
    codes: Bytes, scales: Floats, out: Floats, block: int, channels: int, at: int, to: int
) -> None:
    """The code's exponent and fraction are shifted to float32's: off by 2 ** 120, as are the
    subnormal numbers."""
    n = len(out)
    factor = np.float32(2.0**120)
    for i in range(n):
        for start in range(0, channels, block):
            scale = scales[i, start // block]
            for c in range(start, min(start + block, channels)):
                code = np.int32(codes[i, at + c])
                bits = ((code & np.int32(128)) << np.int32(24)) | (
                    (code & np.int32(127)) << np.int32(20)
                )
                out[i, to + c] = as_float(bits) * factor * scale  # type: ignore[call-arg]


@kernel
def _e2m1(
    codes: Bytes, scales: Floats, out: Floats, block: int, channels: int, at: int, to: int
) -> None:
    """As `_e4m3`, off by 2 ** 126."""
    n = len(out)
    factor = np.float32(2.0**126)
    for i in range(n):
        for start in range(0, channels, block):
            scale = scales[i, start // block]
            stop = min(start + block, channels)
            for c in range(start // 2, stop // 2):
                code = np.int32(codes[i, at + c])
                low = ((code & np.int32(8)) << np.int32(28)) | (
                    (code & np.int32(7)) << np.int32(22)
                )
                high = ((code & np.int32(128)) << np.int32(24)) | (
                    (code & np.int32(112)) << np.int32(18)
                )
                out[i, to + 2 * c] = as_float(low) * factor * scale  # type: ignore[call-arg]
                out[i, to + 2 * c + 1] = as_float(high) * factor * scale


@kernel
def _integers(
    codes: Bytes,
    pairs: Floats,
    out: Floats,
    block: int,
    channels: int,
    at: int,
    to: int,
    bits: int,
) -> None:
    n = len(out)
    each = 8 // bits
    mask = np.int32((1 << bits) - 1)
    for i in range(n):
        for start in range(0, channels, block):
            least, step = pairs[i, start // block * 2], pairs[i, start // block * 2 + 1]
            stop = min(start + block, channels)
            if bits == 8:
                for c in range(start, stop):
                    out[i, to + c] = np.float32(codes[i, at + c]) * step + least
            elif bits == 4:
                for c in range(start // 2, stop // 2):
                    code = np.int32(codes[i, at + c])
                    out[i, to + 2 * c] = np.float32(code & np.int32(15)) * step + least
                    out[i, to + 2 * c + 1] = np.float32(code >> np.int32(4)) * step + least
            else:
                for c in range(start // each, stop // each):
                    code = np.int32(codes[i, at + c])
                    for place in range(each):
                        value = (code >> np.int32(bits * place)) & mask
                        out[i, to + each * c + place] = np.float32(value) * step + least
