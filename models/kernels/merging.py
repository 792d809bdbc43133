"""Attention over two sets of keys, or one, and a sink as one softmax, in one pass.

See `models.deepseek_v4.fused.merge`. Shapes: B batch, S queries, H heads, C width.
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
SHARE = 256  # queries worth a thread


def merge(outputs: list[Tensor], log_totals: list[Tensor], sinks: Tensor) -> Tensor:
    """Outputs [B, H, S, C] and log totals [B, H, S] of one part or two -> [B, S, H, C]."""
    mixes = [each.transpose(1, 2).contiguous().numpy() for each in outputs]
    logs = [each.transpose(1, 2).contiguous().numpy() for each in log_totals]
    merged = outputs[0].new_empty(mixes[0].shape)
    whole = (sinks.detach().numpy(),)
    for out, *parts in zip(merged.numpy(), *mixes, *logs, strict=True):
        run_shares(_SHARES[len(outputs)], SHARE, (out, *parts), whole)
    return merged


@reordering_kernel
def _with_sink(out: Floats, mix: Floats, log_total: Floats, sinks: Floats) -> None:
    count, heads, width = out.shape
    for s in range(count):
        for h in range(heads):
            log = log_total[s, h]
            top = max(log, sinks[h])
            own = exp(log - top)
            own /= own + exp(sinks[h] - top)
            for c in range(width):
                out[s, h, c] = own * mix[s, h, c]


@reordering_kernel
def _two(
    out: Floats, near: Floats, far: Floats, log_near: Floats, log_far: Floats, sinks: Floats
) -> None:
    count, heads, width = out.shape
    for s in range(count):
        for h in range(heads):
            top = max(log_near[s, h], max(log_far[s, h], sinks[h]))
            one, other = exp(log_near[s, h] - top), exp(log_far[s, h] - top)
            total = one + other + exp(sinks[h] - top)
            one, other = one / total, other / total
            for c in range(width):
                out[s, h, c] = one * near[s, h, c] + other * far[s, h, c]


@kernel
def _with_sink_shares(how: How) -> int:
    return in_shares(_with_sink, how)


@kernel
def _two_shares(how: How) -> int:
    return in_shares(_two, how)


_SHARES = {1: _with_sink_shares, 2: _two_shares}
