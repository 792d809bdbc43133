"""Small models with DeepSeek-V4's real proportions, and runs of them in pieces.

Needs no transformers; weights are far from trivial, so that a lost term shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.deepseek_v3.model import LatentTwin
from models.deepseek_v4.config import (
    CSA,
    DSA,
    HCA,
    MLA,
    SLIDING,
    DeepseekV4Config,
    EngramShape,
    LatentShape,
)
from models.deepseek_v4.dense import DenseTwin
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session

REAL = DeepseekV4Config(
    vocab_size=97,
    hidden_size=32,
    layer_types=(SLIDING, CSA, HCA, CSA),
    num_attention_heads=2,
    head_dim=16,
    qk_rope_head_dim=8,
    q_lora_rank=16,
    o_groups=2,
    o_lora_rank=8,
    n_routed_experts=2,
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    routed_scaling_factor=1.5,
    index_n_heads=16,
    index_head_dim=16,
    index_topk=512,
    num_hash_layers=1,
    hc_sinkhorn_iters=5,
    yarn_original_positions=256,
    max_position_embeddings=16384,
)
"""Window 128, m 4, m' 128; every entry is selected.

Every expert is visited: in comparisons of two ways to compute the same thing, rounding must
decide nothing, and a near tie of two experts' scores is common among 400 tokens.
"""

GATHERED = replace(REAL, index_topk=3)
"""So few are selected that rows are gathered from 25 entries (100 tokens) on."""

LATENTS = LatentShape(kv_lora_rank=24, qk_nope_head_dim=16, v_head_dim=12)
LATENT = replace(REAL, layer_types=(SLIDING, MLA, SLIDING, DSA), index_topk=3, latent=LATENTS)
"""Selects 3 tokens. All widths differ; more than 33 queries are expanded (`few_queries`).

One layer selects, and it is the last: two ways to compute the same thing may differ in the rank of
near ties, which are common among 400 tokens.
"""

ENGRAM = replace(
    LATENT, engram=EngramShape(layers=(1, 2), heads=2, head_dim=6, rows=50, convolution=True)
)

BUILDS = {
    "all entries": lambda: randomized(DeepseekV4(REAL), seed=2),
    "top 3": lambda: randomized(DeepseekV4(GATHERED), seed=2),
    "uncompressed": lambda: randomized(DenseTwin(REAL), seed=2),
    "latent": lambda: randomized(LatentTwin(ENGRAM), seed=2),
}


@torch.no_grad()
def randomize(model: nn.Module, config: DeepseekV4Config, seed: int) -> None:
    """Set every weight at random, those included that start at 0 or 1; any model of these names."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        numbers = tensor.is_floating_point() or name.endswith("tid2eid")
        if "freq" in name or not numbers:  # rotary tables and hashes are buffers
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


def randomized(model: DeepseekV4, seed: int) -> DeepseekV4:
    randomize(model, model.config, seed)
    return model.eval()


def random_ids(count: int, seed: int = 0, vocab_size: int = REAL.vocab_size) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (count,), generator=generator)


def session_of(model: DeepseekV4) -> DeepseekV4Session:
    """One that never splits a call by itself."""
    return DeepseekV4Session(model, chunk_size=1 << 20)


def score_in_pieces(model: DeepseekV4, ids: Tensor, sizes: Iterable[int]) -> Tensor:
    """Logits [S, V] of a session fed pieces of the given sizes, the rest as one."""
    session = session_of(model)
    logits = []
    for size in sizes:
        logits.append(session.score(ids[session.position : session.position + size].numpy()))
        if session.position == len(ids):
            break
    if session.position < len(ids):
        logits.append(session.score(ids[session.position :].numpy()))
    return torch.cat(logits)


@torch.no_grad()
def full_logits(model: DeepseekV4, ids: Tensor) -> Tensor:
    """Logits [S, V] without a cache."""
    logits: Tensor = model(ids[None])[0]
    return logits


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference over b's largest value."""
    return float((a - b).abs().max() / b.abs().max())
