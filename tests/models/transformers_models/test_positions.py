"""Lengths that configurations allow, and rotary tables that do not depend on the split."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="the adapter needs transformers: install the dev extra")

from transformers import (
    GPT2Config,
    LlamaConfig,
    MptConfig,
    Phi3Config,
    Phi3ForCausalLM,
    PhimoeConfig,
)

from models.errors import ModelError
from models.transformers_models.loading import in_memory
from models.transformers_models.positions import allowed_positions, claimed_positions
from models.transformers_models.session import HuggingFaceSession
from tests.models.architectures import DYNAMIC, LONGROPE, YARN
from tests.models.small import random_ids, relative_difference
from tests.models.transformers_models.tiny import tiny_llama

IDS = random_ids(60)
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}


def phi3(positions: int | None = None) -> HuggingFaceSession:
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=96,
        original_max_position_embeddings=24,
        rope_parameters=LONGROPE,
        initializer_range=0.3,
        pad_token_id=0,
    )
    return HuggingFaceSession(
        in_memory(Phi3ForCausalLM(config).eval(), positions=positions).network
    )


def llama(rope: dict[str, Any], positions: int | None = None) -> HuggingFaceSession:
    module = tiny_llama(max_position_embeddings=24, rope_parameters=rope)
    return HuggingFaceSession(in_memory(module, positions=positions).network)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(max_position_embeddings=24), 24),
        (LlamaConfig(max_position_embeddings=24, rope_parameters=DYNAMIC), 96),
        (LlamaConfig(max_position_embeddings=24, rope_parameters=YARN), 96),
        (LlamaConfig(max_position_embeddings=96, rope_parameters=YARN), 96),
        (LlamaConfig(max_position_embeddings=24, rope_parameters=LINEAR), 24),
        (Phi3Config(max_position_embeddings=96, original_max_position_embeddings=24), 96),
        (
            PhimoeConfig(
                max_position_embeddings=96,
                rope_parameters={**LONGROPE, "long_mscale": 1.2, "short_mscale": 1.1},
            ),
            24,
        ),
        (GPT2Config(n_positions=77), 77),
        (MptConfig(), None),
    ],
)
def test_what_a_configuration_claims(config: Any, expected: int | None) -> None:
    assert claimed_positions(config) == expected


@pytest.mark.parametrize("begin", [lambda: phi3(), lambda: llama(DYNAMIC)], ids=["long", "ntk"])
def test_frequencies_do_not_depend_on_the_split(begin: Any) -> None:
    """The switch at 24 tokens, where transformers changes them, lies within a piece."""
    whole = begin().score(IDS.numpy())
    session = begin()
    pieces = torch.cat([session.score(part.numpy()) for part in IDS.split([10, 20, 1, 29])])
    assert relative_difference(pieces, whole) < 1e-4


def test_a_short_limit_takes_the_short_factors() -> None:
    short, long = phi3(positions=24), phi3()
    ids = IDS[:20].numpy()
    expected = phi3(positions=20).score(ids)
    assert relative_difference(short.score(ids), expected) < 1e-6
    assert relative_difference(long.score(ids), expected) > 1e-2
    with pytest.raises(ValueError, match=r"^ids: 20 \+ 5 tokens exceed max_position 24$"):
        short.read([1] * 5)


def test_frequencies_of_the_longest_prompt_are_those_of_transformers() -> None:
    """A prompt of full length read at once is what transformers computes by itself."""
    module = tiny_llama(max_position_embeddings=24, rope_parameters=DYNAMIC)
    ids = random_ids(96)
    with torch.no_grad():
        expected = module(ids[None], use_cache=False).logits[0]
    session = HuggingFaceSession(in_memory(module).network)
    assert relative_difference(session.score(ids.numpy()), expected) < 1e-5


def test_the_option_reaches_as_far_as_the_scaling() -> None:
    linear = LlamaConfig(max_position_embeddings=24, rope_parameters=LINEAR)
    assert allowed_positions(linear, 96) == 96
    assert allowed_positions(linear, 10) == 10
    assert allowed_positions(linear, None) == 24
    with pytest.raises(ModelError, match=r"got 97, expected at most 96: the model's own scaling"):
        allowed_positions(linear, 97)
    with pytest.raises(ModelError, match=r"got 25, expected at most 24"):
        allowed_positions(LlamaConfig(max_position_embeddings=24), 25)
    for wrong in (0, True, "8K"):
        with pytest.raises(ModelError, match=r"expected a whole number from 1$"):
            allowed_positions(linear, wrong)
