"""Lets a function see, change or make the calls of the attention of a model of transformers.

transformers looks its attention function up by name at each call. For the length of a `with` block
another function stands under that name: one that asks a watcher and then calls the first one, or
any other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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


Attend = Callable[..., Any]
"""transformers' attention function: of layer, query, key, value, mask and more by name."""


@contextmanager
def replaced(
    module: Any, tables: list[Any], replacement: Callable[[Attend | None], Attend]
) -> Iterator[None]:
    """In the block the model's attention is what `replacement` makes of its function.

    That is None for "eager", where each model file has its own: see `function_of`.
    """
    name = module.config.get_text_config(decoder=True)._attn_implementation
    before = [dict(table._local_mapping) for table in tables]
    try:
        for table in tables:
            table[name] = replacement(table.get(name))
        yield
    finally:
        for table, mapping in zip(tables, before, strict=True):
            table._local_mapping.clear()
            table._local_mapping.update(mapping)


def function_of(layer: Any, original: Attend | None) -> Attend:
    """The attention function of a layer whose table holds `original`."""
    if original is not None:
        return original
    eager: Attend = sys.modules[type(layer).__module__].eager_attention_forward
    return eager


def watched(module: Any, tables: list[Any], watch: Watcher) -> AbstractContextManager[None]:
    """Calls of the model's attention go through `watch` in the block."""
    owners: dict[int, int] = {}
    return replaced(module, tables, lambda original: _watching(original, watch, owners))


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
        function = function_of(layer, original)
        return function(layer, call.query, call.key, call.value, call.mask, *args, **kwargs)

    return attend
