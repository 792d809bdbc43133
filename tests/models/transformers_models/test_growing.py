"""Forks share the past and are independent all the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")

from transformers import DynamicCache

from models.transformers_models.growing import Rows, forks_of, mixed, new_cache, room
from models.transformers_models.held import held_bytes
from models.transformers_models.loading import in_memory
from models.transformers_models.session import HuggingFaceSession, Network
from tests.models.architectures import SERVED, build, reachable_bytes
from tests.models.small import relative_difference
from tests.models.transformers_models.tiny import tiny_llama

KINDS = [
    "llama",  # full layers
    "gemma3_text",  # windows
    "qwen3_next",  # states of linear attention
    pytest.param("falcon_h1", marks=pytest.mark.slow),  # both in one layer
    pytest.param("deepseek_v32", marks=pytest.mark.slow),  # an indexer
    pytest.param("deepseek_v4", marks=pytest.mark.slow),  # compressed entries
]


@pytest.fixture(scope="module", params=KINDS)
def network(request: pytest.FixtureRequest) -> Network:
    found = next(a for a in SERVED if a.model_type == request.param)
    return in_memory(build(found)).network


class DeepCopies:
    """transformers' own cache, copied whole by a fork: what sessions are compared with."""

    def __init__(self, network: Network, cache: Any = None, position: int = 0) -> None:
        self.network = network
        self.cache = cache or DynamicCache(config=network.module.config)
        self.position = position

    @torch.no_grad()
    def score(self, ids: Tensor) -> Tensor:
        positions = torch.arange(self.position, self.position + len(ids))
        output = self.network.module(
            input_ids=ids[None], past_key_values=self.cache, position_ids=positions[None]
        )
        self.position += len(ids)
        logits: Tensor = output.logits[0]
        return logits

    def fork(self) -> DeepCopies:
        return DeepCopies(self.network, copy.deepcopy(self.cache), self.position)


@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from(["read", "read", "fork", "drop"]),
                  st.integers(1, 23)),
        min_size=4,
        max_size=14,
    )
)  # fmt: skip
def test_any_order_of_parents_and_children_equals_deep_copies(
    network: Network, acts: list[tuple[int, str, int]]
) -> None:
    pairs: list[tuple[HuggingFaceSession, DeepCopies]] = [
        (HuggingFaceSession(network), DeepCopies(network))
    ]
    generator = torch.Generator().manual_seed(3)
    for which, act, count in acts:
        ours, theirs = pairs[which % len(pairs)]
        if act == "read":
            ids = torch.randint(97, (count,), generator=generator)
            assert relative_difference(ours.score(ids.numpy()), theirs.score(ids)) < 1e-4
        elif act == "fork":
            pairs.append((ours.fork(), theirs.fork()))
        elif len(pairs) > 1:
            del pairs[which % len(pairs)]
        del ours, theirs
    for ours, theirs in pairs:  # each of those that are left, after all that the others did
        ids = torch.randint(97, (5,), generator=generator)
        assert relative_difference(ours.score(ids.numpy()), theirs.score(ids)) < 1e-4
        assert held_bytes(ours.cache) is not None
        assert sum(held_bytes(ours.cache).values()) == reachable_bytes(ours.cache)  # type: ignore[union-attr]


def tables(session: HuggingFaceSession) -> list[int]:
    """The storages of all full layers."""
    return [
        value.table.tensor.data_ptr()
        for layer in session.cache.layers
        for value in vars(layer).values()
        if isinstance(value, Rows)
    ]


def test_a_question_costs_its_own_tokens() -> None:
    """Fork, read, answer, drop, go on: nothing of the past is copied."""
    session = HuggingFaceSession(in_memory(tiny_llama(max_position_embeddings=20000)).network)
    for layer in session.cache.layers:  # as if 16K tokens had been read
        layer.update(torch.zeros(1, 2, 16384, 8), torch.zeros(1, 2, 16384, 8))
    session._position = 16384
    before = tables(session)
    for _ in range(3):
        child = session.fork()
        child.read(range(30))
        child.score([7, 8])
        assert tables(child) == before
        del child
    session.read([5] * 20)
    assert tables(session) == before


def test_room_is_a_small_share_of_what_is_held() -> None:
    assert [room(rows) for rows in (1, 60, 1024, 4096, 1 << 20)] == [16, 16, 32, 128, 128]


def test_a_living_child_keeps_its_past_when_its_parent_goes_on() -> None:
    session = HuggingFaceSession(in_memory(tiny_llama()).network)
    session.read([1, 2, 3, 4])
    child = session.fork()
    child.read([5])
    session.read([6])
    assert not set(tables(session)) & set(tables(child))


def test_a_long_question_makes_room_for_all_that_follow() -> None:
    session = HuggingFaceSession(in_memory(tiny_llama(max_position_embeddings=2000)).network)
    session.read([1] * 500)
    child = session.fork()
    child.read([2] * (room(500) + 1))
    grown = tables(child)
    assert tables(session) == grown
    del child
    other = session.fork()
    other.read([3] * (room(500) + 10))
    assert tables(other) == grown


def test_what_forks_cost_is_declared() -> None:
    cache = new_cache(tiny_llama().config)
    assert forks_of(cache) == "share"
    cache.layers[0] = object()
    assert forks_of(cache) == "copy"


def test_classes_made_from_layers_stay_out_of_other_caches() -> None:
    """transformers registers a layer's subclass, and makes every later cache of it."""
    config = build(next(a for a in SERVED if a.model_type == "deepseek_v4")).config
    kinds = [type(layer) for layer in DynamicCache(config=config).layers]
    for kind in set(kinds):
        mixed(type("Another", (), {}), kind)
    assert [type(layer) for layer in DynamicCache(config=config).layers] == kinds
