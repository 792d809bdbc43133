"""Engram (arXiv 2601.07372): what training has seen of n-grams, looked up instead of computed.

The last n token ids are hashed into tables of vectors, for each order n and several times. What
is read is gated by each residual stream and added to it before a layer's attention. It holds
nothing of a context but the newest ids: it remembers the training text, not what was planted.

Ids are canonical: a buffer maps ids whose texts differ by case, accents or spaces to one. Before
the sequence stands an id that no token has. The gate follows the authors' code: the signed square
root is not in the paper.

Shapes: B batch, S tokens, K residual streams, D width, E channels read by a token, T tables.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.deepseek_v4.cache import EngramCache, Window
from models.deepseek_v4.config import DeepseekV4Config
from models.layers import Float32Linear, KeepsFloat32, rms_normalize

SEED = 10007  # times the layer's number
KERNEL = 4  # taps of the convolution
LEAST = 1e-6  # of a gate's square root, whose slope at 0 is infinite


class Engram(KeepsFloat32):
    """One module: tables, a key of each stream, a value of all, and a short convolution."""

    canonical: Tensor  # [V] id -> canonical id
    multipliers: Tensor  # [max_order], odd
    sizes: Tensor  # [T] distinct primes
    offsets: Tensor  # [T] where each table begins

    def __init__(self, config: DeepseekV4Config, layer: int) -> None:
        super().__init__()
        shape = config.engram
        assert shape is not None, "the caller checks it"
        streams, d = config.hc_mult, config.hidden_size
        self.shape, self.num_streams, self.eps = shape, streams, config.rms_norm_eps
        self.pad = config.vocab_size
        tables = (shape.max_order - 1) * shape.heads
        before = shape.layers.index(layer) * tables  # primes of other modules
        sizes = list(_primes(shape.rows, before + tables))[before:]
        self.table = nn.Parameter(torch.zeros(sum(sizes), shape.head_dim))
        self.key_proj = Float32Linear(shape.width, streams * d)
        self.value_proj = Float32Linear(shape.width, d)
        self.key_norm = nn.Parameter(torch.ones(streams * d))
        self.query_norm = nn.Parameter(torch.ones(streams * d))
        if shape.convolution:
            self.conv_norm = nn.Parameter(torch.ones(streams * d))
            self.conv = nn.Parameter(torch.zeros(streams * d, 1, KERNEL))
        rng = np.random.default_rng(SEED * layer)
        bound = (2**63 - 1) // (config.vocab_size + 1) // 2  # products do not overflow
        multipliers = 2 * rng.integers(0, bound, shape.max_order) + 1
        starts = np.cumsum([0, *sizes[:-1]])
        self.register_buffer("canonical", torch.arange(config.vocab_size, device="cpu"))
        for name, numbers in (("multipliers", multipliers), ("sizes", sizes), ("offsets", starts)):
            buffer = torch.tensor(np.asarray(numbers), dtype=torch.int64, device="cpu")
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, streams: Tensor, ids: Tensor, cache: EngramCache | None) -> Tensor:
        """streams [B, S, K, D], ids [B, S] -> what is added to the streams."""
        read = self.read(ids, cache)
        keys = self._normed(self.key_proj(read), self.key_norm)
        queries = self._normed(streams.flatten(-2), self.query_norm)
        match = (keys * queries).unflatten(-1, (self.num_streams, -1)).sum(-1)
        match = match * streams.shape[-1] ** -0.5
        gate = (match.sign() * match.abs().clamp(min=LEAST).sqrt()).sigmoid()  # [B, S, K]
        value: Tensor = gate.unsqueeze(-1) * self.value_proj(read).unsqueeze(2)
        if self.shape.convolution:
            value = value + self._convolved(value.flatten(-2), cache).view_as(value)
        return value

    def read(self, ids: Tensor, cache: EngramCache | None) -> Tensor:
        """ids [B, S] -> the rows of their n-grams, [B, S, E]."""
        shape, count = self.shape, ids.shape[1]
        known = self.canonical[ids]
        before = known.new_full((len(ids), shape.max_order - 1), self.pad)
        known = _behind(before, known, cache.ids if cache else None)
        last = shape.max_order - 1
        mixed, rows = known[:, last:] * self.multipliers[0], []
        for back in range(1, shape.max_order):
            mixed = mixed ^ (known[:, last - back : last - back + count] * self.multipliers[back])
            tables = slice((back - 1) * shape.heads, back * shape.heads)
            rows.append(mixed.unsqueeze(-1) % self.sizes[tables] + self.offsets[tables])
        return F.embedding(torch.cat(rows, dim=-1), self.table).flatten(-2)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [B, S, K * D], each stream by itself."""
        apart = rms_normalize(x.unflatten(-1, (self.num_streams, -1)), self.eps)
        return apart.flatten(-2) * weight

    def _convolved(self, value: Tensor, cache: EngramCache | None) -> Tensor:
        """value [B, S, K * D] -> SiLU of its causal convolution, one filter a channel."""
        reach = (KERNEL - 1) * self.shape.max_order
        x = self._normed(value, self.conv_norm)
        before = x.new_zeros(len(x), reach, x.shape[-1])
        x = _behind(before, x, cache.tail if cache else None)
        taps = self.conv[:, 0]  # [K * D, KERNEL], the last tap is the token itself
        step, count = self.shape.max_order, value.shape[1]
        parts = [x[:, i * step : i * step + count] * taps[:, i] for i in range(KERNEL)]
        return F.silu(torch.stack(parts).sum(0))


def _behind(before: Tensor, x: Tensor, window: Window | None) -> Tensor:
    """x [B, S, ...] behind the rows that the window held, or behind `before` at the beginning.

    As many as are in `before` stay in the window.
    """
    if window is None:
        return torch.cat((before, x), dim=1)
    if window.rows is None:
        window.rows = before
    return window.append(x, before.shape[1])


def _primes(least: int, count: int) -> Iterator[int]:
    """The first `count` primes from `least` on."""
    found, number = 0, least
    while found < count:
        if all(number % d for d in range(2, int(number**0.5) + 1)):
            yield number
            found += 1
        number += 1
