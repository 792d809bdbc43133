"""Routed experts: tokens are sorted by expert once, and each token's outputs summed in one pass.

Report section 2.1. Shapes: T tokens, E experts, K experts a token, D width, I inner. Products are
torch's.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.kernels.compile import kernel, reordering_kernel
from models.kernels.floats import LARGEST_EXP, exp
from models.kernels.team import in_shares
from models.kernels.threads import How, run_shares

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
SHARE = 128  # tokens worth a thread


def best_experts(scores: Tensor, k: int) -> Tensor:
    """The k highest of scores [T, E], highest first: indices [T, k]."""
    chosen = torch.empty(len(scores), k, dtype=torch.long, device=scores.device)
    left = scores.contiguous().numpy().copy()
    run_shares(_take_best_shares, SHARE, (left, chosen.numpy()))
    return chosen


def mixed_experts(
    x: Tensor, weights: Tensor, chosen: Tensor, gate_up: Tensor, down: Tensor, limit: float
) -> Tensor:
    """x [T, D], weights and chosen [T, K], gate_up [E, 2 I, D], down [E, D, I] -> [T, D]."""
    inner = down.shape[-1]
    tokens = torch.empty(chosen.numel(), dtype=torch.long, device=x.device)
    places = np.empty(chosen.shape, np.int64)
    bounds = np.zeros(len(down) + 1, np.int64)
    _sort(chosen.contiguous().numpy(), bounds, tokens.numpy(), places)
    groups = [(e, slice(a, b)) for e, (a, b) in enumerate(pairwise(bounds.tolist())) if a < b]

    rows = x.index_select(0, tokens)
    both = x.new_empty(len(rows), 2 * inner)
    for e, group in groups:
        torch.mm(rows[group], gate_up[e].t(), out=both[group])
    gated = swiglu(both, limit)
    for e, group in groups:
        torch.mm(gated[group], down[e].t(), out=rows[group])

    output = torch.empty_like(x)
    split = places, weights.contiguous().numpy(), output.numpy()
    run_shares(_weighted_sums_shares, SHARE, split, (rows.numpy(),))
    return output


def swiglu(both: Tensor, limit: float) -> Tensor:
    """Rows of gates, then of values, [T, 2 I] -> silu(min(gate, limit)) * clamp(value) [T, I]."""
    gated = both.new_empty(len(both), both.shape[1] // 2)
    run_shares(_swiglu_shares, SHARE, (both.numpy(), gated.numpy()), (np.float32(limit),))
    return gated


@kernel
def _take_best(scores: Floats, chosen: Ints) -> None:
    """Overwrites what it takes of `scores`."""
    for t in range(len(scores)):
        for i in range(chosen.shape[1]):
            best = 0
            for e in range(1, scores.shape[1]):
                if scores[t, e] > scores[t, best]:
                    best = e
            chosen[t, i] = best
            scores[t, best] = -np.inf


@kernel
def _sort(chosen: Ints, bounds: Ints, tokens: Ints, places: Ints) -> None:
    """Counting sort by expert: expert e has rows bounds[e] .. bounds[e + 1] - 1, of `tokens`;
    `places` are the rows of each token."""
    count, per_token = chosen.shape
    for t in range(count):
        for i in range(per_token):
            bounds[chosen[t, i] + 1] += 1
    for e in range(1, len(bounds)):
        bounds[e] += bounds[e - 1]
    following = bounds.copy()
    for t in range(count):
        for i in range(per_token):
            place = following[chosen[t, i]]
            following[chosen[t, i]] += 1
            tokens[place] = t
            places[t, i] = place


@reordering_kernel
def _swiglu(both: Floats, gated: Floats, limit: np.float32) -> None:
    """silu(min(gate, limit)) * clamp(up, ±limit) of rows [gate, up]."""
    count, inner = gated.shape
    for t in range(count):
        for i in range(inner):
            gate = min(both[t, i], limit)
            up = min(max(both[t, inner + i], -limit), limit)
            silu = gate / (np.float32(1) + exp(min(-gate, LARGEST_EXP)))
            gated[t, i] = silu * up


@reordering_kernel
def _weighted_sums(places: Ints, weights: Floats, output: Floats, rows: Floats) -> None:
    count, width = output.shape
    for t in range(count):
        for i in range(places.shape[1]):
            place, weight = places[t, i], weights[t, i]
            for c in range(width):
                output[t, c] = weight * rows[place, c] + (output[t, c] if i else np.float32(0))


@kernel
def _take_best_shares(how: How) -> int:
    return in_shares(_take_best, how)


@kernel
def _swiglu_shares(how: How) -> int:
    return in_shares(_swiglu, how)


@kernel
def _weighted_sums_shares(how: How) -> int:
    return in_shares(_weighted_sums, how)
