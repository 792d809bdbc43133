"""Lets a function see, and change, what the attention of a model of transformers is called with.

transformers looks its attention function up by name at each call. For the length of a `with` block
another function stands under that name, which asks the watcher and then calls the first one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor


class AttentionCall(NamedTuple):
    """One call: `query` [1, H, S, C], `key` and `value` [1, G, n, C], `mask` [1, x, S, n] or None.

    Logits are `scaling` · query · key; `sinks` [H] and `softcap` as in `presses.observed.Call`.
    `borrowed`: the keys are those of an earlier layer, which has queries of its own.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float
    sinks: Tensor | None
    softcap: float | None
    borrowed: bool = False


Watcher = Callable[[int, AttentionCall], AttentionCall]
"""Of the cache's layer that the call reads, and the call: what to call instead."""


def interfaces_of(module: Any) -> list[Any]:
    """The tables in which the attention layers of a model look their function up."""
    found = {}
    for part in module.modules():
        if hasattr(part, "layer_idx"):
            source = sys.modules[type(part).__module__]
            table = getattr(source, "ALL_ATTENTION_FUNCTIONS", None)
            if table is not None:
                found[id(table)] = table
    return list(found.values())


@contextmanager
def watched(module: Any, tables: list[Any], watch: Watcher) -> Iterator[None]:
    """Calls of the model's attention go through `watch` in the block."""
    name = module.config.get_text_config(decoder=True)._attn_implementation
    before = [dict(table._local_mapping) for table in tables]
    owners: dict[int, int] = {}
    try:
        for table in tables:
            table[name] = _watching(table.get(name), watch, owners)
        yield
    finally:
        for table, mapping in zip(tables, before, strict=True):
            table._local_mapping.clear()
            table._local_mapping.update(mapping)


def _watching(original: Any, watch: Watcher, owners: dict[int, int]) -> Any:
    """`owners`: the layer that keys at an address were first read by."""

    def attend(
        layer: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        scaling, index = kwargs.get("scaling"), int(getattr(layer, "layer_idx", -1))
        borrowed = bool(getattr(layer, "is_kv_shared_layer", False))
        if borrowed:
            index = owners.get(key.data_ptr(), -1)
        else:
            owners[key.data_ptr()] = index
        call = AttentionCall(
            query,
            key,
            value,
            attention_mask,
            query.shape[-1] ** -0.5 if scaling is None else float(scaling),
            kwargs.get("s_aux"),
            kwargs.get("softcap"),
            borrowed,
        )
        call = watch(index, call)
        function = original
        if function is None:  # eager: each model file has its own
            function = sys.modules[type(layer).__module__].eager_attention_forward
        return function(layer, call.query, call.key, call.value, call.mask, *args, **kwargs)

    return attend
