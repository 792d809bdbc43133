"""What a session keeps of each layer, and how forks share it.

Knows shapes and ownership, not what the rows mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.deepseek_v4.compressor import Tail
from models.deepseek_v4.trace import Watch
from models.protocols import CacheBytes

Tensors = dict[str, Tensor]


class Rows:
    """An append-only table [1, n, C] whose past is shared by forks.

    A fork takes the rows so far as a frozen segment and appends to storage of its own, so
    neither side ever copies or disturbs the other's past. Growth is amortised by doubling.
    """

    MIN_CAPACITY = 256

    def __init__(self, frozen: tuple[Tensor, ...] = ()) -> None:
        self._frozen = frozen
        self._own: Tensor | None = None
        self._used = 0

    def __len__(self) -> int:
        return sum(s.shape[1] for s in self._frozen) + self._used

    @property
    def segments(self) -> tuple[Tensor, ...]:
        """The rows in order, as views [1, n_i, C]."""
        if self._own is None or not self._used:
            return self._frozen
        return (*self._frozen, self._own[:, : self._used])

    def append(self, rows: Tensor) -> None:
        """Add rows [1, m, C]."""
        needed = self._used + rows.shape[1]
        if self._own is None or needed > self._own.shape[1]:
            capacity = max(self.MIN_CAPACITY, needed, 2 * self._used)
            grown = rows.new_empty(1, capacity, rows.shape[-1])
            if self._own is not None:
                grown[:, : self._used] = self._own[:, : self._used]
            self._own = grown
        self._own[:, self._used : needed] = rows
        self._used = needed

    def take(self, indices: Tensor) -> Tensor:
        """Rows at `indices` [...] -> [..., C]; out-of-range indices are the caller's error."""
        first, *others = self.segments
        if not others:
            return first[0][indices]
        taken = first[0][indices.clamp(max=first.shape[1] - 1)]
        start = first.shape[1]
        for segment in others:
            inside = (indices >= start) & (indices < start + segment.shape[1])
            taken[inside] = segment[0][indices[inside] - start]
            start += segment.shape[1]
        return taken

    def fork(self) -> Rows:
        return Rows(self.segments)

    def num_bytes(self) -> int:
        return sum(s.numel() * s.element_size() for s in self.segments)

    def tensors(self) -> Tensors:
        """What there is to save, by name. Segments stay apart: attention to two and to their
        concatenation round differently."""
        own = {} if self._own is None else {"own": self._own[:, : self._used]}
        return own | {f"frozen.{i}": rows for i, rows in enumerate(self._frozen)}

    @classmethod
    def of(cls, tensors: Tensors) -> Rows:
        """The table that `tensors` describes."""
        rows = cls(tuple(tensors[f"frozen.{i}"] for i in range(len(tensors) - ("own" in tensors))))
        if "own" in tensors:
            rows.append(tensors["own"])
        return rows


@dataclass
class LayerCache:
    """One layer's memory; a layer type uses the fields that it needs."""

    window: Tensor | None = None  # [1, <= sliding_window - 1, C]: the next query is the 128th
    entries: Rows = field(default_factory=Rows)  # compressed K = V
    tail: Tail | None = None
    index: Rows = field(default_factory=Rows)  # indexer keys
    index_tail: Tail | None = None
    full: Rows = field(default_factory=Rows)  # every token's K = V (uncompressed twin)
    watch: Watch | None = None  # asks the indexer for ranks; no part of the memory, not forked

    def fork(self) -> LayerCache:
        """Tensors outside `Rows` are replaced, never written, so they are shared as they are."""
        return LayerCache(
            self.window,
            self.entries.fork(),
            self.tail,
            self.index.fork(),
            self.index_tail,
            self.full.fork(),
        )

    def tensors(self) -> Tensors:
        """Everything that is remembered, by name."""
        found: Tensors = {} if self.window is None else {"window": self.window}
        for name in ("entries", "index", "full"):
            rows: Rows = getattr(self, name)
            found |= {f"{name}.{part}": tensor for part, tensor in rows.tensors().items()}
        for name in ("tail", "index_tail"):
            tail: Tail | None = getattr(self, name)
            if tail is not None:
                found |= {f"{name}.{part}": tensor for part, tensor in tail._asdict().items()}
        return found

    @classmethod
    def of(cls, tensors: Tensors) -> LayerCache:
        """The memory that `tensors` describes."""
        tail, index_tail = below(tensors, "tail"), below(tensors, "index_tail")
        return cls(
            tensors.get("window"),
            Rows.of(below(tensors, "entries")),
            Tail(**tail) if tail else None,
            Rows.of(below(tensors, "index")),
            Tail(**index_tail) if index_tail else None,
            Rows.of(below(tensors, "full")),
        )

    def remember_window(self, keys: Tensor, size: int) -> None:
        """Keep a copy of the last rows of keys [1, n, C]; a view would hold the whole chunk."""
        self.window = keys[:, max(0, keys.shape[1] - size) :].clone()

    def num_bytes(self) -> CacheBytes:
        window = 0 if self.window is None else self.window.numel() * self.window.element_size()
        tails = sum(t.num_bytes() for t in (self.tail, self.index_tail) if t is not None)
        return CacheBytes(
            window=window,
            compressed=self.entries.num_bytes(),
            index=self.index.num_bytes(),
            tail=tails,
            full=self.full.num_bytes(),
        )


def below(tensors: Tensors, name: str) -> Tensors:
    """The tensors called `name`.something, by that something."""
    start = f"{name}."
    return {key[len(start) :]: t for key, t in tensors.items() if key.startswith(start)}


def total_bytes(layers: list[LayerCache]) -> CacheBytes:
    """Sum by kind over layers."""
    total = CacheBytes()
    for layer in layers:
        total = total.plus(layer.num_bytes())
    return total


def visible_prefix(segments: tuple[Tensor, ...], count: int) -> Tensor:
    """The first `count` rows as one tensor [1, count, C]; a view where one segment suffices."""
    if not segments:
        raise ValueError("no rows to read")
    if count <= segments[0].shape[1]:
        return segments[0][:, :count]
    return torch.cat(segments, dim=1)[:, :count]
