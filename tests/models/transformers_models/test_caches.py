"""The option `cache`: bytes, answers, forks, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")

from models.errors import ModelError
from models.registry import load_model
from models.transformers_models import caches
from models.transformers_models.caches import cache_kind, fp8_layer
from models.transformers_models.loading import HuggingFaceModel, in_memory
from models.transformers_models.session import HuggingFaceSession
from tests.models.architectures import SERVED, build, reachable_bytes
from tests.models.small import random_ids, relative_difference
from tests.models.transformers_models.tiny import tiny_llama
from tests.sessions import greedy_ids, held

IDS = random_ids(200)
WIDE = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64}
ROW = 2 * 64  # K and V of one layer's one head
FEW_BITS = [
    pytest.param("int8", "hqq"),
    pytest.param("int4", "hqq"),
    pytest.param("int2", "hqq"),
    pytest.param("int4", "quanto"),
    pytest.param("int2", "quanto"),
]


def session_of(cache: str, **fields: Any) -> HuggingFaceSession:
    weights = in_memory(tiny_llama(max_position_embeddings=600, **{**WIDE, **fields}))
    return HuggingFaceModel("tiny", weights, {"cache": cache}).session()


def difference(session: HuggingFaceSession) -> float:
    """Of the logits after 200 tokens and a question of 5, from a full cache's."""
    full = session_of("full")
    for part in (IDS, IDS[:5]):
        session.read(part.numpy())
        full.read(part.numpy())
    return relative_difference(session.next_logits(), full.next_logits())


def only(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = {"hqq": "hqq.core.quantize", "quanto": "optimum.quanto"}[backend]
    pytest.importorskip(package, reason=f"needs {backend}")
    monkeypatch.setattr(caches, "_is_installed", lambda name: name == backend)


def test_fp8_holds_a_byte_a_number() -> None:
    session = session_of("fp8")
    assert 1e-5 < difference(session) < 0.1
    assert held(session) == {"quantized": 2 * (ROW * 205 + 2 * 4)}  # layers; a scale for K, V each


def test_the_first_call_answers_from_what_is_kept() -> None:
    layer = fp8_layer()
    states = torch.randn(1, 1, 9, 64)
    keys, values = layer.update(states, 2 * states)
    assert not torch.equal(keys, states)
    assert torch.equal(keys, layer._dequantize(layer._quantized_keys))
    assert torch.equal(values, layer._dequantize(layer._quantized_values))
    assert relative_difference(keys, states) < 0.1


def test_what_lies_beyond_the_first_scale_is_clipped() -> None:
    layer = fp8_layer()
    layer.update(torch.full((1, 1, 3, 64), 2.0), torch.ones(1, 1, 3, 64))
    keys, _ = layer.update(torch.full((1, 1, 1, 64), -50.0), torch.ones(1, 1, 1, 64))
    assert keys[0, 0, :, 0].tolist() == pytest.approx([2, 2, 2, -2])


@pytest.mark.parametrize(("option", "backend"), FEW_BITS)
def test_few_bits(option: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(backend, monkeypatch)
    session = session_of(option)
    allowed = {"int8": 0.05, "int4": 0.5, "int2": 1.5}[option]
    assert 1e-5 < difference(session) < allowed
    found = held(session)
    numbers = 2 * ROW * 200
    bits = int(option.removeprefix("int"))
    assert numbers * bits / 8 < found["quantized"] < numbers * (bits / 8 + 0.3)  # and scales
    assert found["residual"] == 2 * ROW * 5 * 4
    assert sum(found.values()) == reachable_bytes(session.cache.layers)


@pytest.mark.parametrize(("option", "backend"), [*FEW_BITS, ("fp8", None), ("sliding:20", None)])
def test_forks_are_independent(
    option: str, backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend:
        only(backend, monkeypatch)

    def follow(*parts: torch.Tensor) -> torch.Tensor:
        session = session_of(option)
        for part in parts:
            logits = session.score(part.numpy())
        return logits

    first, long, short = IDS[:60], IDS[:150], IDS[60:70]  # a residual is full at 128
    parent = session_of(option)
    parent.read(first.numpy())
    child = parent.fork()
    assert relative_difference(child.score(long.numpy()), follow(first, long)) < 1e-5
    grandchild = child.fork()
    assert relative_difference(parent.score(short.numpy()), follow(first, short)) < 1e-5
    expected = follow(first, long, short)
    assert relative_difference(grandchild.score(short.numpy()), expected) < 1e-5
    assert relative_difference(child.score(short.numpy()), expected) < 1e-5


def test_a_model_of_windows_and_full_layers_changes_the_full_ones() -> None:
    gemma = next(a for a in SERVED if a.model_type == "gemma3_text")
    weights = in_memory(build(gemma))
    ids = random_ids(60)
    found = {}
    for cache in ("full", "fp8", "sliding:8"):
        session = HuggingFaceModel("tiny", weights, {"cache": cache}).session()
        session.read(ids.numpy())
        assert len(greedy_ids(session.fork(), 3)) == 3
        found[cache] = held(session)
    window, row = found["full"]["window"], 2 * 2 * 2 * 8  # full layers, K and V, heads, width
    assert found["full"]["full"] == 4 * row * 60
    assert found["fp8"] == {"window": window, "quantized": row * 60 + 4 * 4}
    assert found["sliding:8"] == {"window": window + 4 * row * 7}


def test_a_sliding_cache_sees_its_newest_tokens() -> None:
    """With one layer, what a query sees of the past is what a shorter text holds."""
    session = session_of("sliding:9", num_hidden_layers=1)
    session.read(IDS[:40].numpy())
    session.read(IDS[40:41].numpy())
    alone = session_of("full", num_hidden_layers=1)
    alone.read(IDS[32:41].numpy())
    assert relative_difference(session.next_logits(), alone.next_logits()) < 1e-5
    assert held(session) == {"window": 4 * ROW * 9}  # 8 rows, and one that a single step leaves


def test_the_fingerprint_knows_the_cache_and_its_calls(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)

    def fingerprint(**options: object) -> str:
        return load_model(f"hf:{tmp_path}", {"device": "cpu", **options}).fingerprint

    plain, small = fingerprint(cache="fp8"), fingerprint(cache="fp8", chunk_tokens=64)
    assert fingerprint(cache="full") == fingerprint()
    assert fingerprint(cache="fp8", chunk_tokens=1024) == plain
    assert len({fingerprint(), plain, small, fingerprint(cache="sliding:64")}) == 4
    described = load_model(f"hf:{tmp_path}", {"device": "cpu", "cache": "sliding:64"}).describe()
    assert described["cache"] == {"cache": "sliding:64", "tokens": 63}


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_llama().config
    for wrong in ("int3", "sliding:1", "sliding:x", "sliding", 4, None):
        with pytest.raises(ModelError, match=r"int4, int2, fp8, offloaded or sliding:N$"):
            cache_kind(wrong, config)
    monkeypatch.setattr(caches, "_is_installed", lambda name: False)
    with pytest.raises(ModelError, match=r"^options.cache: int4 needs the package hqq or optimum"):
        cache_kind("int4", config)
    with pytest.raises(ModelError, match=r"^options.cache: int8 needs the package hqq$"):
        cache_kind("int8", config)
    with pytest.raises(ModelError, match=r"^options.cache: offloaded needs an accelerator"):
        cache_kind("offloaded", config, "cpu")
    mistral = build(next(a for a in SERVED if a.model_type == "mistral"))
    with pytest.raises(ModelError, match=r"got 'fp8', but no layer of the model is a full one$"):
        cache_kind("fp8", mistral.config)
