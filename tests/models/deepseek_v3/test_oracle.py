"""Layers of MLA and DSA against transformers' DeepSeek-V3 and V3.2, with every weight random.

Layer by layer: the trunk around them is DeepSeek-V4's. transformers has no FP8 and no Hadamard
rotation either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers.models.deepseek_v32", reason="an older transformers")

from transformers.models.deepseek_v3 import configuration_deepseek_v3, modeling_deepseek_v3
from transformers.models.deepseek_v32 import configuration_deepseek_v32, modeling_deepseek_v32

from models.deepseek_v3.latent import LatentAttention
from models.deepseek_v3.sparse import IndexedAttention
from models.deepseek_v4.attention import Step
from models.deepseek_v4.config import DSA, MLA, DeepseekV4Config, LatentShape
from models.layers import Rotation, rope_frequencies, yarn_frequencies
from tests.models.small import LATENT, randomize, relative_difference

TOLERANCE = 2e-6
NUM_TOKENS = 150
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 40.0, "beta_fast": 32.0}
YARN |= {"beta_slow": 1.0, "mscale": 1.0, "original_max_position_embeddings": 64}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}


def drawn_config(seed: int) -> DeepseekV4Config:
    """Everything that decides shapes or reach; values wider and narrower than keys."""
    rng = np.random.default_rng(seed)

    def one_of(*choices: int) -> int:
        return int(rng.choice(choices))

    return replace(
        LATENT,
        layer_types=(MLA, DSA),
        hidden_size=one_of(32, 48),
        num_attention_heads=one_of(1, 2, 4),
        o_groups=1,
        q_lora_rank=one_of(12, 20),
        qk_rope_head_dim=one_of(4, 8, 16),
        index_n_heads=one_of(16, 24),
        index_head_dim=one_of(16, 32),
        index_topk=one_of(3, 20, 200),
        latent=LatentShape(one_of(10, 24), one_of(8, 16), one_of(6, 16, 40), one_of(0, 1)),
        yarn_factor=40.0,
    )


def shared_fields(config: DeepseekV4Config, rope: dict[str, Any]) -> dict[str, Any]:
    shape = config.latent
    assert shape is not None
    return {
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_attention_heads,
        "q_lora_rank": config.q_lora_rank,
        "kv_lora_rank": shape.kv_lora_rank,
        "qk_nope_head_dim": shape.qk_nope_head_dim,
        "qk_rope_head_dim": config.qk_rope_head_dim,
        "v_head_dim": shape.v_head_dim,
        "rope_parameters": rope,
        "max_position_embeddings": 2560,
        "attn_implementation": "eager",
    }


class Case:
    """One drawn configuration, with YaRN and V3.2's scale where it has one."""

    def __init__(self, seed: int) -> None:
        self.config = drawn_config(seed)
        shape = self.config.latent
        assert shape is not None
        self.rope = {**YARN, "mscale_all_dim": 1.0} if shape.mscale_all_dim else PLAIN
        rotary = self.config.qk_rope_head_dim
        self.frequencies = rope_frequencies(rotary, 1e4)
        if shape.mscale_all_dim:
            self.frequencies = yarn_frequencies(rotary, 1e4, 40.0, 64, 32.0, 1.0)
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(2, NUM_TOKENS, self.config.hidden_size, generator=generator)

    def step(self, start: int, stop: int) -> Step:
        indices = torch.arange(start, stop)
        rotation = Rotation(indices, self.frequencies)
        start = int(indices[0])
        return Step(indices, indices, rotation, rotation, self.frequencies, start=start)


@torch.no_grad()
def theirs(case: Case, attention: nn.Module, rotary: nn.Module) -> Tensor:
    """transformers' output for the whole sequence, no cache."""
    positions = torch.arange(NUM_TOKENS)[None]
    mask = torch.full((NUM_TOKENS, NUM_TOKENS), torch.finfo(torch.float32).min).triu(1)
    output: Tensor = attention(
        hidden_states=case.x,
        position_embeddings=rotary(case.x, positions),
        attention_mask=mask.expand(len(case.x), 1, -1, -1),
        position_ids=positions,
    )[0]
    return output


@torch.no_grad()
def in_pieces(case: Case, ours: LatentAttention | IndexedAttention, sizes: list[int]) -> Tensor:
    """Our output of the first sequence through a cache."""
    cache: Any = ours.new_cache()
    outputs, start = [], 0
    for size in sizes:
        stop = min(start + size, NUM_TOKENS)
        outputs.append(ours(case.x[:1, start:stop], case.step(start, stop), cache))
        start = stop
    return torch.cat(outputs, dim=1)


PIECES = [NUM_TOKENS], [100, *[1] * 50], [7, 60, 1, 82]


@pytest.mark.parametrize("seed", range(8))
def test_mla_equals_transformers(seed: int) -> None:
    case = Case(seed)
    config = configuration_deepseek_v3.DeepseekV3Config(**shared_fields(case.config, case.rope))
    reference = modeling_deepseek_v3.DeepseekV3Attention(config, 0)
    randomize(reference, case.config, seed)
    ours = LatentAttention(case.config)
    ours.load_state_dict(reference.state_dict())
    rotary = modeling_deepseek_v3.DeepseekV3RotaryEmbedding(config)
    expected = theirs(case, reference, rotary)
    with torch.no_grad():
        found = ours(case.x, case.step(0, NUM_TOKENS), None)
    assert relative_difference(found, expected) <= TOLERANCE
    for sizes in PIECES:
        assert relative_difference(in_pieces(case, ours, sizes), expected[:1]) <= TOLERANCE


@pytest.mark.parametrize("seed", range(8))
def test_dsa_equals_transformers(seed: int) -> None:
    case = Case(seed)
    fields = shared_fields(case.config, case.rope) | {
        "index_n_heads": case.config.index_n_heads,
        "index_head_dim": case.config.index_head_dim,
        "index_topk": case.config.index_topk,
    }
    config = configuration_deepseek_v32.DeepseekV32Config(**fields)
    reference = modeling_deepseek_v32.DeepseekV32Attention(config, 0)
    randomize(reference, case.config, seed)
    ours = IndexedAttention(case.config)
    ours.load_state_dict(reference.state_dict())
    rotary = modeling_deepseek_v32.DeepseekV32RotaryEmbedding(config)
    expected = theirs(case, reference, rotary)
    with torch.no_grad():
        found = ours(case.x, case.step(0, NUM_TOKENS), None)
    assert relative_difference(found, expected) <= TOLERANCE
    for sizes in PIECES:
        assert relative_difference(in_pieces(case, ours, sizes), expected[:1]) <= TOLERANCE


def test_drawn_configurations_cover_what_they_should() -> None:
    drawn = [drawn_config(seed) for seed in range(8)]
    assert {c.index_topk for c in drawn} >= {3, 20}
    shapes = [c.latent for c in drawn if c.latent is not None]
    assert {s.mscale_all_dim for s in shapes} == {0, 1}
    keys = [s.qk_nope_head_dim + c.qk_rope_head_dim for s, c in zip(shapes, drawn, strict=True)]
    assert {s.v_head_dim > key for s, key in zip(shapes, keys, strict=True)} == {True, False}
