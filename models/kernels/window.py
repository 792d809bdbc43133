"""The softmax of attention to an exact window: logits of a band in, weights out, in one pass.

Report section 2.3.1. Shapes: N blocks, b queries of a block, H heads, w window; a block's query r
sees its slots r .. r + w - 1 of w - 1 + b.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.compile import kernel, reordering_kernel
from models.kernels.floats import LEAST, as_float, exp, ordered
from models.kernels.team import in_shares
from models.kernels.threads import How, run_shares

Floats = NDArray[np.float32]
SHARE = 4  # blocks worth a thread


def softmax(logits: Tensor, window: int) -> Tensor:
    """Logits [N, b, H, w - 1 + b] become weights in their place, 0 outside the band.

    Returns the logs of the denominators [N, b, H].
    """
    log_total = logits.new_empty(logits.shape[:3])
    run_shares(_softmax_shares, SHARE, (logits.numpy(), log_total.numpy()), (window,))
    return log_total


@reordering_kernel
def _softmax(logits: Floats, log_total: Floats, window: int) -> None:
    """Places are unsigned: the compiler would mind negative ones, which count from the end."""
    count, queries, heads, slots = logits.shape
    flat, bits = logits.reshape(-1), logits.view(np.int32).reshape(-1)
    for n in range(count):
        for r in range(queries):
            for h in range(heads):
                row = ((n * queries + r) * heads + h) * slots
                begin, end = np.uint64(row), np.uint64(row + slots)
                first, after = np.uint64(row + r), np.uint64(row + r + window)
                most = np.int32(LEAST)
                for i in range(first, after):
                    most = max(most, ordered(bits[i]))
                top: Any = as_float(ordered(most))  # type: ignore[call-arg]
                total = np.float32(0)
                for i in range(first, after):
                    weight = exp(flat[i] - top)
                    flat[i] = weight
                    total += weight
                inverse = np.float32(1) / total
                for i in range(first, after):
                    flat[i] *= inverse
                for i in range(begin, first):
                    flat[i] = np.float32(0)
                for i in range(after, end):
                    flat[i] = np.float32(0)
                log_total[n, r, h] = top - np.log(inverse)


@kernel
def _softmax_shares(how: How) -> int:
    return in_shares(_softmax, how)
