"""One softmax over several kinds of keys: the exact window, shared entries, gathered rows.

Each kind is a `Part`: its logits, and how weights of that shape mix its values. Both are computed
in the queries' type, whatever type the keys are held in. Shapes: B batch, S queries, H heads,
C head width, w window, n entries, k picks. K = V is one head shared by all queries (MQA), so H
folds into S wherever keys are common.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Part(NamedTuple):
    """Some keys' logits [B, S, H, x], and how weights of that shape mix their values."""

    logits: Tensor
    mix: Callable[[Tensor], Tensor]


def window_part(q: Tensor, keys: Tensor, window: int) -> Part:
    """Causal band of `window` keys: queries [B, S, H, C] are the last S of keys [B, P + S, C].

    Blocks of b queries meet b + w - 1 keys, so the cost is at most twice the band's.
    """
    batch, num_queries, heads, dim = q.shape
    past = keys.shape[1] - num_queries
    b = min(num_queries, window)
    blocks = -(-num_queries // b)
    fill = blocks * b - num_queries
    keys = F.pad(keys.to(q.dtype), (0, 0, window - 1 - past, fill))
    near = keys.unfold(1, window - 1 + b, b)  # [B, blocks, C, w - 1 + b]
    q = F.pad(q, (0, 0, 0, 0, 0, fill)).reshape(batch, blocks, b * heads, dim)
    logits = (q @ near).unflatten(2, (b, heads))  # [B, blocks, b, H, w - 1 + b]

    slot = torch.arange(window - 1 + b, device=q.device)
    row = torch.arange(b, device=q.device)[:, None]
    banded = (slot >= row) & (slot < row + window)  # [b, w - 1 + b]
    first = torch.arange(blocks, device=q.device)[:, None] * b
    exists = first + slot >= window - 1 - past
    allowed = banded & exists[:, None, :]  # [blocks, b, w - 1 + b]
    logits = logits.masked_fill(~allowed[:, :, None, :], -torch.inf)

    def mix(weights: Tensor) -> Tensor:
        padded = F.pad(weights, (0, 0, 0, 0, 0, fill))
        padded = padded.reshape(batch, blocks, b * heads, -1)
        return (padded @ near.transpose(-1, -2)).reshape(batch, -1, heads, dim)[:, :num_queries]

    return Part(logits.flatten(1, 2)[:, :num_queries], mix)


def shared_keys_part(q: Tensor, entries: Tensor, mask: Tensor) -> Part:
    """All queries over the same entries [B, n, C], with mask [S, n] or [B, S, n]."""
    heads, entries = q.shape[2], entries.to(q.dtype)
    logits = (q.flatten(1, 2) @ entries.transpose(-1, -2)).unflatten(1, (-1, heads))
    logits = logits.masked_fill(~mask.unsqueeze(-2), -torch.inf)
    return Part(logits, lambda p: (p.flatten(1, 2) @ entries).unflatten(1, (-1, heads)))


def gathered_part(q: Tensor, rows: Tensor, real: Tensor) -> Part:
    """Each query over rows of its own [B, S, k, C]; `real` [B, S, k] marks actual picks."""
    rows = rows.to(q.dtype)
    logits = (q @ rows.transpose(-1, -2)).masked_fill(~real.unsqueeze(-2), -torch.inf)
    return Part(logits, lambda p: p @ rows)


def selection_mask(chosen: Tensor, real: Tensor, n: int) -> Tensor:
    """Indices [B, S, k] and their validity -> mask [B, S, n]."""
    mask = torch.zeros(*chosen.shape[:-1], n, dtype=torch.bool, device=chosen.device)
    return mask.scatter(-1, chosen, real)


def softmax_with_sink(parts: list[Part], sinks: Tensor) -> Tensor:
    """One softmax over all parts and a learned sink per head whose value is 0, [B, S, H, C]."""
    sink = sinks[:, None]  # [H, 1]
    with torch.no_grad():
        top = torch.stack([p.logits.amax(-1, keepdim=True) for p in parts]).amax(0)
        top = torch.maximum(top, sink)  # [B, S, H, 1]
    weights = [(p.logits - top).exp() for p in parts]
    total = (sink - top).exp()
    for w in weights:
        total = total + w.sum(-1, keepdim=True)
    mixed = parts[0].mix(weights[0])
    for part, w in zip(parts[1:], weights[1:], strict=True):
        mixed = mixed + part.mix(w)
    return mixed / total
