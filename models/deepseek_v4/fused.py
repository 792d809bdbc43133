"""Attention for inference through torch's fused CPU kernel: no logits are written.

Each part of the past gives its mix and the log of its denominator; `merge` makes one softmax of
several, the sink included. The differentiable twin is `parts`. Shapes: B batch, S queries,
H heads, C head width, w window, n entries. K = V is one head shared by all queries (MQA).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.deepseek_v4.compressor import visible_mask

BLOCK = 32
"""Queries that meet a window's keys together: as many as torch's kernel multiplies at once."""


class Mixed(NamedTuple):
    """Attention over some keys [B, H, S, C], and the log of its denominator [B, H, S]."""

    output: Tensor
    log_total: Tensor


def attend(q: Tensor, keys: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Mixed:
    """Scaled q [B, S, H, C] over keys [B, n, C]; `mask` [S, n] is added to the logits."""
    shared = keys.unsqueeze(1).expand(-1, q.shape[2], -1, -1)
    output, log_total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q.transpose(1, 2), shared, shared, 0.0, causal, attn_mask=mask, scale=1.0
    )
    return Mixed(output, log_total)


def attend_heads(q: Tensor, keys: Tensor, values: Tensor, *, causal: bool = False) -> Mixed:
    """Scaled q [B, S, H, C] over keys [B, n, H, C] and values [B, n, H, E] of its own heads."""
    output, log_total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *of_one_width(q, keys, values), 0.0, causal, scale=1.0
    )
    return Mixed(output[..., : values.shape[-1]], log_total)


def of_one_width(*operands: Tensor) -> list[Tensor]:
    """Operands [B, S, H, any] -> [B, H, S, C], filled up with zeros: the kernel wants one C."""
    width = max(t.shape[-1] for t in operands)
    return [F.pad(t, (0, width - t.shape[-1])).transpose(1, 2) for t in operands]


def attend_window(q: Tensor, keys: Tensor, window: int) -> Mixed:
    """Causal band of `window` keys: queries [B, S, H, C] are the last S of keys [B, P + S, C].

    Blocks of b queries meet b + w - 1 keys; a block is a batch. The first ones may lack keys, and
    are attended to by themselves.
    """
    num_queries, past = q.shape[1], keys.shape[1] - q.shape[1]
    short = min(num_queries, max(0, window - 1 - past))  # queries whose window is not full
    parts = []
    if short:
        part = attend(q[:, :short], keys[:, : past + short], mask=_causal(short, past, q.device))
        parts.append(part)
    if short < num_queries:
        parts.append(_full_windows(q[:, short:], keys[:, past + short - window + 1 :], window))
    if len(parts) == 1:
        return parts[0]
    return Mixed(*(torch.cat(pair, dim=2) for pair in zip(*parts, strict=True)))


def _full_windows(q: Tensor, keys: Tensor, window: int) -> Mixed:
    """As `attend_window`, with w - 1 keys before the first query."""
    batch, num_queries, heads, dim = q.shape
    b = min(num_queries, window, BLOCK)
    blocks = -(-num_queries // b)
    fill = blocks * b - num_queries
    near = F.pad(keys, (0, 0, 0, fill)).unfold(1, window - 1 + b, b)  # [B, blocks, C, w - 1 + b]
    q = F.pad(q, (0, 0, 0, 0, 0, fill)).reshape(batch * blocks, b, heads, dim)
    slot = torch.arange(window - 1 + b, device=q.device)
    row = torch.arange(b, device=q.device)[:, None]
    band = _additive((slot >= row) & (slot < row + window))
    output, log_total = attend(q, near.transpose(-1, -2).flatten(0, 1), mask=band)
    return Mixed(
        output.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2, 3)[:, :, :num_queries],
        log_total.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2)[:, :, :num_queries],
    )


def attend_runs(q: Tensor, entries: Tensor, visible: Tensor) -> Mixed:
    """Each query over the first `visible` [S] of entries [B, n, C]: ascending, in long runs."""
    parts = []
    counts, sizes = torch.unique_consecutive(visible, return_counts=True)
    for count, queries in zip(counts.tolist(), q.split(sizes.tolist(), dim=1), strict=True):
        parts.append(attend(queries, entries[:, :count]) if count else nothing(queries))
    return Mixed(*(torch.cat(pair, dim=2) for pair in zip(*parts, strict=True)))


def attend_prefixes(q: Tensor, entries: Tensor, visible: Tensor, limit: int) -> Mixed:
    """As `attend_runs` for runs that may be short: blocks of queries with a mask [b, n] each.

    `visible` ascends, its last is n > 0; `limit` bounds b * n.
    """
    blind = int((visible == 0).sum())
    size = max(16, limit // entries.shape[1])
    parts = [nothing(q[:, :blind])] if blind else []
    for queries, seen in zip(q[:, blind:].split(size, 1), visible[blind:].split(size), strict=True):
        mask = _additive(visible_mask(seen, int(seen[-1])))
        parts.append(attend(queries, entries[:, : mask.shape[1]], mask=mask))
    return Mixed(*(torch.cat(pair, dim=2) for pair in zip(*parts, strict=True)))


def nothing(q: Tensor) -> Mixed:
    """What queries [B, S, H, C] find where there are no keys."""
    output = torch.zeros_like(q).transpose(1, 2)
    return Mixed(output, output.new_full(output.shape[:-1], -torch.inf))


def merge(parts: list[Mixed], sinks: Tensor) -> Tensor:
    """One softmax out of several, and the sink, by their log totals -> [B, S, H, C]."""
    totals = torch.stack([p.log_total for p in parts])  # [parts, B, H, S]
    everything = torch.logaddexp(totals.logsumexp(0), sinks[:, None])
    weights = (totals - everything).exp().unsqueeze(-1)
    mixed = parts[0].output * weights[0]
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        mixed = torch.addcmul(mixed, part.output, weight)
    return mixed.transpose(1, 2)


def _causal(num_queries: int, past: int, device: torch.device) -> Tensor:
    slot = torch.arange(past + num_queries, device=device)
    return _additive(slot <= slot[past:, None])


def _additive(allowed: Tensor) -> Tensor:
    zeros = torch.zeros(allowed.shape, device=allowed.device)
    return zeros.masked_fill_(~allowed, -torch.inf)
