"""The last layer asks for the newest tokens alone: their states, and every cache, stay the same."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from models import kernels
from models.deepseek_v3.model import LatentTwin
from models.deepseek_v4.config import CSA, DSA, FULL, HCA, MLA, SLIDING
from models.deepseek_v4.dense import DenseTwin
from models.deepseek_v4.loading import chosen_format
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from models.deepseek_v4.session_files import layer_tensors
from tests.models.small import (
    GATHERED,
    LATENT,
    full_logits,
    random_ids,
    randomized,
    relative_difference,
)

IDS = random_ids(400)
TOLERANCE = 2e-5
LAST = SLIDING, CSA, HCA, FULL, MLA, DSA
"""Kinds of the last layer."""


@cache
def ending_with(kind: str, word: str = "full") -> DeepseekV4:
    """A small model of two layers whose last is of this kind; rows are stored as `word` says."""
    shape = LATENT if kind in (MLA, DSA) else GATHERED
    twin = {FULL: DenseTwin, MLA: LatentTwin, DSA: LatentTwin}.get(kind, DeepseekV4)
    held = CSA if kind == FULL else kind  # of which the twin makes a full layer
    model = randomized(twin(replace(shape, layer_types=(SLIDING, held))), seed=4)
    model.store_in(chosen_format(model.config, {"cache": word}))
    return model


@pytest.fixture(params=["1", "0"], ids=["kernels", "plain torch"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.SWITCH, request.param)


@pytest.mark.parametrize("kind", LAST)
@pytest.mark.parametrize("word", ["full", "fp8"])
@pytest.mark.parametrize(("before", "chunk"), [(0, 1), (0, 3), (0, 390), (133, 130), (260, 137)])
@torch.no_grad()
def test_states_and_caches_are_those_of_all(kind: str, word: str, before: int, chunk: int) -> None:
    model = ending_with(kind, word)
    past, ids = IDS[None, :before], IDS[None, before : before + chunk]
    whole = model.new_caches()
    if before:
        model.hidden(past, caches=whole)
    expected = None
    for newest in (chunk, 129, 5, 1):
        caches = [cache.fork() for cache in whole]
        states = model.hidden(ids, start=before, caches=caches, newest=newest)
        tensors = layer_tensors(caches)
        if expected is None:
            expected, of_all = states, tensors
        wanted = expected[:, -newest:]
        assert states.shape == wanted.shape
        assert relative_difference(states, wanted) < TOLERANCE
        for name, tensor in tensors.items():
            assert torch.equal(tensor, of_all[name]), name


@pytest.mark.parametrize("kind", LAST)
@pytest.mark.parametrize("chunk_size", [50, 128, 1000])
def test_what_follows_a_prompt_read_in_chunks(kind: str, chunk_size: int) -> None:
    model = ending_with(kind)
    session = DeepseekV4Session(model, chunk_size)
    session.read(IDS[:390].numpy())
    rest = session.score(IDS[390:].numpy())
    assert relative_difference(rest, full_logits(model, IDS)[390:]) < TOLERANCE
