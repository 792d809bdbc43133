"""transformers' DeepSeek-V4 as the oracle: small configurations, weights far from trivial."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DeepseekV4Config as HFConfig
from transformers import DeepseekV4ForCausalLM

from models.deepseek_v4.config import CSA, HCA, SLIDING, DeepseekV4Config

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
    values: dict[str, Any] = dict(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        moe_intermediate_size=config.moe_intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=1,
        head_dim=config.head_dim,
        qk_rope_head_dim=config.qk_rope_head_dim,
        q_lora_rank=config.q_lora_rank,
        num_experts_per_tok=config.num_experts_per_tok,
        n_routed_experts=config.n_routed_experts,
        n_shared_experts=1,
        scoring_func="sqrtsoftplus",
        routed_scaling_factor=config.routed_scaling_factor,
        max_position_embeddings=config.max_position_embeddings,
        rope_theta=config.rope_theta,
        compress_rope_theta=config.compress_rope_theta,
        rope_parameters=dict(
            rope_type="yarn",
            factor=config.yarn_factor,
            beta_fast=config.yarn_beta_fast,
            beta_slow=config.yarn_beta_slow,
            original_max_position_embeddings=config.yarn_original_positions,
        ),
        layer_types=list(config.layer_types),
        compress_rates={CSA: config.csa_ratio, HCA: config.hca_ratio},
        mlp_layer_types=mlp,
        hc_mult=config.hc_mult,
        hc_sinkhorn_iters=config.hc_sinkhorn_iters,
        sliding_window=config.sliding_window,
        o_groups=config.o_groups,
        o_lora_rank=config.o_lora_rank,
        index_n_heads=config.index_n_heads,
        index_head_dim=config.index_head_dim,
        index_topk=config.index_topk,
        swiglu_limit=config.swiglu_limit,
        attn_implementation="eager",
    )
    return HFConfig(**values)


def oracle(config: DeepseekV4Config, seed: int) -> DeepseekV4ForCausalLM:
    """transformers' model with every weight random, those included that default to 0 or 1."""
    torch.manual_seed(seed)
    model = DeepseekV4ForCausalLM(hugging_face_config(config)).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if "inv_freq" in name:
                continue
            if name.endswith("tid2eid"):
                order = torch.rand(config.vocab_size, config.n_routed_experts, generator=generator)
                tensor.copy_(order.argsort(-1)[:, : config.num_experts_per_tok])
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in name:
                tensor.copy_(1 + 0.3 * noise)
            elif tensor.ndim >= 2 and "position_bias" not in name:
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)
            else:
                tensor.copy_(0.5 * noise)
    return model
