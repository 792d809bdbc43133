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
    own = values.shape[1] - width  # the first channel of a token's share in its own entry
    tops, totals = np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(len(numbers)):
        start = numbers[i] * ratio
        stop, entry = start + ratio, entries[i]
        tops[:], totals[:], entry[:] = -np.inf, 0, 0
        _raise(tops, gates[start:stop], own)
        if own and start:
            earlier, their = values[start - ratio : start], gates[start - ratio : start]
            _raise(tops, their, 0)
            _mix(earlier, their, 0, tops, totals, entry)
        elif own:
            _raise(tops, gates_before, 0)
            _mix(values_before, gates_before, 0, tops, totals, entry)
        _mix(values[start:stop], gates[start:stop], own, tops, totals, entry)
        for c in range(width):
            entry[c] /= totals[c]


@reordering_kernel
def _raise(tops: Floats, gates: Floats, first: int) -> None:
    """To the highest gates, of channels first .. first + C - 1 of some tokens."""
    for j in range(len(gates)):
        gate = gates[j, first:]
        for c in range(len(tops)):
            tops[c] = max(tops[c], gate[c])


@reordering_kernel
def _mix(
    values: Floats, gates: Floats, first: int, tops: Floats, totals: Floats, entry: Floats
) -> None:
    """Add channels first .. first + C - 1 of some tokens."""
    for j in range(len(values)):
        value, gate = values[j, first:], gates[j, first:]
        for c in range(len(entry)):
            weight = exp(gate[c] - tops[c])
            totals[c] += weight
            entry[c] += weight * value[c]


@kernel
def _pool_shares(how: How) -> int:
    return in_shares(_pool, how)
