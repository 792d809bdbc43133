"""transformers' DeepSeek-V4 as the oracle: small configurations, weights far from trivial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")

from transformers import DeepseekV4Config as HFConfig
from transformers import DeepseekV4ForCausalLM

from models.deepseek_v4.config import CSA, HCA, SLIDING, DeepseekV4Config
from tests.models.small import randomize

SPEC = DeepseekV4Config(
    vocab_size=97,
    hidden_size=64,
    layer_types=(SLIDING, CSA, HCA, CSA),
    num_attention_heads=4,
    head_dim=32,
    qk_rope_head_dim=8,
    q_lora_rank=24,
    o_groups=2,
    o_lora_rank=16,
    n_routed_experts=6,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    routed_scaling_factor=1.5,
    index_n_heads=16,
    index_head_dim=16,
    index_topk=8,
    sliding_window=16,
    hca_ratio=16,
    num_hash_layers=1,
    yarn_original_positions=256,
    max_position_embeddings=4096,
)
"""The specification's worked small configuration."""


def hugging_face_config(config: DeepseekV4Config) -> HFConfig:
    """The same model in transformers' words."""
    hashed = config.num_hash_layers
    mlp = ["hash_moe" if i < hashed else "moe" for i in range(config.num_hidden_layers)]
    values: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "moe_intermediate_size": config.moe_intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": 1,
        "head_dim": config.head_dim,
        "qk_rope_head_dim": config.qk_rope_head_dim,
        "q_lora_rank": config.q_lora_rank,
        "num_experts_per_tok": config.num_experts_per_tok,
        "n_routed_experts": config.n_routed_experts,
        "n_shared_experts": 1,
        "scoring_func": "sqrtsoftplus",
        "routed_scaling_factor": config.routed_scaling_factor,
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope_theta,
        "compress_rope_theta": config.compress_rope_theta,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": config.yarn_factor,
            "beta_fast": config.yarn_beta_fast,
            "beta_slow": config.yarn_beta_slow,
            "original_max_position_embeddings": config.yarn_original_positions,
        },
        "layer_types": list(config.layer_types),
        "compress_rates": {CSA: config.csa_ratio, HCA: config.hca_ratio},
        "mlp_layer_types": mlp,
        "hc_mult": config.hc_mult,
        "hc_sinkhorn_iters": config.hc_sinkhorn_iters,
        "sliding_window": config.sliding_window,
        "o_groups": config.o_groups,
        "o_lora_rank": config.o_lora_rank,
        "index_n_heads": config.index_n_heads,
        "index_head_dim": config.index_head_dim,
        "index_topk": config.index_topk,
        "swiglu_limit": config.swiglu_limit,
        "attn_implementation": "eager",
    }
    return HFConfig(**values)


def oracle(config: DeepseekV4Config, seed: int) -> DeepseekV4ForCausalLM:
    """transformers' model with every weight random."""
    model = DeepseekV4ForCausalLM(hugging_face_config(config)).float().eval()
    randomize(model, config, seed)
    return model


def drawn_config(seed: int) -> DeepseekV4Config:
    """A configuration that differs from SPEC in nearly everything that decides shapes or reach."""
    rng = np.random.default_rng(seed)

    def one_of(*choices: int) -> int:
        return int(rng.choice(choices))

    num_layers = one_of(3, 4, 5)
    middle = rng.permutation([CSA, HCA, *rng.choice([SLIDING, CSA, HCA], num_layers - 2)])
    groups = one_of(1, 2, 4)
    return replace(
        SPEC,
        hidden_size=one_of(32, 48, 96),
        layer_types=tuple(str(kind) for kind in middle),
        num_attention_heads=groups * one_of(1, 2, 3),
        head_dim=one_of(16, 24, 40),
        qk_rope_head_dim=one_of(4, 8, 16),
        q_lora_rank=one_of(12, 20, 36),
        o_groups=groups,
        o_lora_rank=one_of(6, 10, 24),
        n_routed_experts=one_of(4, 7),
        num_experts_per_tok=one_of(1, 2, 3),
        moe_intermediate_size=one_of(16, 40),
        index_n_heads=one_of(16, 24),
        index_head_dim=one_of(16, 32),
        index_topk=one_of(1, 5, 20, 200),
        sliding_window=one_of(5, 32, 128),
        csa_ratio=one_of(2, 4, 8),
        hca_ratio=one_of(12, 32, 128),
        num_hash_layers=one_of(0, 1, num_layers),
        hc_mult=one_of(2, 3, 4),
        hc_sinkhorn_iters=one_of(1, 7, 20),
        yarn_factor=float(one_of(4, 16)),
        yarn_original_positions=one_of(64, 256, 1024),
        swiglu_limit=float(one_of(1, 10)),
    )
