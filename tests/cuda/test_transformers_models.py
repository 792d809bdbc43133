"""Caches of transformers' models on a CUDA device: full ones, and one kept in the CPU's memory."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers", reason="the adapter needs transformers: install the dev extra")

from models.transformers_models.caches import cache_kind
from models.transformers_models.loading import in_memory
from models.transformers_models.session import HuggingFaceSession
from tests.models.small import random_ids
from tests.models.transformers_models.tiny import tiny_llama
from tests.sessions import greedy_ids, held_total

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

IDS = random_ids(60).numpy()


@pytest.mark.parametrize("option", ["full", "offloaded"])
def test_answers_and_bytes_are_the_cpus(option: str) -> None:
    module = tiny_llama()
    on_cpu = HuggingFaceSession(in_memory(module).network)
    on_cpu.read(IDS)
    expected = greedy_ids(on_cpu.fork(), 6)

    kind = cache_kind(option, module.config, "cuda")
    network = in_memory(module.to("cuda")).network
    session = HuggingFaceSession(network, cache=kind.make())
    session.read(IDS[:30])
    session.read(IDS[30:])
    assert greedy_ids(session.fork(), 6) == greedy_ids(session.fork(), 6) == expected
    assert held_total(session) == held_total(on_cpu)
