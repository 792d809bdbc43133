"""Condensing tokens into cache entries: one compressor for CSA, the indexer and HCA.

Report sections 2.3.1 (equations 9 to 12) and 2.3.2 (20 to 23). Shapes: B batch, S tokens,
m tokens an entry, C entry width, W = C (HCA) or 2C (CSA: two overlapping halves).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models import kernels
from models.layers import Float32Linear, KeepsFloat32, RMSNorm, Rotation


class Tail(NamedTuple):
    """What a compressor carries from call to call: never more than 2m - 1 tokens.

    The tensors own their storages: views would hold the whole chunk's projections.
    """

    values: Tensor  # [B, r, W] pending projections, r < m
    gates: Tensor  # [B, r, W] pending gate logits, position bias included
    overlap_values: Tensor  # [B, m, C] the last closed window's share in the next entry
    overlap_gates: Tensor  # [B, m, C]; -inf before the first window


class Compressor(KeepsFloat32):
    """Every m tokens become one entry: a softmax per channel over gates weighs the values.

    Weights and results are float32, whatever the model's type.

    With `overlap`, an entry also covers the m tokens before its own: the first C channels
    of a token's projections are its share in the NEXT entry, the last C in its own.
    """

    def __init__(
        self, hidden_size: int, entry_dim: int, ratio: int, *, overlap: bool, eps: float
    ) -> None:
        super().__init__()
        width = entry_dim * (2 if overlap else 1)
        self.ratio = ratio
        self.entry_dim = entry_dim
        self.overlap = overlap
        self.kv_proj = Float32Linear(hidden_size, width)
        self.gate_proj = Float32Linear(hidden_size, width)
        self.position_bias = nn.Parameter(torch.zeros(ratio, width))
        self.kv_norm = RMSNorm(entry_dim, eps)

    def empty_tail(self, batch: int, like: Tensor) -> Tail:
        rows = self.ratio if self.overlap else 0
        none = like.new_zeros(batch, 0, self.position_bias.shape[-1])
        before = like.new_zeros(batch, rows, self.entry_dim)
        return Tail(none, none, before, torch.full_like(before, -torch.inf))

    def compress(
        self, x: Tensor, positions: Tensor, tail: Tail | None, frequencies: Tensor
    ) -> tuple[Tensor, Tail]:
        """Close the windows that x completes.

        Args:
            x: [B, S, D] inputs, at least float32.
            positions: [S] their positions; an entry is rotated at its first token's.
            tail: what the tokens directly before left; None at position 0.
            frequencies: rotary frequencies of the layer.

        Returns:
            New entries [B, n, C], and the tail for the next call.
        """
        tail = tail or self.empty_tail(len(x), x)
        pending = tail.values.shape[1]
        values = behind(tail.values, self.kv_proj(x))
        gates = behind(tail.gates, self._biased(self.gate_proj(x), pending))

        n = values.shape[1] // self.ratio
        closed = n * self.ratio
        before = (tail.overlap_values, tail.overlap_gates)
        if n:
            pooled, before = self._pool(values[:, :closed], gates[:, :closed], before)
            first = torch.arange(-pending, closed - pending, self.ratio, device=x.device)
            starts = positions[first.clamp(min=0)] + first.clamp(max=0)
            entries = Rotation(starts, frequencies).apply(self.kv_norm(pooled))
        else:
            entries = x.new_zeros(len(x), 0, self.entry_dim)
        rest = values[:, closed:], gates[:, closed:]
        return entries, Tail(*(owned(kept) for kept in (*rest, *before)))

    def _biased(self, gates: Tensor, pending: int) -> Tensor:
        """Gate logits [B, S, W] of tokens behind `pending` others, plus the bias of their slots."""
        size = gates.shape[1]
        if pending or size % self.ratio:
            slots = torch.arange(pending, pending + size, device=gates.device) % self.ratio
            return gates + self.position_bias[slots]
        windows: Tensor = gates.unflatten(1, (-1, self.ratio)) + self.position_bias
        return windows.flatten(1, 2)

    def _pool(
        self, values: Tensor, gates: Tensor, before: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Whole windows [B, n * m, W] -> entries [B, n, C], and the overlap to keep."""
        if kernels.usable(values, gates, *before):
            from models.kernels.pooling import pool

            pooled = pool(values, gates, before, self.ratio)
            if self.overlap:
                last = slice(-self.ratio, None), slice(self.entry_dim)
                before = values[:, *last], gates[:, *last]
            return pooled, before
        values = values.unflatten(1, (-1, self.ratio))  # [B, n, m, W]
        gates = gates.unflatten(1, (-1, self.ratio))
        if self.overlap:
            values, before_values = self._overlapped(values, before[0])
            gates, before_gates = self._overlapped(gates, before[1])
            before = (before_values, before_gates)
        return (values * gates.softmax(dim=2)).sum(dim=2), before

    def _overlapped(self, windows: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n, m, 2C] -> [B, n, 2m, C] slots, and the share kept for the next window."""
        following, own = windows.split(self.entry_dim, dim=-1)
        previous = torch.cat((before.unsqueeze(1), following[:, :-1]), dim=1)
        return torch.cat((previous, own), dim=2), following[:, -1]


def behind(tail: Tensor, rows: Tensor) -> Tensor:
    """[B, r, W] and [B, S, W] in one."""
    return torch.cat((tail, rows), dim=1) if tail.shape[1] else rows


def owned(tensor: Tensor) -> Tensor:
    """The tensor with a storage of its own size: a copy where it is a view of something larger."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def visible_entries(indices: Tensor, ratio: int) -> Tensor:
    """How many entries each token sees: entry i is visible to p iff i < (p + 1) // ratio.

    `indices` [S] counts tokens from 0; the last token of a window sees its own entry.
    """
    return (indices + 1) // ratio


def visible_mask(visible: Tensor, count: int) -> Tensor:
    """[S, count]: whether each of the first `count` entries is among a token's `visible` [S]."""
    return torch.arange(count, device=visible.device) < visible[:, None]
