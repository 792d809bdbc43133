"""The costs of DeepSeek-V4 (arXiv 2606.19348) and of its twins, from a configuration.

The twins are the uncompressed one and those with latent attention. `published` counts what
DeepSeek's inference code keeps, `session` what a session of this repository keeps.
"""

from __future__ import annotations

from models.costs.architecture import ActiveParameters, Architecture, Rows, Shape, State
from models.costs.layouts import LAYOUTS, Layout, plain
from models.costs.memory import held
from models.deepseek_v4.config import (
    CSA,
    DSA,
    FULL,
    HCA,
    LATENT_TYPES,
    MLA,
    SLIDING,
    DeepseekV4Config,
)

FP32 = 4


def published(config: DeepseekV4Config) -> Architecture:
    """A window of `sliding_window` rows, and the compressors' buffers of constant size in fp32."""
    c, count = config, config.layer_types.count
    # Values and gates: two windows of CSA's doubled channels, one window of HCA's.
    csa = 2 * 2 * c.csa_ratio * 2 * (c.head_dim + c.index_head_dim)
    hca = 2 * c.hca_ratio * c.head_dim
    tails = (
        State("tail", count(CSA), csa, element_bytes=FP32),
        State("tail", count(HCA), hca, element_bytes=FP32),
    )
    return Architecture(
        rows=_rows(c, c.sliding_window),
        states=(*(state for state in tails if state.layers), *_engram_states(c)),
        active=active_parameters(c),
        layout="v4",
        has_precisions=True,
        max_position=c.max_position_embeddings,
    )


def session(config: DeepseekV4Config) -> Architecture:
    """A window without the query itself, and pending tokens alone, in fp32 whatever the type.

    Storage in tables that grow is up to 1/32 larger.
    """
    c, count = config, config.layer_types.count
    # A pending token keeps a value and a gate of both halves; the overlap one half of m tokens.
    both = c.head_dim + c.index_head_dim
    csa = State(
        "tail", count(CSA), 2 * c.csa_ratio * both, 4 * both, c.csa_ratio, element_bytes=FP32
    )
    hca = State("tail", count(HCA), 0, 2 * c.head_dim, c.hca_ratio, element_bytes=FP32)
    return Architecture(
        rows=_rows(c, c.sliding_window - 1),
        states=(*(state for state in (csa, hca) if state.layers), *_engram_states(c)),
        active=active_parameters(c),
        layout="fp32",
        max_position=c.max_position_embeddings,
    )


STORED = {"published": "v4"}
"""Layouts of the option `cache` of models of this repository that have another name there."""


def held_bytes(
    config: DeepseekV4Config, length: int, element_bytes: int = 4, cache: str = "full"
) -> dict[str, int]:
    """What a session of this repository holds after `length` tokens, by kind.

    Args:
        element_bytes: of a number of the model's type.
        cache: the session's option `cache`.
    """
    none = {"window": 0, "csa": 0, "index": 0, "hca": 0, "tail": 0, "full": 0}
    layout = Layout("as the model's type", plain(element_bytes), element_bytes)
    if cache != "full":
        layout = LAYOUTS[STORED.get(cache, cache)]
    return none | held(session(config), length, layout)


def active_parameters(config: DeepseekV4Config) -> ActiveParameters:
    """Matrices only: norms, biases, sinks and the embedding's lookup multiply nothing.

    fp8: attention projections, the indexer's queries, the shared expert; fp4: routed experts;
    bf16: compressors, the indexer's head weights, router, hyper-connections, Engram.
    """
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
    latents, dsa = sum(map(c.layer_types.count, LATENT_TYPES)), c.layer_types.count(DSA)
    engram = c.engram.width * (c.hc_mult + 1) * d * len(c.engram.layers) if c.engram else 0
    return ActiveParameters(
        fp8=(layers - latents) * attention
        + latents * _latent_projections(c)
        + layers * c.n_shared_experts * expert
        + csa * index_queries
        + dsa * (index_queries + d * c.index_head_dim),
        fp4=layers * c.num_experts_per_tok * expert,
        bf16=csa * csa_memory
        + engram
        + dsa * d * c.index_n_heads
        + hca * 2 * d * c.head_dim
        + layers * (c.n_routed_experts * d + 2 * connection)
        + c.hc_mult * c.hc_mult * d,
        head=c.vocab_size * d,
    )


def _engram_states(config: DeepseekV4Config) -> tuple[State, ...]:
    """The newest ids in 8 bytes each, and what a convolution of 4 taps reaches back for."""
    shape = config.engram
    if shape is None:
        return ()
    modules = len(shape.layers)
    ids = State("engram", modules, shape.max_order - 1, element_bytes=8)
    reach = 3 * shape.max_order * config.hc_mult * config.hidden_size
    return (ids, State("engram", modules, reach, element_bytes=FP32))[: 1 + shape.convolution]


def _latent_projections(config: DeepseekV4Config) -> int:
    """Weights of one layer's latent attention, the indexer's left out."""
    c, shape = config, config.latent
    if shape is None:
        return 0
    d, heads, rotary = c.hidden_size, c.num_attention_heads, c.qk_rope_head_dim
    nope, value, rank = shape.qk_nope_head_dim, shape.v_head_dim, shape.kv_lora_rank
    queries = c.q_lora_rank * (d + heads * (nope + rotary))
    return queries + d * (rank + rotary) + heads * (rank * (nope + value) + value * d)


def _latent_rows(config: DeepseekV4Config) -> tuple[Rows, ...]:
    """As `config_files` counts DeepSeek-V3 and V3.2: MLA expands its rows in prefill."""
    c, shape = config, config.latent
    if shape is None:
        return ()
    rotary, rank, heads = c.qk_rope_head_dim, shape.kv_lora_rank, c.num_attention_heads
    row = Shape("latent", rank, rotary)
    absorbed = 2 * heads * (2 * rank + rotary)
    expanded = 2 * heads * (shape.qk_nope_head_dim + rotary + shape.v_head_dim)
    mla, dsa = c.layer_types.count(MLA), c.layer_types.count(DSA)
    index, score = Shape("index", c.index_head_dim), 2 * c.index_n_heads * c.index_head_dim
    return (
        Rows("full", "full", mla, row, absorbed, prefill_flops=expanded),
        Rows("full", "full", dsa, row, absorbed, reads=c.index_topk),
        Rows("index", "indexer", dsa, index, score, precision="fp8"),
    )


def _rows(config: DeepseekV4Config, newest: int) -> tuple[Rows, ...]:
    c, count = config, config.layer_types.count
    entry = Shape("latent", c.head_dim - c.qk_rope_head_dim, c.qk_rope_head_dim)
    core = 4 * c.num_attention_heads * c.head_dim
    score = 2 * c.index_n_heads * c.index_head_dim

    def near(part: str, kind: str) -> Rows:
        return Rows("window", part, count(kind), entry, core, newest=newest, seen=c.sliding_window)

    tables = (
        near("sliding", SLIDING),
        near("csa", CSA),
        near("hca", HCA),
        Rows("csa", "csa", count(CSA), entry, core, per=c.csa_ratio, reads=c.index_topk),
        Rows(
            "index",
            "indexer",
            count(CSA),
            Shape("index", c.index_head_dim),
            score,
            per=c.csa_ratio,
            precision="fp4_index",
        ),
        Rows("hca", "hca", count(HCA), entry, core, per=c.hca_ratio),
        Rows("full", "full", count(FULL), entry, core),
        *_latent_rows(c),
    )
    return tuple(rows for rows in tables if rows.layers)
