"""Shares of the indexer's top-k among threads, and its tensors as arrays.

Many queries are split among threads; few (decoding) share the keys instead, and each thread's
candidates are merged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.kernels import topk
from models.kernels.threads import run_shares, split

FEW_QUERIES = 64  # below, splitting the keys costs less than transposing them twice
SHARE = 4096  # entries x queries worth a thread


class Candidates(NamedTuple):
    """Running candidates of S queries; see `topk.scan`."""

    scores: topk.Floats
    places: topk.Ints
    counts: topk.Ints
    least: topk.Floats

    @classmethod
    def none(cls, num_queries: int, k: int) -> Candidates:
        room = 2 * k + 2 * topk.TILE
        return cls(
            np.empty((num_queries, room), np.float32),
            np.empty((num_queries, room), np.int64),
            np.zeros(num_queries, np.int64),
            np.full(num_queries, -np.inf, np.float32),
        )


def best_entries(
    queries: Tensor, weights: Tensor, segments: tuple[Tensor, ...], visible: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """What `select(score(queries, weights, keys), visible, k)` returns, scores never written.

    Args:
        queries: [B, S, H, C].
        weights: [B, S, H].
        segments: keys in order, each float32 [B, n_i, C], or FP4 index keys as they are stored,
            uint8 [B, n_i, C / 2 + blocks].
        visible: [S], ascending, the last at least 1; entries beyond it are not read.
        k: how many to take at most.

    Returns:
        Indices [B, S, min(k, visible[-1])] in ascending order, and whether each is real.
    """
    fill = -queries.shape[2] % topk.HEADS
    q = F.pad(queries, (0, 0, 0, fill)).contiguous().numpy()
    w = F.pad(weights, (0, fill)).contiguous().numpy()
    seen = visible.contiguous().numpy()
    k = min(k, int(seen[-1]))
    chosen = np.empty((*q.shape[:2], k), np.int64)
    for b in range(len(q)):
        keys = [segment[b].contiguous().numpy() for segment in segments]
        if len(seen) < FEW_QUERIES:
            _over_keys(q[b], w[b], keys, seen, k, chosen[b])
        else:
            _over_queries(q[b], w[b], keys, seen, k, chosen[b])
    indices = torch.from_numpy(chosen)
    return indices, indices < visible[:, None]


def _over_queries(
    q: topk.Floats,
    w: topk.Floats,
    keys: list[topk.Keys],
    visible: topk.Ints,
    k: int,
    chosen: topk.Ints,
) -> None:
    def work(share: slice) -> None:
        found = Candidates.none(share.stop - share.start, k)
        base = 0
        for segment in keys:
            topk.scan(q[share], w[share], visible[share], segment, base, k, *found)
            base += len(segment)
        topk.finish(*found[:3], visible[share], k, chosen[share])

    run_shares(len(visible), FEW_QUERIES // 2, work)


def _over_keys(
    q: topk.Floats,
    w: topk.Floats,
    keys: list[topk.Keys],
    visible: topk.Ints,
    k: int,
    chosen: topk.Ints,
) -> None:
    count, at_least = int(visible[-1]), max(1, SHARE // len(visible))
    parts = {share.start: Candidates.none(len(visible), k) for share in split(count, at_least)}

    def work(share: slice) -> None:
        base = 0
        for segment in keys:
            start, stop = max(share.start - base, 0), min(share.stop - base, len(segment))
            if start < stop:
                found = parts[share.start]
                topk.scan(q, w, visible, segment[start:stop], base + start, k, *found)
            base += len(segment)

    run_shares(count, at_least, work)
    merged = parts[0] if len(parts) == 1 else _merge(list(parts.values()))
    topk.finish(*merged[:3], visible, k, chosen)


def _merge(parts: list[Candidates]) -> Candidates:
    """Candidates of consecutive ranges of entries as one."""
    counts = np.sum([part.counts for part in parts], axis=0)
    shape = (len(counts), int(counts.max()))
    merged = Candidates(np.empty(shape, np.float32), np.empty(shape, np.int64), counts, counts)
    for s in range(len(counts)):
        merged.scores[s, : counts[s]] = np.concatenate([p.scores[s, : p.counts[s]] for p in parts])
        merged.places[s, : counts[s]] = np.concatenate([p.places[s, : p.counts[s]] for p in parts])
    return merged
