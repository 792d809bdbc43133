"""What a prefill has to do, by component, and how fast this machine could do it.

A floor is the larger of operations over a rate and bytes over the streaming bandwidth, both
measured in the same run. The rate is the faster of torch's large matrix product and of the
indexer's kernel without its top-k, whichever does the work. Operations are those that the
mathematics needs (`models.costs.flops`); bytes are what has to come from or go to memory if a
chunk's activations stay in cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from models import kernels
from models.costs.deepseek_v4 import session as kept_by_session
from models.costs.flops import prefill_flops
from models.deepseek_v4.config import CSA, DSA, HCA, MLA, SLIDING, DeepseekV4Config
from tests.benchmarks.timers import now

FLOAT = 4  # bytes


class Work(NamedTuple):
    """Operations (a multiplication and its addition are 2) and bytes of one component."""

    flops: float
    num_bytes: float = 0.0


class Ceilings(NamedTuple):
    """What all threads reach together."""

    product: float  # operations a second, in a large matrix product
    scores: float  # of the indexer's kernel; 0 where kernels are not usable
    bandwidth: float  # bytes a second, read and written

    def seconds(self, work: Work) -> float:
        return max(work.flops / max(self.product, self.scores), work.num_bytes / self.bandwidth)


@torch.no_grad()
def measured_ceilings(repeats: int = 5) -> Ceilings:
    """With as many threads as torch uses now."""
    n = 2048
    a, b = torch.randn(n, n), torch.randn(n, n)
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    product = _fastest(lambda: torch.mm(a, b), repeats)
    copy = _fastest(lambda: target.copy_(source), repeats)
    return Ceilings(2 * n**3 / product, _scores_rate(repeats), 2 * FLOAT * source.numel() / copy)


def _scores_rate(repeats: int) -> float:
    """Operations a second of the indexer's kernel at nano widths, its top-k left out."""
    queries, heads, width, count = 1024, 4, 32, 4096
    q, keys = torch.randn(queries, heads, width).numpy(), torch.randn(count, width).numpy()
    if not kernels.usable(torch.empty(0)):
        return 0.0
    from models.kernels import topk
    from models.kernels.selection import Candidates
    from models.kernels.threads import run_shares

    weights, visible = q[..., 0].copy(), np.full(queries, count)
    found = Candidates.none((queries,), 1)
    found.least[:] = np.inf  # no score exceeds it
    split, whole = (q, weights, visible, *found), (keys, 0, 1)
    seconds = _fastest(lambda: run_shares(topk.scan_shares, 1, split, whole), repeats)
    return 2.0 * queries * heads * width * count / seconds


def _fastest(action: Callable[[], object], repeats: int) -> float:
    """Seconds of the least disturbed run; one more warms up."""
    seconds = []
    for _ in range(repeats + 1):
        start = now()
        action()
        seconds.append(now() - start)
    return min(seconds[1:])


def prefill_work(config: DeepseekV4Config, length: int) -> dict[str, Work]:
    """Components of reading `length` tokens. The top-k has no floor: it rides on the scores.

    Nobody reads what the last layer makes of a token that another follows, so of that layer only
    what the cache keeps is counted.
    """
    work, unread = _all_layers(config, length), _last_layer_unread(config, length)
    left = {
        name: Work(*(all_of - part for all_of, part in zip(each, unread[name], strict=True)))
        for name, each in work.items()
    }
    return {name: part for name, part in left.items() if part.flops > 0}


def _last_layer_unread(config: DeepseekV4Config, length: int) -> dict[str, Work]:
    """The last layer's queries, attention, outputs and experts."""
    c = config
    before = replace(c, layer_types=c.layer_types[:-1])
    all_of, fewer = _all_layers(c, length), _all_layers(before, length)
    parts = {
        name: Work(*(x - y for x, y in zip(each, fewer.get(name, Work(0)), strict=True)))
        for name, each in all_of.items()
    }
    heads = c.num_attention_heads
    query, value = c.head_dim, c.head_dim
    if c.latent is not None:
        query = c.latent.qk_nope_head_dim + c.qk_rope_head_dim
        value = c.latent.v_head_dim
    out = heads * value * c.hidden_size
    if c.layer_types[-1] not in (MLA, DSA):
        out = heads * value * c.o_lora_rank + c.o_groups * c.o_lora_rank * c.hidden_size
    index = 0
    if c.layer_types[-1] in (CSA, DSA):
        index = c.index_n_heads * (c.q_lora_rank * c.index_head_dim + c.hidden_size)
    experts = 3 * (c.num_experts_per_tok + 1) * c.moe_intermediate_size * c.hidden_size
    asking = c.q_lora_rank * (c.hidden_size + heads * query) + out + index + experts
    collapse = Work(length * c.hc_mult * c.hidden_size * 2 * (c.hc_mult + 2))  # its norm and gates
    return parts | {
        "weights": Work(2.0 * length * asking),
        "hyper-connections": Work(parts["hyper-connections"].flops - collapse.flops),
        "indexer": Work(parts["indexer"].flops) if "indexer" in parts else Work(0),
    }


def _all_layers(config: DeepseekV4Config, length: int) -> dict[str, Work]:
    """As `prefill_work`, with every token asking in every layer."""
    c = config
    layers = c.layer_types.count
    steps = np.arange(1, length + 1)
    near = float(np.minimum(steps, c.sliding_window).sum())
    picks = float(np.minimum(steps // c.csa_ratio, c.index_topk).sum())
    per_key = 4 * c.num_attention_heads * c.head_dim
    of_tokens = float(np.minimum(steps, c.index_topk).sum()) * layers(DSA)  # rows that DSA reads
    row, per_row = c.head_dim, 0
    if c.latent is not None:
        row = c.latent.kv_lora_rank + c.qk_rope_head_dim
        per_row = 2 * c.num_attention_heads * (row + c.latent.kv_lora_rank)
    index_rows = layers(CSA) * length / c.csa_ratio + layers(DSA) * length
    flops = prefill_flops(kept_by_session(c), length)
    connections = 2 * c.num_hidden_layers * length
    gates = 2 * c.hc_mult * c.hidden_size * (2 + c.hc_mult) * c.hc_mult
    windows = layers(SLIDING) + layers(CSA) + layers(HCA)
    work = {
        "weights": Work(flops.weights - connections * gates),
        "hyper-connections": Work(connections * (gates + _mixing(c))),
        "window": Work(per_key * windows * near),
        "indexer": Work(flops.indexer, FLOAT * c.index_head_dim * index_rows),
        "gathered": Work(
            per_key * layers(CSA) * picks + per_row * of_tokens,
            FLOAT * (layers(CSA) * c.head_dim * picks + row * of_tokens),
        ),
        "HCA": Work(flops.hca - per_key * layers(HCA) * near),
        "dense attention": Work(flops.full - per_row * of_tokens),
    }
    return {name: part for name, part in work.items() if part.flops > 0}


def _mixing(config: DeepseekV4Config) -> float:
    """Operations of one connection besides its gates: norm, Sinkhorn, collapse and spread."""
    k, d = config.hc_mult, config.hidden_size
    normalisations = 2 * config.hc_sinkhorn_iters - 1
    return 2 * k * d + normalisations * (2 * k * k + k) + 2 * k * d + 2 * (k + 1) * k * d
