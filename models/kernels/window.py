"""The softmax of attention to an exact window: logits of a band in, weights out, in one pass.

Report section 2.3.1. Shapes: N blocks, b queries of a block, H heads, w window; a block's query r
sees its slots r .. r + w - 1 of w - 1 + b.
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
    count, queries, heads, slots = logits.shape
    for n in range(count):
        for r in range(queries):
            for h in range(heads):
                row = logits[n, r, h]
                band = row[r : r + window]
                top = band[0]
                for i in range(len(band)):
                    top = max(top, band[i])
                total = np.float32(0)
                for i in range(len(band)):
                    weight = exp(band[i] - top)
                    band[i] = weight
                    total += weight
                inverse = np.float32(1) / total
                for i in range(len(band)):
                    band[i] *= inverse
                for i in range(r):
                    row[i] = np.float32(0)
                for i in range(r + window, slots):
                    row[i] = np.float32(0)
                log_total[n, r, h] = top + np.log(total)


@kernel
def _softmax_shares(how: How) -> int:
    return in_shares(_softmax, how)
