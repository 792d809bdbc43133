"""Attention of each query over rows of its own: they are read where they lie, never copied.

Report section 2.3.1, equations 18 and 19. Shapes: B batch, S queries, H heads, C width, k picks.
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
Ints = NDArray[np.int64]
SHARE = 64  # queries worth a thread


def attend_rows(q: Tensor, rows: Tensor, chosen: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the chosen rows: the mix [B, H, S, C], and its denominator's log [B, H, S].

    Args:
        q: [B, S, H, C], scaled.
        rows: [B, n, C], keys and values in one.
        chosen: [B, S, k] indices.
        counts: [S], how many of a query's indices are real; the log is -inf where none is.
    """
    output, log_total = q.new_empty(q.shape), q.new_empty(q.shape[:3])
    split = [t.contiguous().numpy() for t in (q, chosen, output, log_total)]
    real, keys = counts.contiguous().numpy(), rows.contiguous().numpy()
    for b in range(len(q)):
        run_shares(_attend_rows_shares, SHARE, (real, *(each[b] for each in split)), (keys[b],))
    return output.transpose(1, 2), log_total.transpose(1, 2)


@reordering_kernel
def _attend_rows(
    counts: Ints, q: Floats, chosen: Ints, output: Floats, log_total: Floats, rows: Floats
) -> None:
    num_queries, heads, dim = q.shape
    logits = np.empty((heads, chosen.shape[1]), np.float32)
    bits = logits.view(np.int32)
    for s in range(num_queries):
        count = counts[s]
        for i in range(count):
            place = chosen[s, i]
            for h in range(heads):
                dot = np.float32(0)
                for c in range(dim):
                    dot += q[s, h, c] * rows[place, c]
                logits[h, i] = dot
        for h in range(heads):
            for c in range(dim):
                output[s, h, c] = np.float32(0)
            if count == 0:
                log_total[s, h] = -np.inf
                continue
            most = np.int32(LEAST)
            for i in range(count):
                most = max(most, ordered(bits[h, i]))
            top: Any = as_float(ordered(most))  # type: ignore[call-arg]
            total = np.float32(0)
            for i in range(count):
                logits[h, i] = exp(logits[h, i] - top)
                total += logits[h, i]
            inverse = np.float32(1) / total
            log_total[s, h] = top - np.log(inverse)
            for i in range(count):
                logits[h, i] *= inverse
        for i in range(count):
            place = chosen[s, i]
            for h in range(heads):
                weight = logits[h, i]
                for c in range(dim):
                    output[s, h, c] += weight * rows[place, c]


@kernel
def _attend_rows_shares(how: How) -> int:
    return in_shares(_attend_rows, how)
