"""Rows of few bits to float32, in one pass: the codes of a block, times its scale.

See `models.number_formats`. Shapes: n rows, C channels, b blocks of `block` channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.compile import kernel
from models.kernels.team import in_shares
from models.kernels.threads import How, Launch, run_shares

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
SHARE = 4096  # rows worth a thread


def unpack_e4m3(
    stored: Tensor, scales: Tensor, block: int, channels: int, at: tuple[int, int], out: Tensor
) -> None:
    """Codes of `channels` in stored [n, S] from byte at[0] on -> out [n, W] from channel at[1] on.

    `scales` [n, b].
    """
    _in_shares(_e4m3_shares, stored, scales, out, block, channels, *at)


def unpack_e2m1(
    stored: Tensor, scales: Tensor, block: int, channels: int, at: tuple[int, int], out: Tensor
) -> None:
    """As `unpack_e4m3`, two codes a byte; `block` and `channels` are even."""
    _in_shares(_e2m1_shares, stored, scales, out, block, channels, *at)


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
    _in_shares(_integers_shares, stored, pairs, out, block, channels, *at, bits)


def _in_shares(launch: Launch, stored: Tensor, scales: Tensor, out: Tensor, *others: int) -> None:
    run_shares(launch, SHARE, (stored.numpy(), scales.contiguous().numpy(), out.numpy()), others)


@kernel
def _e4m3(
    codes: Bytes, scales: Floats, out: Floats, block: int, channels: int, at: int, to: int
) -> None:
    """Numbers in units of 2 ** -9, the least that the code has: subnormal floats are slow."""
    for i in range(len(out)):
        for start in range(0, channels, block):
            scale = scales[i, start // block] * np.float32(2.0**-9)
            stop = min(start + block, channels)
            source, target = codes[i, at + start : at + stop], out[i, to + start : to + stop]
            for c in range(len(target)):
                code = np.int32(source[c])
                exponent = (code >> np.int32(3)) & np.int32(15)
                normal = np.int32(exponent > 0)
                size = ((code & np.int32(7)) + (normal << np.int32(3))) << (exponent - normal)
                sign = np.int32(1) - ((code >> np.int32(7)) << np.int32(1))
                target[c] = np.float32(sign * size) * scale


@kernel
def _e2m1(
    codes: Bytes, scales: Floats, out: Floats, block: int, channels: int, at: int, to: int
) -> None:
    """As `_e4m3`, in units of 1 / 2."""
    for i in range(len(out)):
        for start in range(0, channels, block):
            scale = scales[i, start // block] * np.float32(0.5)
            stop = min(start + block, channels)
            source = codes[i, at + start // 2 : at + stop // 2]
            target = out[i, to + start : to + stop]
            for c in range(len(source)):
                code = np.int32(source[c])
                target[2 * c] = np.float32(_halves(code & np.int32(15))) * scale
                target[2 * c + 1] = np.float32(_halves(code >> np.int32(4))) * scale


@kernel
def _halves(code: Any) -> Any:
    """Twice the number that a code of e2m1 stands for."""
    exponent = (code >> np.int32(1)) & np.int32(3)
    normal = np.int32(exponent > 0)
    size = ((code & np.int32(1)) + (normal << np.int32(1))) << (exponent - normal)
    return (np.int32(1) - ((code >> np.int32(3)) << np.int32(1))) * size


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
    for i in range(n):
        for start in range(0, channels, block):
            least, step = pairs[i, start // block * 2], pairs[i, start // block * 2 + 1]
            stop = min(start + block, channels)
            source = codes[i, at + start // each : at + stop // each]
            target = out[i, to + start : to + stop]
            if bits == 8:
                for c in range(len(source)):
                    target[c] = np.float32(source[c]) * step + least
            elif bits == 4:
                for c in range(len(source)):
                    code = np.int32(source[c])
                    target[2 * c] = np.float32(code & np.int32(15)) * step + least
                    target[2 * c + 1] = np.float32(code >> np.int32(4)) * step + least
            else:
                for c in range(len(source)):
                    code = np.int32(source[c])
                    target[4 * c] = np.float32(code & np.int32(3)) * step + least
                    code = code >> np.int32(2)
                    target[4 * c + 1] = np.float32(code & np.int32(3)) * step + least
                    code = code >> np.int32(2)
                    target[4 * c + 2] = np.float32(code & np.int32(3)) * step + least
                    target[4 * c + 3] = np.float32(code >> np.int32(2)) * step + least


@kernel
def _e4m3_shares(how: How) -> int:
    return in_shares(_e4m3, how)


@kernel
def _e2m1_shares(how: How) -> int:
    return in_shares(_e2m1, how)


@kernel
def _integers_shares(how: How) -> int:
    return in_shares(_integers, how)
