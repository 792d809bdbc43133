"""Attention for inference through torch's fused CPU kernel, which writes no logits.

The window is attended to by torch's products of blocks and a kernel of our own between them.
Each part of the past gives its mix and the log of its denominator; `merge` makes one softmax of
several, the sink included. The differentiable twin is `parts`. Shapes: B batch, S queries,
H heads, C head width, w window, n entries. K = V is one head shared by all queries (MQA).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models import kernels
from models.deepseek_v4 import blocked
from models.deepseek_v4.compressor import visible_mask

VECTOR = 16
"""Numbers that fill vectors of every processor."""


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

    The first ones may lack keys, and are attended to by themselves.
    """
    num_queries, past = q.shape[1], keys.shape[1] - q.shape[1]
    short = min(num_queries, max(0, window - 1 - past))  # queries whose window is not full
    output, log_total = q.new_empty(q.shape), q.new_empty(q.shape[:-1])
    if short:
        part = attend(q[:, :short], keys[:, : past + short], mask=_causal(short, past, q.device))
        output[:, :short] = part.output.transpose(1, 2)
        log_total[:, :short] = part.log_total.transpose(1, 2)
    if short < num_queries:
        near = keys[:, past + short - window + 1 :]
        rest = q[:, short:], output[:, short:], log_total[:, short:]
        for each in zip(*rest, near, strict=True):
            _full_windows(*each, window)
    return Mixed(output.transpose(1, 2), log_total.transpose(1, 2))


def _full_windows(q: Tensor, output: Tensor, log_total: Tensor, keys: Tensor, window: int) -> None:
    """Of queries [S, H, C] into output [S, H, C] and log_total [S, H].

    Query i sees keys i .. i + w - 1 of [w - 1 + S, C]. Blocks of b queries meet b + w - 1 keys.
    """
    count, b = len(q), queries_together(window)
    whole = count // b * b
    if whole:
        _blocks(q[:whole], output[:whole], log_total[:whole], keys, window, b)
    if whole < count:
        _blocks(q[whole:], output[whole:], log_total[whole:], keys[whole:], window, count - whole)


def queries_together(window: int) -> int:
    """The queries of a block: the keys that they meet fill whole vectors."""
    return -(-window // VECTOR) * VECTOR + VECTOR - window + 1


def _blocks(
    q: Tensor, output: Tensor, log_total: Tensor, keys: Tensor, window: int, b: int
) -> None:
    """As `_full_windows`, in blocks of b queries; as many at once as a core's cache holds."""
    from models.kernels.window import softmax

    _, heads, dim = q.shape
    at_once = b * max(1, blocked.limit(q) // (b * heads * (window + b)))
    for start in range(0, len(q), at_once):
        some = slice(start, min(start + at_once, len(q)))
        met = keys[start : some.stop + window - 1]
        near = met.unfold(0, window - 1 + b, b)  # [N, C, w - 1 + b]
        logits = torch.bmm(q[some].reshape(-1, b * heads, dim), near)
        logs = softmax(logits.view(len(near), b, heads, -1), window)
        torch.bmm(logits, near.transpose(1, 2), out=output[some].view(-1, b * heads, dim))
        log_total[some] = logs.view(-1, heads)


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
    if len(parts) <= 2 and kernels.usable(parts[0].output, sinks):  # more come of forked rows
        from models.kernels import merging

        return merging.merge([p.output for p in parts], [p.log_total for p in parts], sinks)
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
