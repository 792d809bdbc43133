"""Manifold-constrained hyper-connections over a chunk of tokens, each in one pass.

Report section 2.2. Shapes: N tokens, K streams, D width. The Sinkhorn iterations of LANES tokens
run beside each other, a token a lane.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.compile import kernel, reordering_kernel
from models.kernels.floats import LARGEST_EXP, exp
from models.kernels.team import in_shares
from models.kernels.threads import How, run_shares

Floats = NDArray[np.float32]
SHARE = 128  # tokens worth a thread
LANES = 64  # tokens side by side: several vectors, which a core's first cache holds


def collapse(
    streams: Tensor,
    gates: Tensor,
    scale: Tensor,
    base: Tensor,
    eps: float,
    norm_eps: float,
    iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """streams [N, K, D], contiguous -> sublayer input [N, D], post [N, K], mix [N, K, K].

    `gates` [N, (2 + K) K] are W_fn times the streams, which are not normalised yet.
    """
    n, k, d = streams.shape
    outputs = tuple(streams.new_empty(n, *shape) for shape in ((d,), (k,), (k, k)))
    x, z, *out = (t.numpy() for t in (streams, gates, *outputs))
    constants = scale.detach().numpy(), base.detach().numpy()
    small = np.float32(eps), np.float32(norm_eps)
    run_shares(_collapse_shares, SHARE, (x, z, *out), (*constants, *small, iterations))
    return outputs[0], outputs[1], outputs[2]


def spread(output: Tensor, streams: Tensor, post: Tensor, mix: Tensor) -> None:
    """X'_k = post_k y + sum_j mix[j, k] X_j in the place of streams [N, K, D]; all contiguous."""
    run_shares(_spread_shares, SHARE, tuple(t.numpy() for t in (output, streams, post, mix)))


@reordering_kernel
def _collapse(
    streams: Floats,
    gates: Floats,
    collapsed: Floats,
    post: Floats,
    mix: Floats,
    scale: Floats,
    base: Floats,
    eps: np.float32,
    norm_eps: np.float32,
    iterations: int,
) -> None:
    n, k, d = streams.shape
    lanes = min(n, LANES)
    one, size = np.float32(1), np.float32(k * d)
    z = np.zeros((2 * k + k * k, lanes), np.float32)
    m = z[2 * k :]  # row j of column i is k * j + i
    sums = np.empty(lanes, np.float32)
    for start in range(0, n, lanes):
        width = min(lanes, n - start)
        for lane in range(width):
            squares = np.float32(0)
            for j in range(k):
                for c in range(d):
                    squares += streams[start + lane, j, c] * streams[start + lane, j, c]
            inverse = one / np.sqrt(squares / size + norm_eps)
            for i in range(len(z)):
                own = scale[min(i // k, 2)] * inverse
                z[i, lane] = gates[start + lane, i] * own + base[i]
        for i in range(2 * k):
            for lane in range(lanes):
                z[i, lane] = one / (one + exp(min(-z[i, lane], LARGEST_EXP)))
        _softmax(m, sums, k, eps)
        _normalize(m, sums, eps, 1, k)
        for _ in range(iterations - 1):
            _normalize(m, sums, eps, k, 1)
            _normalize(m, sums, eps, 1, k)
        for lane in range(width):
            t = start + lane
            for j in range(k):
                pre = z[j, lane] + eps
                for c in range(d):
                    before = collapsed[t, c] if j else np.float32(0)
                    collapsed[t, c] = pre * streams[t, j, c] + before
                post[t, j] = np.float32(2) * z[k + j, lane]
                for i in range(k):
                    mix[t, j, i] = m[j * k + i, lane]


@reordering_kernel
def _softmax(m: Floats, sums: Floats, k: int, eps: np.float32) -> None:
    """Rows of m [K * K, lanes] in place, plus eps."""
    lanes = m.shape[1]
    tops = np.empty(lanes, np.float32)
    for i in range(0, k * k, k):
        for lane in range(lanes):
            tops[lane], sums[lane] = m[i, lane], np.float32(0)
        for j in range(i + 1, i + k):
            for lane in range(lanes):
                tops[lane] = max(tops[lane], m[j, lane])
        for j in range(i, i + k):
            for lane in range(lanes):
                m[j, lane] = exp(m[j, lane] - tops[lane])
                sums[lane] += m[j, lane]
        for j in range(i, i + k):
            for lane in range(lanes):
                m[j, lane] = m[j, lane] / sums[lane] + eps


@reordering_kernel
def _normalize(m: Floats, sums: Floats, eps: np.float32, across: int, along: int) -> None:
    """Divide m [K * K, lanes] by its sums plus eps; `along` steps through the terms of a sum."""
    k, lanes = max(across, along), m.shape[1]
    for first in range(0, k * across, across):
        for lane in range(lanes):
            sums[lane] = eps
        for j in range(first, first + k * along, along):
            for lane in range(lanes):
                sums[lane] += m[j, lane]
        for lane in range(lanes):
            sums[lane] = np.float32(1) / sums[lane]
        for j in range(first, first + k * along, along):
            for lane in range(lanes):
                m[j, lane] *= sums[lane]


@reordering_kernel
def _spread(output: Floats, streams: Floats, post: Floats, mix: Floats) -> None:
    n, k, d = streams.shape
    before = np.empty((k, d), np.float32)
    for t in range(n):
        for j in range(k):
            for c in range(d):
                before[j, c] = streams[t, j, c]
        for i in range(k):
            for c in range(d):
                streams[t, i, c] = post[t, i] * output[t, c]
            for j in range(k):
                weight = mix[t, j, i]
                for c in range(d):
                    streams[t, i, c] += weight * before[j, c]


@kernel
def _collapse_shares(how: How) -> int:
    return in_shares(_collapse, how)


@kernel
def _spread_shares(how: How) -> int:
    return in_shares(_spread, how)
