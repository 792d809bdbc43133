"""Bytes of caches that no session of the product makes yet, of windows, and what is unknown."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")

from transformers import QuantizedCache

from models.transformers_models.held import CACHE_KINDS, held_bytes
from models.transformers_models.loading import HuggingFaceModel, in_memory
from tests.models.architectures import SERVED, build, reachable_bytes
from tests.models.small import random_ids
from tests.models.transformers_models.tiny import tiny_llama
from tests.sessions import held


def test_a_quantized_cache_counts_numbers_and_scales() -> None:
    module = tiny_llama()
    cache = QuantizedCache("fp8", module.config)
    with torch.no_grad():
        module(torch.arange(40)[None], past_key_values=cache)
    # layers, K and V: heads, width, tokens of one byte, and a scale in float32
    assert held_bytes(cache) == {"quantized": 2 * 2 * (2 * 8 * 40 + 4)}
    assert held_bytes(cache) == {"quantized": reachable_bytes(cache)}


def test_what_cannot_be_looked_into_is_unknown() -> None:
    module = tiny_llama()
    cache = QuantizedCache("fp8", module.config)
    cache.layers[1]._quantized_keys = (object(), 1.0)
    assert held_bytes(cache) is None


def test_a_storage_counts_once() -> None:
    module = tiny_llama()
    cache = QuantizedCache("fp8", module.config)
    with torch.no_grad():
        module(torch.arange(40)[None], past_key_values=cache)
    once = held_bytes(cache)
    cache.layers.append(cache.layers[0])
    assert held_bytes(cache) == once


def test_every_kind_is_explained() -> None:
    assert all(CACHE_KINDS.values())


@pytest.mark.parametrize("options", [{}, {"cache": "sliding:40"}])
def test_windows_are_foretold_before_they_are_full(options: dict[str, str]) -> None:
    """Gemma 3's own windows, and those that an option gives to its full layers."""
    gemma = in_memory(build(next(a for a in SERVED if a.model_type == "gemma3_text")))
    session = HuggingFaceModel("tiny", gemma, options).session()
    assert session.window_bytes() == (0, 0)
    session.read(random_ids(5).numpy())
    now, full = session.window_bytes()
    assert now == held(session)["window"] < full
    session.read(random_ids(70).numpy())
    session.step(3)  # leaves one row more than a longer call
    assert session.window_bytes() == (full, full)
    assert held(session)["window"] == full
