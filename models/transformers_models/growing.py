"""Caches of transformers whose forks share the past.

transformers' full layers concatenate: each step copies the past. The layers here write behind it
instead, into room that is kept free, and several sessions read one table of rows. A session that
wants to write where another living session has written takes a copy of the past first, so that
every fork is independent, and a fork that is dropped before its parent goes on costs no copy.
"""

from __future__ import annotations

import copy
import functools
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from transformers import DynamicCache, cache_utils

from models.protocols import Forks


def room(rows: int) -> int:
    """Rows kept free behind so many: one in 32, from 16 to 128.

    A question that needs more makes a copy of the past, once for all that follow.
    """
    return min(128, max(16, rows // 32))


class Table:
    """Storage of rows [..., capacity, C], with those who read it."""

    def __init__(self, rows: Tensor, capacity: int) -> None:
        self.users: WeakSet[Rows] = WeakSet()
        self.tensor = rows
        self._move(rows, capacity)

    def reserve(self, needed: int, used: int) -> None:
        """Room for `needed` rows; the first `used` are kept."""
        if needed > self.tensor.shape[-2]:
            self._move(self.tensor[..., :used, :], needed + room(needed))

    def _move(self, rows: Tensor, capacity: int) -> None:
        self.tensor = rows.new_empty(*rows.shape[:-2], capacity, rows.shape[-1])
        self.tensor[..., : rows.shape[-2], :] = rows


class Rows:
    """The first `length` rows of a table. Appending copies only where another has written."""

    def __init__(self, table: Table, length: int) -> None:
        self.table = table
        self.length = length
        table.users.add(self)

    @classmethod
    def like(cls, states: Tensor) -> Rows:
        """No rows yet, of the shape and type of `states` [..., n, C]."""
        count = states.shape[-2]
        return cls(Table(states[..., :0, :], count + room(count)), 0)

    @property
    def tensor(self) -> Tensor:
        """A view [..., length, C]."""
        return self.table.tensor[..., : self.length, :]

    @property
    def spare_bytes(self) -> int:
        """What the storage holds behind the last row."""
        held: int = self.table.tensor.untyped_storage().nbytes()
        return held - self.tensor.numel() * self.table.tensor.element_size()

    def append(self, states: Tensor) -> None:
        """Add rows [..., n, C]."""
        end = self.length + states.shape[-2]
        if any(user.length > self.length for user in self.table.users):
            self.table.users.discard(self)
            self.table = Table(self.tensor, end + room(end))
            self.table.users.add(self)
        self.table.reserve(end, self.length)
        self.table.tensor[..., self.length : end, :] = states
        self.length = end

    def fork(self) -> Rows:
        return Rows(self.table, self.length)


class InRows:
    """A layer's attribute that is read as a tensor and held as `Rows` once it has any."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, layer: Any, owner: type) -> Any:
        if layer is None:
            return self
        value = vars(layer)[self._name]
        return value.tensor if isinstance(value, Rows) else value

    def __set__(self, layer: Any, value: Any) -> None:
        vars(layer)[self._name] = value


def appended(layer: Any, name: str, states: Tensor) -> Tensor:
    """The attribute's rows with `states` behind them."""
    rows = vars(layer)[name]
    if not isinstance(rows, Rows):
        rows = Rows.like(states)
        if vars(layer)[name] is not None and vars(layer)[name].numel():
            rows.append(vars(layer)[name])
        vars(layer)[name] = rows
    rows.append(states)
    return rows.tensor


class GrowingMixin:
    """`update` of a full layer, without concatenation."""

    keys = InRows()
    values = InRows()

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        layer: Any = self
        if not layer.is_initialized:
            layer.lazy_initialization(key_states, value_states)
        return appended(self, "keys", key_states), appended(self, "values", value_states)


class GrowingIndexMixin(GrowingMixin):
    """The same, with an indexer's keys."""

    indexer_keys = InRows()

    def update_indexer(self, indexer_key_states: Tensor) -> Tensor:
        layer: Any = self
        if not layer.is_indexer_initialized:
            layer.lazy_initialization_indexer(indexer_key_states)
        return appended(self, "indexer_keys", indexer_key_states)


UNREGISTERED = {"_layer_type": None}
"""Members of a class that is made here from a layer's: transformers registers a subclass that has
the layer's own, and would put it into every cache from then on."""

MIXINS = {
    "DynamicLayer": GrowingMixin,
    "DynamicIndexedLayer": GrowingIndexMixin,
    "LinearAttentionAndFullAttentionLayer": GrowingMixin,
}
GROWING: dict[type, Any] = {
    base: type(f"Growing{name}", (mixin, base), UNREGISTERED)
    for name, mixin in MIXINS.items()
    if (base := getattr(cache_utils, name, None)) is not None  # early releases have the first only
}
"""Layers of transformers, and those that stand in for them."""

SHARING = tuple(
    getattr(cache_utils, name)
    for name in ("DynamicLayer", "LinearAttentionCacheLayerMixin", "DummyLayer")
    if hasattr(cache_utils, name)
)
"""Layers that replace their tensors and never write into them, linear states apart."""


def new_cache(config: Any) -> Any:
    """An empty cache for a model's configuration."""
    cache = DynamicCache(config=config)
    cache.layers = [_growing(layer) for layer in cache.layers]
    return cache


def _growing(layer: Any) -> Any:
    """A layer of its kind that grows in place; the layer itself where none is written here."""
    if type(layer) not in GROWING:
        return layer
    names = [name for name in ("number_of_states",) if hasattr(layer, name)]
    return GROWING[type(layer)](**{name: getattr(layer, name) for name in names})


def forks_of(cache: Any) -> Forks:
    """What `fork` of such a cache costs."""
    return "share" if all(_shares(layer) for layer in cache.layers) else "copy"


def _shares(layer: Any) -> bool:
    return isinstance(layer, SHARING)


def fork(cache: Any) -> Any:
    """An independent future of the same past: the past is shared, small states are copied."""
    child = copy.copy(cache)
    child.layers = [
        _fork_layer(layer) if _shares(layer) else copy.deepcopy(layer) for layer in cache.layers
    ]
    return child


@functools.cache
def mixed(mixin: type, kind: type) -> Any:
    """The class of `mixin` before `kind`, a layer's: one for all layers, since it is kept."""
    return type(f"{mixin.__name__}{kind.__name__}", (mixin, kind), UNREGISTERED)


def of_class(layer: Any, kind: type) -> Any:
    """An object of `kind`, a class made from the layer's, with what the layer has."""
    found: Any = object.__new__(kind)
    vars(found).update(vars(layer))
    return found


WRITTEN_IN_PLACE = ("conv_states", "recurrent_states")


def _fork_layer(layer: Any) -> Any:
    child = copy.copy(layer)
    for name, value in vars(layer).items():
        if isinstance(value, Rows):
            vars(child)[name] = value.fork()
        elif name in WRITTEN_IN_PLACE:
            vars(child)[name] = {key: _cloned(state) for key, state in value.items()}
        elif isinstance(value, dict):
            vars(child)[name] = dict(value)
    return child


def _cloned(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.clone()


def trim(cache: Any) -> None:
    """Copy what is a view of a larger storage: a window would hold its whole chunk."""
    copies: dict[int, Tensor] = {}  # keys and values may be one tensor

    def trimmed(value: Any) -> Any:
        if not isinstance(value, Tensor) or not _is_part(value):
            return value
        if id(value) not in copies:
            copies[id(value)] = value.clone(memory_format=torch.contiguous_format)
        return copies[id(value)]

    for layer in cache.layers:
        for name, value in vars(layer).items():
            if isinstance(value, dict):
                value.update({key: trimmed(member) for key, member in value.items()})
            else:
                vars(layer)[name] = trimmed(value)


def _is_part(tensor: Tensor) -> bool:
    return bool(tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size())
