"""Attention over every token by blocks of queries and of keys, in plain torch.

It serves where torch's fused CPU operator (see `fused`) does not: other devices, other types,
and wherever the kernels are switched off. The softmax runs over the blocks (Milakov & Gimelshein,
arXiv 1805.02867), so no tensor of queries x context is made. Shapes: B batch, S queries, H heads,
C head width, n keys. K = V is one head shared by all queries (MQA).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

CPU_LIMIT = 2**19  # what a core's cache holds
ACCELERATOR_LIMIT = 2**25  # 128 MiB in float32, so that each operation has much to do
MAX_QUERIES = 256
MIN_ROWS = 16


def limit(q: Tensor) -> int:
    """Upper bound of the logits (H x queries x keys) held at once for queries on this device."""
    return CPU_LIMIT if q.device.type == "cpu" else ACCELERATOR_LIMIT


def seen_by_all(past: Iterable[Tensor], keys: Tensor, asking: int) -> Iterator[Tensor]:
    """`past`, then those of a chunk's `keys` [B, S, C] that precede its last `asking` tokens."""
    yield from past
    if earlier := keys.shape[1] - asking:
        yield keys[:, :earlier]


def attend(q: Tensor, past: Sequence[Tensor], keys: Tensor, sinks: Tensor) -> Tensor:
    """Softmax of q over all of `past`, causally over `keys`, and over a sink.

    Args:
        q: [B, S, H, C], scaled.
        past: keys of earlier tokens, each [B, n_i, C], of any type.
        keys: [B, S, C], those of the queries' own tokens.
        sinks: [H], logits of a key whose value is 0.

    Returns:
        [B, S, H, C] in the queries' type.
    """
    heads = q.shape[2]
    size = max(MIN_ROWS, min(MAX_QUERIES, math.isqrt(limit(q) // heads)))
    outputs, start = [], 0
    for block in q.split(size, dim=1):
        stop = start + block.shape[1]
        earlier = (*past, keys[:, :start])
        outputs.append(_attend(block, earlier, keys[:, start:stop], sinks))
        start = stop
    return torch.cat(outputs, dim=1)


def _attend(q: Tensor, past: Sequence[Tensor], keys: Tensor, sinks: Tensor) -> Tensor:
    """As `attend`, for one block of queries."""
    num_queries, heads = q.shape[1:3]
    top = sinks[:, None].expand(*q.shape[:3], 1)  # the largest logit so far
    total = torch.ones_like(top)  # sum of exp(logit - top)
    mixed = torch.zeros_like(q)  # sum of exp(logit - top) * value
    row = torch.arange(num_queries, device=q.device)
    later = row > row[:, None]
    for rows, hidden in _blocks(
        past, keys, later, max(MIN_ROWS, limit(q) // (num_queries * heads))
    ):
        rows = rows.to(q.dtype)
        logits = (q.flatten(1, 2) @ rows.transpose(-1, -2)).unflatten(1, (num_queries, heads))
        if hidden is not None:
            logits = logits.masked_fill(hidden[:, None], -torch.inf)
        higher = torch.maximum(top, logits.amax(-1, keepdim=True))
        weights, kept = (logits - higher).exp(), (top - higher).exp()
        total = total * kept + weights.sum(-1, keepdim=True)
        mixed = mixed * kept + (weights.flatten(1, 2) @ rows).unflatten(1, (num_queries, heads))
        top = higher
    return mixed / total


def _blocks(
    past: Sequence[Tensor], keys: Tensor, later: Tensor, size: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """At most `size` rows at a time, and which of them [queries, rows] a query may not see."""
    for segment in past:
        for rows in segment.split(size, dim=1):
            if rows.shape[1]:
                yield rows, None
    for rows, hidden in zip(keys.split(size, dim=1), later.split(size, dim=1), strict=True):
        yield rows, hidden
