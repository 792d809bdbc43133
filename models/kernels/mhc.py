"""Manifold-constrained hyper-connections over a chunk of tokens, each in one pass.

Report section 2.2. Shapes: N tokens, K streams, D width. The Sinkhorn iterations of LANES tokens
run beside each other, a token a lane.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.compile import LANES, reordering_kernel
from models.kernels.threads import run_shares

Floats = NDArray[np.float32]
SHARE = 128  # tokens worth a thread


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

    def work(part: slice) -> None:
        _collapse(x[part], z[part], *constants, *small, iterations, *(o[part] for o in out))

    run_shares(n, SHARE, work)
    return outputs[0], outputs[1], outputs[2]


def spread(output: Tensor, streams: Tensor, post: Tensor, mix: Tensor) -> Tensor:
    """X'_k = post_k y + sum_j mix[j, k] X_j, [N, K, D], of contiguous operands."""
    mixed = torch.empty_like(streams)
    arrays = [t.numpy() for t in (output, streams, post, mix, mixed)]
    run_shares(len(streams), SHARE, lambda part: _spread(*(a[part] for a in arrays)))
    return mixed


@reordering_kernel
def _sigmoid(x: np.float32) -> np.float32:
    return np.float32(1) / (np.float32(1) + math.exp(-x))


@reordering_kernel
def _collapse(
    streams: Floats,
    gates: Floats,
    scale: Floats,
    base: Floats,
    eps: np.float32,
    norm_eps: np.float32,
    iterations: int,
    collapsed: Floats,
    post: Floats,
    mix: Floats,
) -> None:
    n, k, d = streams.shape
    m = np.ones((k, k, LANES), np.float32)
    sums = np.empty(LANES, np.float32)
    for start in range(0, n, LANES):
        width = min(LANES, n - start)
        for lane in range(width):
            t = start + lane
            x, z = streams[t], gates[t]
            squares = np.float32(0)
            for j in range(k):
                for c in range(d):
                    squares += x[j, c] * x[j, c]
            inverse = np.float32(1) / np.sqrt(squares / np.float32(k * d) + norm_eps)
            for j in range(k):
                pre = _sigmoid(z[j] * inverse * scale[0] + base[j]) + eps
                for c in range(d):
                    collapsed[t, c] = pre * x[j, c] + (collapsed[t, c] if j else np.float32(0))
                post[t, j] = np.float32(2) * _sigmoid(z[k + j] * inverse * scale[1] + base[k + j])
            for i in range(k):
                first = 2 * k + i * k
                top = np.float32(-np.inf)
                for j in range(k):
                    m[i, j, lane] = z[first + j] * inverse * scale[2] + base[first + j]
                    top = max(top, m[i, j, lane])
                total = np.float32(0)
                for j in range(k):
                    m[i, j, lane] = math.exp(m[i, j, lane] - top)
                    total += m[i, j, lane]
                for j in range(k):
                    m[i, j, lane] = m[i, j, lane] / total + eps
        _normalize(m, sums, eps, 0)
        for _ in range(iterations - 1):
            _normalize(m, sums, eps, 1)
            _normalize(m, sums, eps, 0)
        for lane in range(width):
            for i in range(k):
                for j in range(k):
                    mix[start + lane, i, j] = m[i, j, lane]


@reordering_kernel
def _normalize(m: Floats, sums: Floats, eps: np.float32, along: int) -> None:
    """Divide m [K, K, LANES] by its sums along rows (1) or columns (0), plus eps."""
    k, _, lanes = m.shape
    for i in range(k):
        for lane in range(lanes):
            sums[lane] = eps
        for j in range(k):
            entry = m[i, j] if along else m[j, i]
            for lane in range(lanes):
                sums[lane] += entry[lane]
        for lane in range(lanes):
            sums[lane] = np.float32(1) / sums[lane]
        for j in range(k):
            entry = m[i, j] if along else m[j, i]
            for lane in range(lanes):
                entry[lane] *= sums[lane]


@reordering_kernel
def _spread(output: Floats, streams: Floats, post: Floats, mix: Floats, mixed: Floats) -> None:
    n, k, d = streams.shape
    for t in range(n):
        for i in range(k):
            for c in range(d):
                mixed[t, i, c] = post[t, i] * output[t, c]
            for j in range(k):
                weight = mix[t, j, i]
                for c in range(d):
                    mixed[t, i, c] += weight * streams[t, j, c]
