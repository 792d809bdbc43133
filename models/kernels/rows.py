"""What projections pass through, row by row, in one pass: RMSNorm and rotary embedding.

See `models.layers`. Shapes: N rows, C channels, P rotary pairs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.compile import kernel, reordering_kernel
from models.kernels.team import in_shares
from models.kernels.threads import How, run_shares

Floats = NDArray[np.float32]
SHARE = 1024  # rows worth a thread


def normalize(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """x [..., C] / rms(x), times `weight` [C]."""
    out = x.new_empty(x.shape)
    factors = x.new_ones(x.shape[-1]) if weight is None else weight.detach()
    source, target = (t.reshape(-1, x.shape[-1]).numpy() for t in (x, out))
    scale, small = factors.numpy(), np.float32(eps)
    run_shares(_normalize_shares, SHARE, (source, target), (scale, small))
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The last 2P channels of x [B, S, ..., C] turned; cos and sin [S, 2P], signs folded in."""
    out = x.new_empty(x.shape)
    heads = (x.flatten(2, -2) if x.ndim > 3 else x.unsqueeze(2)).contiguous()
    angles = cos.numpy(), sin.numpy()
    for source, target in zip(heads.numpy(), out.view(heads.shape).numpy(), strict=True):
        run_shares(_rotate_shares, SHARE, (source, *angles, target))
    return out


@reordering_kernel
def _normalize(x: Floats, out: Floats, weight: Floats, eps: np.float32) -> None:
    n, width = x.shape
    for t in range(n):
        squares = np.float32(0)
        for c in range(width):
            squares += x[t, c] * x[t, c]
        inverse = np.float32(1) / np.sqrt(squares / np.float32(width) + eps)
        for c in range(width):
            out[t, c] = x[t, c] * inverse * weight[c]


@kernel
def _rotate(x: Floats, cos: Floats, sin: Floats, out: Floats) -> None:
    """x [S, H, C]."""
    count, heads, width = x.shape
    turned = cos.shape[1]
    first = np.uint64(width - turned)
    for s in range(count):
        for h in range(heads):
            for c in range(first):
                out[s, h, c] = x[s, h, c]
            for pair in range(np.uint64(turned // 2)):
                i = pair + pair
                j, a, b = i + np.uint64(1), first + i, first + i + np.uint64(1)
                left, right = x[s, h, a], x[s, h, b]
                out[s, h, a] = left * cos[s, i] + right * sin[s, i]
                out[s, h, b] = right * cos[s, j] + left * sin[s, j]


@kernel
def _normalize_shares(how: How) -> int:
    return in_shares(_normalize, how)


@kernel
def _rotate_shares(how: How) -> int:
    return in_shares(_rotate, how)
