"""What the attention layers of a model are given, for presses that compute from hidden states.

Layers are looked for where kvpress looks: each decoder layer has a `self_attn` that is called with
`hidden_states` and `position_embeddings` by name, and the decoder a `rotary_emb`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from models.presses.contract import Inputs

Given = tuple[Tensor, Tensor, Tensor]
"""Of one call: hidden states [1, S, D], cosines and sines [1, S, C]."""


def attention_layers(module: Any) -> dict[int, Any]:
    """By index in the cache; empty where the model is built in another way.

    Each gets its decoder's `rotary_emb` as an attribute, which kvpress sets, too.
    """
    body = getattr(module, "model", None)
    body = getattr(body, "language_model", body)
    rotary = getattr(body, "rotary_emb", None)
    if rotary is None:
        return {}
    found = {}
    for decoder in getattr(body, "layers", ()):
        layer = getattr(decoder, "self_attn", None)
        if layer is not None and hasattr(layer, "layer_idx"):
            vars(layer).setdefault("rotary_emb", rotary)  # no submodule: it is the decoder's
            found[int(layer.layer_idx)] = layer
    return found


@contextmanager
def collecting(layers: Mapping[int, Any], take: Callable[[int, Given], None]) -> Iterator[None]:
    """In the block `take` gets what each of `layers` is given, call by call."""
    with ExitStack() as stack:
        for index, layer in layers.items():
            stack.enter_context(_hooked(index, layer, take))
        yield


@contextmanager
def _hooked(index: int, layer: Any, take: Callable[[int, Given], None]) -> Iterator[None]:
    def see(_: Any, __: Any, given: Mapping[str, Any]) -> None:
        cos, sin = given["position_embeddings"]
        take(index, (given["hidden_states"], cos, sin))

    handle = layer.register_forward_pre_hook(see, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def joined(layer: Any, calls: Sequence[Given]) -> Inputs:
    """What the calls gave to a layer, as one call would have."""
    hidden, cos, sin = (torch.cat(parts, dim=1) for parts in zip(*calls, strict=True))
    return Inputs(layer, hidden, cos, sin)
