"""What each kind of attention keeps of the tokens that it has seen, and how forks share it.

A kind of cache is a dataclass whose fields are parts (`Rows`, `Window`, `Pending`, or another
`Part`), each with a kind of bytes. Its attention makes it in `new_cache()`. `Rows` and `Window`
store their rows in a format of `models.number_formats`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from models.deepseek_v4.compressor import Tail
from models.deepseek_v4.trace import Watch
from models.devices import storage_bytes
from models.number_formats import PLAIN, RotatedFp4, RowFormat

Tensors = dict[str, Tensor]
KIND = "kind"
"""Key of a field's metadata: what the bytes of that part count as."""


class Part(Protocol):
    """Tensors of one kind in a layer's cache."""

    def fork(self) -> Self:
        """A part that shares these tensors and changes independently."""

    def tensors(self) -> Tensors:
        """Everything that is held, by name: what a file has to keep."""

    def of(self, tensors: Tensors) -> Self:
        """A part like this one with what `tensors` describes; an empty one where there are none."""


class Rows:
    """An append-only table [1, n, C] whose past is shared by forks.

    A fork takes the rows so far as a frozen segment and appends to storage of its own, so
    neither side ever copies or disturbs the other's past. Rows are stored in `format`, encoded
    when they are appended and decoded when they are read.
    """

    STEP = 8
    """Storage grows by at least so many rows."""
    SHARE = 32
    """At most one in so many rows of storage is unused, or fewer than STEP rows are."""
    BLOCK = 4096
    """Rows that are decoded at once, at most, by `blocks`."""

    def __init__(self, frozen: tuple[Tensor, ...] = (), format: RowFormat = PLAIN) -> None:
        self.format = format
        self._frozen = frozen
        self._own: Tensor | None = None
        self._used = 0

    def __len__(self) -> int:
        return sum(s.shape[1] for s in self._frozen) + self._used

    @property
    def segments(self) -> tuple[Tensor, ...]:
        """The rows in order as they are stored: views [1, n_i, S]."""
        if self._own is None or not self._used:
            return self._frozen
        return (*self._frozen, self._own[:, : self._used])

    @classmethod
    def capacity(cls, count: int) -> int:
        """Rows of storage for `count` rows: it depends on nothing else, such as the pieces read.

        Powers of two are exact. A table grown piece by piece copies each row less than 2 SHARE
        times.
        """
        step = max(cls.STEP, (1 << count.bit_length()) // (2 * cls.SHARE))
        return -(-count // step) * step

    def append(self, rows: Tensor) -> Tensor:
        """Add rows [1, m, C]; the same as they will be read."""
        stored = self.format.encode(rows)
        self._store(stored)
        return self.format.decode(stored)

    def _store(self, rows: Tensor) -> None:
        """Add rows [1, m, S] as they are stored."""
        if not rows.shape[1]:
            return
        needed = self._used + rows.shape[1]
        if self._own is None or needed > self._own.shape[1]:
            grown = rows.new_empty(1, self.capacity(needed), rows.shape[-1])
            if self._own is not None:
                grown[:, : self._used] = self._own[:, : self._used]
            self._own = grown
        self._own[:, self._used : needed] = rows
        self._used = needed

    def read(self, count: int) -> Tensor:
        """The first `count` rows as one tensor [1, count, C]; a view where that is possible."""
        return visible_prefix(tuple(self.blocks(count)), count)

    def blocks(self, count: int) -> Iterator[Tensor]:
        """The first `count` rows in order, [1, n_i, C]; plain ones are views of what is stored."""
        for segment in self.segments:
            if not count:
                return
            kept = segment[:, :count]
            count -= kept.shape[1]
            for rows in (kept,) if self.format.is_plain else kept.split(self.BLOCK, dim=1):
                yield self.format.decode(rows)

    def scored(self, count: int) -> tuple[Tensor, ...]:
        """The first `count` rows in order, [1, n_i, ...], as the indexer's kernel reads them.

        FP4 index keys are as they are stored, others as `blocks` has them.
        """
        if not isinstance(self.format, RotatedFp4):
            return tuple(self.blocks(count))
        starts = accumulate((len(segment[0]) for segment in self.segments), initial=0)
        cut = (s[:, : max(0, count - at)] for s, at in zip(self.segments, starts, strict=False))
        return tuple(segment for segment in cut if segment.shape[1])

    def gathered(self, indices: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Rows that hold those at `indices` [1, S, k], all below `count`, and where they are there.

        The table itself where it can be read in place, else a copy of the lesser of the rows
        that are wanted and of all rows.
        """
        if self.format.is_plain and len(self.segments) == 1:
            return self.segments[0], indices
        if indices.numel() >= count:
            return self.read(count), indices
        own = torch.arange(indices.numel(), device=indices.device).view_as(indices)
        return self.take(indices).flatten(1, 2), own

    def take(self, indices: Tensor) -> Tensor:
        """Rows at `indices` [...] -> [..., C]; out-of-range indices are the caller's error."""
        return self.format.decode(self._stored_at(indices))

    def only(self, indices: Tensor) -> Rows:
        """A table of its own with the rows at `indices` [m], as they are stored."""
        rows = Rows(format=self.format)
        rows._store(self._stored_at(indices)[None])
        return rows

    def _stored_at(self, indices: Tensor) -> Tensor:
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
        return Rows(self.segments, self.format)

    def tensors(self) -> Tensors:
        """Segments stay apart: attention to two and to their concatenation round differently."""
        own = {} if self._own is None else {"own": self._own[:, : self._used]}
        return own | {f"frozen.{i}": rows for i, rows in enumerate(self._frozen)}

    def of(self, tensors: Tensors) -> Rows:
        count = len(tensors) - ("own" in tensors)
        rows = Rows(tuple(tensors[f"frozen.{i}"] for i in range(count)), self.format)
        if "own" in tensors:
            rows._store(tensors["own"])
        return rows


@dataclass
class Window:
    """The rows of the last tokens [1, n, C], stored in `format`.

    They are replaced, never written, so forks share.
    """

    rows: Tensor | None = None  # as they are stored
    format: RowFormat = PLAIN

    def append(self, keys: Tensor, size: int) -> Tensor:
        """The rows held and keys [1, m, C] behind them, as they are read; the last `size` stay.

        They stay as a copy: a view would hold the whole chunk.
        """
        stored = self.format.encode(keys)
        if self.rows is not None:
            stored = torch.cat((self.rows, stored), dim=1)
        self.rows = stored[:, max(0, stored.shape[1] - size) :].clone()
        return self.format.decode(stored)

    def fork(self) -> Window:
        return Window(self.rows, self.format)

    def tensors(self) -> Tensors:
        return {} if self.rows is None else {"rows": self.rows}

    def of(self, tensors: Tensors) -> Window:
        return Window(tensors.get("rows"), self.format)


@dataclass
class Pending:
    """A compressor's tail. It is replaced, never written, so forks share it."""

    tail: Tail | None = None

    def fork(self) -> Pending:
        return Pending(self.tail)

    def tensors(self) -> Tensors:
        return {} if self.tail is None else self.tail._asdict()

    def of(self, tensors: Tensors) -> Pending:
        return Pending(Tail(**tensors) if tensors else None)


@dataclass
class LayerCache:
    """One layer's memory. Fields without a kind are neither forked, saved nor counted."""

    def fork(self) -> Self:
        """An independent future that shares this past; no tensor is copied."""
        return type(self)(**{name: part.fork() for name, _, part in self._parts()})

    def tensors(self) -> Tensors:
        """Everything that is remembered, by name."""
        return {
            f"{name}.{key}": tensor
            for name, _, part in self._parts()
            for key, tensor in part.tensors().items()
        }

    def of(self, tensors: Tensors) -> Self:
        """A memory like this one with what `tensors` describes."""
        parts = {name: part.of(below(tensors, name)) for name, _, part in self._parts()}
        return type(self)(**parts)

    def num_bytes(self) -> dict[str, int]:
        """Bytes of the distinct storages that are held, by kind."""
        held: dict[str, list[Tensor]] = {}
        for _, kind, part in self._parts():
            held.setdefault(kind, []).extend(part.tensors().values())
        return {kind: storage_bytes(tensors) for kind, tensors in held.items()}

    def _parts(self) -> Iterator[tuple[str, str, Part]]:
        """Name, kind and value of each part."""
        for each in fields(self):
            if KIND in each.metadata:
                yield each.name, each.metadata[KIND], getattr(self, each.name)


@dataclass
class SlidingCache(LayerCache):
    """Of sliding attention: at most `sliding_window` - 1 tokens, since a query is one more."""

    window: Window = field(default_factory=Window, metadata={KIND: "window"})

    def forget_window(self) -> None:
        """Drop the window; tokens from here on fill a new one."""
        self.window = self.window.of({})


@dataclass
class HcaCache(SlidingCache):
    """Of heavily compressed attention. `kind`: of its entries' bytes."""

    kind: ClassVar[str] = "hca"
    entries: Rows = field(default_factory=Rows, metadata={KIND: kind})  # K = V
    tail: Pending = field(default_factory=Pending, metadata={KIND: "tail"})
    gone: bool = False  # queries see the window alone

    def fork(self) -> Self:
        return replace(super().fork(), gone=self.gone)

    def forget_entries(self) -> None:
        """Drop all but the window, and keep no more from here on."""
        for name, kind, part in self._parts():
            if kind != "window":
                setattr(self, name, part.of({}))
        self.gone = True


@dataclass
class SelectingCache(LayerCache):
    """Of attention that selects by the scores of an indexer."""

    index: Rows = field(default_factory=Rows, metadata={KIND: "index"})  # the indexer's keys
    watch: Watch | None = None  # asks the indexer for ranks
    topk: int | None = None  # entries that a query selects, where it is not the configuration's

    def fork(self) -> Self:
        return replace(super().fork(), topk=self.topk)


@dataclass
class CsaCache(SelectingCache, HcaCache):
    """Of compressed sparse attention."""

    kind = "csa"
    entries: Rows = field(default_factory=Rows, metadata={KIND: kind})  # K = V
    index_tail: Pending = field(default_factory=Pending, metadata={KIND: "tail"})


@dataclass
class EngramCache(LayerCache):
    """Of a memory of n-grams: the newest ids, and what its convolution still needs."""

    ids: Window = field(default_factory=Window, metadata={KIND: "engram"})  # [1, n]
    tail: Window = field(default_factory=Window, metadata={KIND: "engram"})  # [1, n, K * D]


def total_bytes(caches: Iterable[LayerCache]) -> dict[str, int]:
    """Sum by kind over layers."""
    total: dict[str, int] = {}
    for cache in caches:
        for kind, count in cache.num_bytes().items():
            total[kind] = total.get(kind, 0) + count
    return total


def below(tensors: Tensors, name: str) -> Tensors:
    """The tensors called `name`.something, by that something."""
    start = f"{name}."
    return {key[len(start) :]: t for key, t in tensors.items() if key.startswith(start)}


def visible_prefix(segments: tuple[Tensor, ...], count: int) -> Tensor:
    """The first `count` rows as one tensor [1, count, C]; a view where one segment suffices."""
    if not segments:
        raise ValueError("no rows to read")
    if count <= segments[0].shape[1]:
        return segments[0][:, :count]
    return torch.cat(segments, dim=1)[:, :count]
