"""What a token costs to compute, by formula and component, for any configuration.

Knows shapes alone. A multiplication and its addition count 2; `Weighting` says how much of an
FP8 operation each precision counts. PUBLISHED reproduces the ratios that DeepSeek printed; it
is RECONSTRUCTED from them, not documented by DeepSeek.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.deepseek_v4.config import CSA, FULL, HCA, SLIDING, DeepseekV4Config


class ActiveParameters(NamedTuple):
    """Weights that one token multiplies with, by the precision they are published in."""

    fp8: int  # attention projections, the indexer's queries, the shared expert
    fp4: int  # routed experts
    bf16: int  # compressors, the indexer's head weights, router, mHC
    head: int  # bf16 too; prefill needs it for the last token alone


class Weighting(NamedTuple):
    """What a multiplication counts, by precision."""

    fp8: float = 1.0
    fp4: float = 1.0
    bf16: float = 2.0
    fp4_index: float = 0.5


PUBLISHED = Weighting()
UNWEIGHTED = Weighting(1.0, 1.0, 1.0, 1.0)


class Flops(NamedTuple):
    """By component; a layer type's share is its attention's core, its window included."""

    weights: float = 0.0
    indexer: float = 0.0
    sliding: float = 0.0
    csa: float = 0.0
    hca: float = 0.0
    full: float = 0.0

    @property
    def total(self) -> float:
        return sum(self)


def active_parameters(config: DeepseekV4Config) -> ActiveParameters:
    """Matrices only: norms, biases, sinks and the embedding's lookup multiply nothing."""
    c = config
    d, heads = c.hidden_size, c.num_attention_heads * c.head_dim
    csa, hca = c.layer_types.count(CSA), c.layer_types.count(HCA)
    output = heads * c.o_lora_rank + c.o_groups * c.o_lora_rank * d
    attention = d * c.q_lora_rank + c.q_lora_rank * heads + d * c.head_dim + output
    expert = 3 * d * c.moe_intermediate_size
    index_queries = c.q_lora_rank * c.index_n_heads * c.index_head_dim
    csa_memory = d * (4 * c.head_dim + 4 * c.index_head_dim + c.index_n_heads)
    connection = (2 + c.hc_mult) * c.hc_mult * c.hc_mult * d
    layers = c.num_hidden_layers
    return ActiveParameters(
        fp8=layers * (attention + c.n_shared_experts * expert) + csa * index_queries,
        fp4=layers * c.num_experts_per_tok * expert,
        bf16=csa * csa_memory
        + hca * 2 * d * c.head_dim
        + layers * (c.n_routed_experts * d + 2 * connection)
        + c.hc_mult * c.hc_mult * d,
        head=c.vocab_size * d,
    )


def token_flops(config: DeepseekV4Config, length: int, weighting: Weighting = UNWEIGHTED) -> Flops:
    """FLOPs of one more token when the context, itself included, is `length` tokens."""
    active = active_parameters(config)
    weights = 2 * (
        weighting.fp8 * active.fp8
        + weighting.fp4 * active.fp4
        + weighting.bf16 * (active.bf16 + active.head)
    )
    return _attention_flops(config, np.array([length]), weighting)._replace(weights=weights)


def prefill_flops(config: DeepseekV4Config, length: int) -> Flops:
    """FLOPs of reading `length` tokens: each over its own past, the head for the last alone.

    What the mathematics needs; an implementation may compute masked products besides.
    """
    active = active_parameters(config)
    weights = 2 * (length * (active.fp8 + active.fp4 + active.bf16) + active.head)
    steps = np.arange(1, length + 1)
    return _attention_flops(config, steps, UNWEIGHTED)._replace(weights=float(weights))


def _attention_flops(
    config: DeepseekV4Config, lengths: NDArray[np.int64], weighting: Weighting
) -> Flops:
    """Everything but weights, summed over tokens at contexts of `lengths`."""
    csa, hca = lengths // config.csa_ratio, lengths // config.hca_ratio
    near = np.minimum(lengths, config.sliding_window)
    layers = config.layer_types.count
    per_key = weighting.bf16 * 4 * config.num_attention_heads * config.head_dim
    per_score = weighting.fp4_index * 2 * config.index_n_heads * config.index_head_dim
    selected = np.minimum(csa, config.index_topk)
    return Flops(
        indexer=per_score * layers(CSA) * float(csa.sum()),
        sliding=per_key * layers(SLIDING) * float(near.sum()),
        csa=per_key * layers(CSA) * float((selected + near).sum()),
        hca=per_key * layers(HCA) * float((hca + near).sum()),
        full=per_key * layers(FULL) * float(lengths.sum()),
    )
