"""Initial weights: what is attended to is written back in the directions it was read from."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from models.deepseek_v4 import weights
from models.deepseek_v4.config import DeepseekV4Config
from models.deepseek_v4.model import DeepseekV4
from models.registry import RANDOM

WIDE = replace(RANDOM, head_dim=128, qk_rope_head_dim=16, o_lora_rank=32)


def copied(config: DeepseekV4Config) -> tuple[float, float]:
    """How alike a layer's output is to the token attended to, and its share of that length."""
    model = DeepseekV4(config)
    weights.initialize(model, seed=1)
    attention = model.model.layers[0].self_attn
    x = torch.randn(50, config.hidden_size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        kv = attention.kv_norm(attention.kv_proj(x))
        out = attention.o_b_proj(attention.o_a_proj(kv.repeat(1, 2)[None]))[0]
    return (
        float(F.cosine_similarity(out, x).mean()),
        float((out.norm(dim=-1) / x.norm(dim=-1)).mean()),
    )


def test_heads_wider_than_the_model_copy_whole() -> None:
    alike, length = copied(WIDE)
    assert alike > 0.999
    assert length == pytest.approx(weights.COPY_GAIN, abs=0.03)


def test_narrow_heads_copy_what_they_hold() -> None:
    alike, _ = copied(RANDOM)
    assert 0.5 < alike < 0.9
