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
from models.kernels.threads import cut, run_shares, share_count

FEW_QUERIES = 64  # below, splitting the keys costs less than transposing them twice
SHARE = 4096  # entries x queries worth a thread
SHARES_EACH = 4  # of a thread: the later a query, the more entries it sees


class Candidates(NamedTuple):
    """Running candidates of S queries; see `topk.scan`."""

    scores: topk.Floats
    places: topk.Ints
    counts: topk.Ints
    least: topk.Floats

    @classmethod
    def none(cls, shape: tuple[int, ...], k: int) -> Candidates:
        """Of `shape` queries."""
        room = 2 * k + 2 * topk.TILE
        return cls(
            np.empty((*shape, room), np.float32),
            np.empty((*shape, room), np.int64),
            np.zeros(shape, np.int64),
            np.full(shape, -np.inf, np.float32),
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
    found = Candidates.none((len(visible),), k)
    base = 0
    for segment in keys:
        split = q, w, visible, *found
        run_shares(topk.scan_shares, FEW_QUERIES // 2, split, (segment, base, k), SHARES_EACH)
        base += len(segment)
    best = *found[:3], visible, chosen
    run_shares(topk.finish_shares, FEW_QUERIES // 2, best, (k,), SHARES_EACH)


def _over_keys(
    q: topk.Floats,
    w: topk.Floats,
    keys: list[topk.Keys],
    visible: topk.Ints,
    k: int,
    chosen: topk.Ints,
) -> None:
    count, at_least = int(visible[-1]), max(1, SHARE // len(visible))
    ranges = cut(count, share_count(count, at_least))
    starts, stops = np.array([[each.start, each.stop] for each in ranges]).T.copy()
    found = Candidates.none((len(ranges), len(visible)), k)
    base = 0
    for segment in keys:
        whole = q, w, visible, segment, base, k
        run_shares(topk.scan_ranges_shares, 1, (starts, stops, *found), whole)
        base += len(segment)
    parts = [Candidates(*each) for each in zip(*found, strict=True)]
    merged = parts[0] if len(parts) == 1 else _merge(parts)
    topk.finish(*merged[:3], visible, chosen, k)


def _merge(parts: list[Candidates]) -> Candidates:
    """Candidates of consecutive ranges of entries as one."""
    counts = np.sum([part.counts for part in parts], axis=0)
    shape = (len(counts), int(counts.max()))
    merged = Candidates(np.empty(shape, np.float32), np.empty(shape, np.int64), counts, counts)
    for s in range(len(counts)):
        merged.scores[s, : counts[s]] = np.concatenate([p.scores[s, : p.counts[s]] for p in parts])
        merged.places[s, : counts[s]] = np.concatenate([p.places[s, : p.counts[s]] for p in parts])
    return merged
