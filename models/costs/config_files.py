"""Architectures from a `config.json` of transformers, read as JSON.

A family is known by its `model_type`. An unknown one is refused, and so is a missing field;
a field is derived only where transformers derives it from other fields. A test compares each
family with the cache and the matrices of transformers' own model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.costs import deepseek_v4
from models.costs.architecture import ActiveParameters, Architecture, Rows, Shape, State
from models.costs.config_fields import Fields, read_fields
from models.costs.config_parts import (
    FULL,
    Mixer,
    all_but_each,
    all_experts,
    all_full,
    all_in_window,
    bamba_layers,
    deepseek_experts,
    deepseek_feed,
    delta_net,
    derived_head_dim,
    divided_head_dim,
    each_head,
    from_layer,
    gated,
    gemma3_layers,
    given_head_dim,
    head_weights,
    in_layers,
    jamba_experts,
    jamba_layers,
    layer_count,
    lfm2_experts,
    lfm2_feed,
    linear_but_each,
    listed_convolutions,
    listed_or,
    listed_unless_windows,
    mamba,
    mamba2,
    max_position_of,
    qwen_experts,
    qwen_shared_experts,
    shared_or_each,
    short_convolution,
    two_matrices,
    unquantised,
)
from models.deepseek_v4.config import CSA, HCA, SLIDING, ConfigError, DeepseekV4Config


def read_architecture(path: Path) -> Architecture:
    """The architecture that a `config.json` describes; of a multimodal model its text part.

    Raises:
        ModelError: the file cannot be read, the family is unknown, or a field is missing or odd.
    """
    fields = read_fields(path)
    if isinstance(fields.values.get("text_config"), dict):
        fields = Fields(fields.values["text_config"], f"{path}: text_config")
    if "model_type" not in fields.values and "o_groups" in fields.values:
        try:
            return deepseek_v4.session(DeepseekV4Config.from_dict(fields.values))
        except ConfigError as error:
            raise fields.error(str(error)) from None
    family = fields.text("model_type")
    if family not in FAMILIES:
        raise fields.error(f"model_type: got {family!r}, expected one of {', '.join(FAMILIES)}")
    return FAMILIES[family](fields)


def attention(
    kinds: Callable[[Fields], list[str]],
    feed: Callable[[Fields], int],
    *,
    head_dim: Callable[[Fields], int] | None = None,
    kv_heads: Callable[[Fields], int] | None = None,
    mixer: Callable[[Fields], Mixer] | None = None,
    gated_queries: bool = False,
) -> Callable[[Fields], Architecture]:
    """A family whose layers keep keys and values, of all tokens or of a window, or a state.

    Args:
        kinds: each layer's kind.
        feed: multiplications of a token in the feed-forward parts of all layers.
        head_dim: channels of a head; by default the field, else hidden_size / heads.
        kv_heads: heads that have keys and values; by default the field.
        mixer: what layers of the kinds LINEAR and CONVOLUTION are.
        gated_queries: the output has a gate as wide as the queries.
    """

    def build(f: Fields) -> Architecture:
        layers = kinds(f)
        d, heads = f.count("hidden_size"), f.count("num_attention_heads")
        pairs = kv_heads(f) if kv_heads else f.count("num_key_value_heads")
        dim = head_dim(f) if head_dim else derived_head_dim(f)
        shape, core = Shape("key_value", 2 * dim, heads=pairs), 4 * heads * dim
        rows: list[Rows] = []
        full, sliding = layers.count(FULL), layers.count(SLIDING)
        if full:
            rows.append(Rows("full", "full", full, shape, core))
        if sliding:
            newest = f.count("sliding_window")
            rows.append(Rows("window", "sliding", sliding, shape, core, newest=newest))
        projections = d * dim * (heads * (2 + gated_queries) + 2 * pairs)
        weights = feed(f) + (full + sliding) * projections
        states: tuple[State, ...] = ()
        others = len(layers) - full - sliding
        if others:
            assert mixer is not None
            mixed = mixer(f)
            weights += others * mixed.weights
            states = tuple(in_layers(state, others) for state in mixed.states)
        return Architecture(
            tuple(rows), states, unquantised(f, weights), max_position=max_position_of(f)
        )

    return build


def latent(f: Fields) -> Architecture:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): prefill expands the latents,
    decoding absorbs the expansion into queries and outputs."""
    return _latent(f, indexer_layers=0)


def indexed_latent(f: Fields) -> Architecture:
    """Sparse attention over tokens that a lightning indexer selects (DeepSeek-V3.2), absorbed in
    prefill and decoding alike."""
    layers = f.count("num_hidden_layers")
    modes = f.per_layer("indexer_types", ("full", "shared"), layers)
    if modes is None and f.values.get("index_topk_pattern") is not None:
        raise f.error("index_topk_pattern: write indexer_types, a word for each layer")
    if modes is None and f.count_or("index_topk_freq", 1) != 1:
        raise f.error("index_topk_freq: write indexer_types, a word for each layer")
    return _latent(f, layers if modes is None else modes.count("full"))


def _latent(f: Fields, indexer_layers: int) -> Architecture:
    d, heads, layers = f.count("hidden_size"), f.count("num_attention_heads"), layer_count(f)
    rank, rotary = f.count("kv_lora_rank"), f.count("qk_rope_head_dim")
    nope, value = f.count("qk_nope_head_dim"), f.count("v_head_dim")
    query = f.count_or_null("q_lora_rank")
    wide = heads * (nope + rotary)
    projections = (d * query + query * wide if query else d * wide) + d * (rank + rotary)
    projections += rank * heads * (nope + value) + heads * value * d
    quantised, routers = deepseek_feed(f)
    quantised += layers * projections
    rows = [
        Rows(
            "full",
            "full",
            layers,
            Shape("latent", rank, rotary),
            flops=2 * heads * (2 * rank + rotary),
            prefill_flops=None if indexer_layers else 2 * heads * (nope + rotary + value),
            reads=f.count("index_topk") if indexer_layers else None,
        )
    ]
    if indexer_layers:
        index_heads, index_dim = f.count("index_n_heads"), f.count("index_head_dim")
        quantised += indexer_layers * (query * index_heads + d) * index_dim
        routers += indexer_layers * d * index_heads
        shape, score = Shape("index", index_dim), 2 * index_heads * index_dim
        rows.append(Rows("index", "indexer", indexer_layers, shape, score, precision="fp8"))
    active = ActiveParameters(fp8=quantised, bf16=routers, head=head_weights(f))
    return Architecture(
        tuple(rows),
        active=active,
        layout="v3.2" if indexer_layers else "bf16",
        max_position=max_position_of(f),
    )


def compressed(f: Fields) -> Architecture:
    """DeepSeek-V4, with transformers' names or with those of the released config.json."""
    layers = f.count("num_hidden_layers")
    kinds, csa_ratio, hca_ratio = _compression(f, layers)
    names = (
        "hidden_size num_attention_heads q_lora_rank o_groups o_lora_rank n_routed_experts "
        "moe_intermediate_size index_topk vocab_size head_dim sliding_window index_n_heads "
        "index_head_dim num_experts_per_tok n_shared_experts hc_mult max_position_embeddings"
    )
    try:
        counts: dict[str, Any] = {name: f.count(name) for name in names.split()}
        config = DeepseekV4Config(
            **counts,
            layer_types=tuple(kinds),
            csa_ratio=csa_ratio,
            hca_ratio=hca_ratio,
            qk_rope_head_dim=_rotary(f),
            routed_scaling_factor=1.0,  # no cost
        )
    except ConfigError as error:
        raise f.error(str(error)) from None
    return deepseek_v4.published(config)


def _compression(f: Fields, layers: int) -> tuple[list[str], int, int]:
    """Each layer's kind and the two ratios."""
    ratios = f.indices("compress_ratios")[:layers]
    if ratios:
        by_ratio = {0: SLIDING, 4: CSA, 128: HCA}
        if len(ratios) < layers or not set(ratios) <= set(by_ratio):
            raise f.error(f"compress_ratios: got {ratios}, expected {layers} of 0, 4 and 128")
        return [by_ratio[ratio] for ratio in ratios], 4, 128
    kinds = f.per_layer("layer_types", (SLIDING, CSA, HCA), layers)
    if kinds is None:
        raise f.error("field layer_types or compress_ratios is missing")
    rates = f.values.get("compress_rates")
    if not isinstance(rates, dict):
        raise f.error("field compress_rates is missing")
    inner = Fields(rates, f"{f.place}: compress_rates")
    return kinds, inner.count_or(CSA, 4), inner.count_or(HCA, 128)


def _rotary(f: Fields) -> int:
    factor = f.values.get("partial_rotary_factor")
    if f.values.get("qk_rope_head_dim") is None and isinstance(factor, float):
        return int(f.count("head_dim") * factor)
    return f.count("qk_rope_head_dim", "partial_rotary_factor")


FAMILIES: dict[str, Callable[[Fields], Architecture]] = {
    "llama": attention(all_full, gated, kv_heads=shared_or_each),
    "mistral": attention(all_in_window, gated),
    "ministral": attention(
        listed_or(lambda f, i: f.window("sliding_window") is not None),
        gated,
        head_dim=given_head_dim,
    ),
    "mixtral": attention(all_in_window, all_experts),
    "phi3": attention(all_in_window, gated, kv_heads=shared_or_each),
    "qwen2": attention(listed_or(from_layer), gated),
    "qwen3": attention(listed_or(from_layer), gated, head_dim=given_head_dim),
    "qwen3_moe": attention(all_full, qwen_experts, head_dim=derived_head_dim),
    "gemma": attention(all_full, gated, head_dim=given_head_dim),
    "gemma2": attention(listed_or(lambda f, i: i % 2 == 0), gated, head_dim=given_head_dim),
    "gemma3_text": attention(gemma3_layers, gated, head_dim=given_head_dim),
    "cohere2": attention(
        all_but_each("sliding_window_pattern", 4),
        gated,
        kv_heads=shared_or_each,
    ),
    "smollm3": attention(listed_unless_windows, gated),
    "olmo2": attention(all_full, gated, kv_heads=shared_or_each),
    "olmo3": attention(listed_or(lambda f, i: (i + 1) % 4 != 0), gated, kv_heads=shared_or_each),
    "granite": attention(all_full, gated, kv_heads=shared_or_each),
    "seed_oss": attention(all_full, gated, head_dim=given_head_dim),
    "starcoder2": attention(all_in_window, two_matrices),
    "gpt_neox": attention(all_full, two_matrices, head_dim=divided_head_dim, kv_heads=each_head),
    "gpt_oss": attention(listed_or(lambda f, i: i % 2 == 0), all_experts, head_dim=given_head_dim),
    "minimax_m2": attention(all_full, all_experts, head_dim=given_head_dim),
    "glm4": attention(all_full, gated, head_dim=given_head_dim),
    "glm4_moe": attention(all_full, deepseek_experts),
    "deepseek_v2": latent,
    "deepseek_v3": latent,
    "kimi_k2": latent,
    "glm4_moe_lite": latent,
    "deepseek_v32": indexed_latent,
    "glm_moe_dsa": indexed_latent,
    "deepseek_v4": compressed,
    "qwen3_next": attention(
        linear_but_each,
        qwen_shared_experts,
        head_dim=given_head_dim,
        mixer=delta_net,
        gated_queries=True,
    ),
    "qwen3_5_text": attention(
        linear_but_each, gated, head_dim=given_head_dim, mixer=delta_net, gated_queries=True
    ),
    "qwen3_5_moe_text": attention(
        linear_but_each,
        qwen_shared_experts,
        head_dim=given_head_dim,
        mixer=delta_net,
        gated_queries=True,
    ),
    "jamba": attention(jamba_layers, jamba_experts, mixer=mamba),
    "bamba": attention(bamba_layers, gated, mixer=mamba2),
    "lfm2": attention(listed_convolutions, lfm2_feed, mixer=short_convolution),
    "lfm2_moe": attention(listed_convolutions, lfm2_experts, mixer=short_convolution),
}
"""`model_type` -> how its fields are read."""
