"""Entries of a compressor: softmax of a window's gates, and the mix of its values, in one pass.

Report section 2.3.1, equations 11 and 12, and 2.3.2. Shapes: n entries, m tokens an entry, C entry
width, W = C, or 2C where an entry covers the m tokens before its own too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.compile import kernel, reordering_kernel
from models.kernels.floats import exp
from models.kernels.team import in_shares
from models.kernels.threads import How, run_shares

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
SHARE = 32  # entries worth a thread


def pool(values: Tensor, gates: Tensor, before: tuple[Tensor, Tensor], ratio: int) -> Tensor:
    """Values and gates [B, n * m, W] of whole windows -> entries [B, n, C].

    `before` is the share [B, m, C] that the window before them has in the first entry, or with
    W = C [B, 0, C].
    """
    size, width = values.shape[1] // ratio, before[0].shape[-1]
    entries = values.new_empty(len(values), size, width)
    numbers = np.arange(size)
    operands = [t.contiguous().numpy() for t in (values, gates, *before)]
    for out, *arrays in zip(entries.numpy(), *operands, strict=True):
        run_shares(_pool_shares, SHARE, (numbers, out), (*arrays, ratio))
    return entries


@reordering_kernel
def _pool(
    numbers: Ints,
    entries: Floats,
    values: Floats,
    gates: Floats,
    values_before: Floats,
    gates_before: Floats,
    ratio: int,
) -> None:
    width = entries.shape[1]
    own = np.uint64(values.shape[1] - width)
    tops, totals = np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(len(numbers)):
        start = numbers[i] * ratio
        tops[:], totals[:], entries[i, :] = -np.inf, 0, 0
        _raise(tops, gates, start, ratio, own)
        if own and start:
            _raise(tops, gates, start - ratio, ratio, np.uint64(0))
            _mix(values, gates, start - ratio, ratio, np.uint64(0), tops, totals, entries, i)
        elif own:
            _raise(tops, gates_before, 0, ratio, np.uint64(0))
            _mix(values_before, gates_before, 0, ratio, np.uint64(0), tops, totals, entries, i)
        _mix(values, gates, start, ratio, own, tops, totals, entries, i)
        for c in range(width):
            entries[i, c] /= totals[c]


@reordering_kernel
def _raise(tops: Floats, gates: Floats, start: int, count: int, first: np.uint64) -> None:
    """To the highest gates, of channels first .. first + C - 1 of tokens from `start` on."""
    for j in range(start, start + count):
        for c in range(np.uint64(len(tops))):
            tops[c] = max(tops[c], gates[j, first + c])


@reordering_kernel
def _mix(
    values: Floats,
    gates: Floats,
    start: int,
    count: int,
    first: np.uint64,
    tops: Floats,
    totals: Floats,
    entries: Floats,
    i: int,
) -> None:
    """Add them to entry i."""
    for j in range(start, start + count):
        for c in range(np.uint64(len(tops))):
            weight = exp(gates[j, first + c] - tops[c])
            totals[c] += weight
            entries[i, c] += weight * values[j, first + c]


@kernel
def _pool_shares(how: How) -> int:
    return in_shares(_pool, how)
