"""Architectures from a `config.json` of transformers, read as JSON.

A family is known by its `model_type`. An unknown one is refused, and so is a missing field;
a field is derived only where transformers derives it from other fields. A test compares each
family with the cache and the matrices of transformers' own model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from models.costs import deepseek_v4
from models.costs.architecture import ActiveParameters, Architecture, Rows, Shape, State
from models.costs.config_fields import Fields, read_fields
from models.deepseek_v4.config import CSA, HCA, SLIDING, ConfigError, DeepseekV4Config

FULL = "full_attention"
LINEAR = "linear_attention"
CONVOLUTION = "conv"
RECURRENT = 4  # bytes of a channel of a recurrent state: fp32
STEP = 6  # FLOPs of a channel of a recurrent state a token: decay and add, correct, read


class Mixer(NamedTuple):
    """A layer that keeps a state in place of rows."""

    weights: int  # multiplications of a token in one layer
    states: tuple[State, ...]  # of one layer


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
            states = tuple(_in_layers(state, others) for state in mixed.states)
        return Architecture(
            tuple(rows), states, _unquantised(f, weights), max_position=_max_position(f)
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
    d, heads, layers = f.count("hidden_size"), f.count("num_attention_heads"), _layers(f)
    rank, rotary = f.count("kv_lora_rank"), f.count("qk_rope_head_dim")
    nope, value = f.count("qk_nope_head_dim"), f.count("v_head_dim")
    query = f.count_or_null("q_lora_rank")
    wide = heads * (nope + rotary)
    projections = (d * query + query * wide if query else d * wide) + d * (rank + rotary)
    projections += rank * heads * (nope + value) + heads * value * d
    quantised, routers = _feed_deepseek(f)
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
    active = ActiveParameters(fp8=quantised, bf16=routers, head=_head(f))
    return Architecture(
        tuple(rows),
        active=active,
        layout="v3.2" if indexer_layers else "bf16",
        max_position=_max_position(f),
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
        config = DeepseekV4Config(
            **{name: f.count(name) for name in names.split()},
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


# Kinds of layers


def all_full(f: Fields) -> list[str]:
    return [FULL] * _layers(f)


def all_in_window(f: Fields) -> list[str]:
    """Every layer has the window that `sliding_window` names, or none has (null)."""
    return [FULL if f.window("sliding_window") is None else SLIDING] * _layers(f)


def listed_or(rule: Callable[[Fields, int], bool]) -> Callable[[Fields], list[str]]:
    """`layer_types`; where the file is older than that field, layers for which `rule` holds see a
    window."""

    def kinds(f: Fields) -> list[str]:
        layers = _layers(f)
        listed = f.per_layer("layer_types", (FULL, SLIDING), layers)
        return listed or [SLIDING if rule(f, i) else FULL for i in range(layers)]

    return kinds


def all_but_each(name: str, default: int) -> Callable[[Fields], list[str]]:
    """Of `name` layers in turn, the last sees all tokens, the others a window."""
    return listed_or(lambda f, i: (i + 1) % f.count_or(name, default) != 0)


def gemma3_layers(f: Fields) -> list[str]:
    if f.flag("use_bidirectional_attention"):
        raise f.error("use_bidirectional_attention: got true: its windows are of another width")
    return all_but_each("sliding_window_pattern", 6)(f)


def listed_unless_windows(f: Fields) -> list[str]:
    """SmolLM3 sees everything, unless windows are switched on: then the file lists its layers."""
    if f.flag("use_sliding_window") and f.values.get("layer_types") is None:
        raise f.error("field layer_types is missing")
    return listed_or(lambda f, i: False)(f)


def from_layer(f: Fields, i: int) -> bool:
    """Qwen's windows, where they are switched on, begin at a layer."""
    return f.flag("use_sliding_window") and i >= f.count("max_window_layers", least=0)


def linear_but_each(f: Fields) -> list[str]:
    """Of `full_attention_interval` layers in turn, the last attends, the others keep a state."""
    layers = _layers(f)
    listed = f.per_layer("layer_types", (FULL, LINEAR), layers)
    if listed is not None:
        return listed
    every = f.count("full_attention_interval")
    return [LINEAR if (i + 1) % every else FULL for i in range(layers)]


def listed_convolutions(f: Fields) -> list[str]:
    """LFM2's layers, by `layer_types` or by the numbers of those that attend."""
    layers = _layers(f)
    listed = f.per_layer("layer_types", (FULL, CONVOLUTION), layers)
    if listed is not None:
        return listed
    if "full_attn_idxs" not in f.values:
        raise f.error("field layer_types or full_attn_idxs is missing")
    attending = f.indices("full_attn_idxs")
    return [FULL if i in attending else CONVOLUTION for i in range(layers)]


def jamba_layers(f: Fields) -> list[str]:
    period, offset = f.count("attn_layer_period"), f.count("attn_layer_offset", least=0)
    return [FULL if i % period == offset else LINEAR for i in range(_layers(f))]


def bamba_layers(f: Fields) -> list[str]:
    attending = f.indices("attn_layer_indices")
    return [FULL if i in attending else LINEAR for i in range(_layers(f))]


# Layers that keep a state


def delta_net(f: Fields) -> Mixer:
    """Gated DeltaNet (arXiv 2412.06464), as in Qwen3-Next."""
    d, kernel = f.count("hidden_size"), f.count("linear_conv_kernel_dim")
    heads = f.count("linear_num_value_heads")
    key_dim, value_dim = f.count("linear_key_head_dim"), f.count("linear_value_head_dim")
    keys, values = f.count("linear_num_key_heads") * key_dim, heads * value_dim
    convolved = 2 * keys + values
    weights = d * (convolved + values + 2 * heads) + convolved * kernel + values * d
    return Mixer(weights, _states(convolved * kernel, heads * key_dim * value_dim))


def mamba(f: Fields) -> Mixer:
    """Mamba (arXiv 2312.00752), as in Jamba."""
    d, kernel, states = f.count("hidden_size"), f.count("mamba_d_conv"), f.count("mamba_d_state")
    inner = f.count("mamba_expand") * d
    automatic = f.values.get("mamba_dt_rank") == "auto"
    rank = -(-d // 16) if automatic else f.count("mamba_dt_rank")
    weights = 3 * d * inner + inner * (2 * rank + 2 * states + kernel)
    return Mixer(weights, _states(inner * kernel, inner * states))


def mamba2(f: Fields) -> Mixer:
    """Mamba-2 (arXiv 2405.21060), as in Bamba."""
    d, kernel, states = f.count("hidden_size"), f.count("mamba_d_conv"), f.count("mamba_d_state")
    inner, heads = f.count("mamba_expand") * d, f.count("mamba_n_heads")
    convolved = inner + 2 * f.count("mamba_n_groups") * states
    weights = d * (inner + convolved + heads) + convolved * kernel + inner * d
    return Mixer(weights, _states(convolved * kernel, inner * states))


def short_convolution(f: Fields) -> Mixer:
    """LFM2's gated convolution over `conv_L_cache` tokens."""
    d, kernel = f.count("hidden_size"), f.count("conv_L_cache")
    return Mixer(4 * d * d + d * kernel, (State("state", 1, d * kernel),))


def _states(convolution: int, recurrent: int) -> tuple[State, ...]:
    return (
        State("state", 1, convolution),
        State("state", 1, recurrent, element_bytes=RECURRENT, flops=STEP * recurrent),
    )


def _in_layers(state: State, layers: int) -> State:
    return State(
        state.kind,
        layers,
        state.channels,
        element_bytes=state.element_bytes,
        flops=state.flops,
    )


# Feed-forward parts: multiplications of a token in all layers


def gated(f: Fields) -> int:
    return _layers(f) * _expert(f, "intermediate_size")


def two_matrices(f: Fields) -> int:
    return _layers(f) * 2 * f.count("hidden_size") * f.count("intermediate_size")


def all_experts(f: Fields) -> int:
    """Every layer routes among experts of `intermediate_size`."""
    router = f.count("hidden_size") * f.count("num_local_experts")
    return _layers(f) * (router + _chosen(f) * _expert(f, "intermediate_size"))


def qwen_shared_experts(f: Fields) -> int:
    """As `qwen_experts`, and a gated expert that every token uses."""
    shared = _expert(f, "shared_expert_intermediate_size") + f.count("hidden_size")
    return qwen_experts(f, shared)


def qwen_experts(f: Fields, shared: int = 0) -> int:
    """Experts in every `decoder_sparse_step`-th layer."""
    d, step, layers = f.count("hidden_size"), f.count_or("decoder_sparse_step", 1), _layers(f)
    dense = set(f.indices("mlp_only_layers"))
    sparse = sum((i + 1) % step == 0 and i not in dense for i in range(layers))
    routed = d * f.count("num_experts", "num_local_experts")
    routed += _chosen(f) * _expert(f, "moe_intermediate_size")
    rest = (layers - sparse) * _expert(f, "intermediate_size") if sparse < layers else 0
    return sparse * (routed + shared) + rest


def jamba_experts(f: Fields) -> int:
    period, offset = f.count("expert_layer_period"), f.count("expert_layer_offset", least=0)
    experts, layers = f.count("num_experts"), _layers(f)
    sparse = sum(i % period == offset for i in range(layers)) if experts > 1 else 0
    routed = f.count("hidden_size") * experts + _chosen(f) * _expert(f, "intermediate_size")
    return sparse * routed + (layers - sparse) * _expert(f, "intermediate_size")


def lfm2_feed(f: Fields) -> int:
    """The width is rounded up to a multiple after a factor of 2/3."""
    width = f.count("intermediate_size", "block_ff_dim")
    if f.flag("block_auto_adjust_ff_dim", default=True):
        factor = f.values.get("block_ffn_dim_multiplier", 1.0)
        if not isinstance(factor, int | float):
            raise f.error(f"block_ffn_dim_multiplier: got {factor!r}, expected a number")
        multiple = f.count("block_multiple_of")
        width = multiple * -(-int(factor * int(2 * width / 3)) // multiple)
    return _layers(f) * 3 * f.count("hidden_size") * width


def lfm2_experts(f: Fields) -> int:
    dense, layers = f.count("num_dense_layers", least=0), _layers(f)
    routed = f.count("hidden_size") * f.count("num_experts")
    routed += _chosen(f) * _expert(f, "moe_intermediate_size")
    return dense * _expert(f, "intermediate_size") + (layers - dense) * routed


def deepseek_experts(f: Fields) -> int:
    return sum(_feed_deepseek(f))


def _feed_deepseek(f: Fields) -> tuple[int, int]:
    """Experts and dense layers; and routers, which stay in bf16."""
    d, layers = f.count("hidden_size"), _layers(f)
    if f.count_or("moe_layer_freq", 1) != 1:
        raise f.error(f"moe_layer_freq: got {f.values['moe_layer_freq']}, expected 1")
    listed = f.per_layer("mlp_layer_types", ("dense", "sparse"), layers)
    dense = listed.count("dense") if listed else f.count("first_k_dense_replace", least=0)
    experts = _chosen(f) + f.count_or_null("n_shared_experts")
    sparse = max(0, layers - dense)
    feed = sparse * experts * _expert(f, "moe_intermediate_size")
    if dense:
        feed += min(dense, layers) * _expert(f, "intermediate_size")
    return feed, sparse * d * f.count("n_routed_experts")


def _chosen(f: Fields) -> int:
    return f.count("num_experts_per_tok")


def _expert(f: Fields, width: str) -> int:
    return 3 * f.count("hidden_size") * f.count(width)


# Fields that all families have


def derived_head_dim(f: Fields) -> int:
    d, heads = f.count("hidden_size"), f.count("num_attention_heads")
    return f.count_or("head_dim", d // heads)


def given_head_dim(f: Fields) -> int:
    """For families whose heads are not hidden_size / heads wide."""
    return f.count("head_dim")


def divided_head_dim(f: Fields) -> int:
    """For families that know no other width."""
    return f.count("hidden_size") // f.count("num_attention_heads")


def shared_or_each(f: Fields) -> int:
    """For families that take every head where the field is left out."""
    return f.count_or("num_key_value_heads", f.count("num_attention_heads"))


def each_head(f: Fields) -> int:
    """For families whose heads share nothing."""
    return f.count("num_attention_heads")


def _layers(f: Fields) -> int:
    return f.count("num_hidden_layers")


def _head(f: Fields) -> int:
    return f.count("vocab_size") * f.count("hidden_size")


def _unquantised(f: Fields, weights: int) -> ActiveParameters:
    return ActiveParameters(bf16=weights, head=_head(f))


def _max_position(f: Fields) -> int | None:
    limit = f.count_or("max_position_embeddings", 0, least=0)
    return limit or None


FAMILIES: dict[str, Callable[[Fields], Architecture]] = {
    "llama": attention(all_full, gated, kv_heads=shared_or_each),
    "mistral": attention(all_in_window, gated),
    "ministral": attention(
        listed_or(lambda f, i: f.window("sliding_window") is not None),
        gated,
        head_dim=given_head_dim,
    ),
    "mixtral": attention(all_in_window, all_experts),
    "phi3": attention(all_in_window, gated, head_dim=divided_head_dim, kv_heads=shared_or_each),
    "qwen2": attention(listed_or(from_layer), gated, head_dim=divided_head_dim),
    "qwen3": attention(listed_or(from_layer), gated, head_dim=given_head_dim),
    "qwen3_moe": attention(all_full, qwen_experts, head_dim=derived_head_dim),
    "gemma": attention(all_full, gated, head_dim=given_head_dim),
    "gemma2": attention(listed_or(lambda f, i: i % 2 == 0), gated, head_dim=given_head_dim),
    "gemma3_text": attention(gemma3_layers, gated, head_dim=given_head_dim),
    "cohere2": attention(
        all_but_each("sliding_window_pattern", 4),
        gated,
        head_dim=divided_head_dim,
        kv_heads=shared_or_each,
    ),
    "smollm3": attention(listed_unless_windows, gated, head_dim=divided_head_dim),
    "olmo2": attention(all_full, gated, head_dim=divided_head_dim, kv_heads=shared_or_each),
    "olmo3": attention(listed_or(lambda f, i: (i + 1) % 4 != 0), gated, kv_heads=shared_or_each),
    "granite": attention(all_full, gated, head_dim=divided_head_dim, kv_heads=shared_or_each),
    "seed_oss": attention(all_full, gated, head_dim=given_head_dim),
    "starcoder2": attention(all_in_window, two_matrices, head_dim=divided_head_dim),
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
    "jamba": attention(jamba_layers, jamba_experts, head_dim=divided_head_dim, mixer=mamba),
    "bamba": attention(bamba_layers, gated, head_dim=divided_head_dim, mixer=mamba2),
    "lfm2": attention(
        listed_convolutions, lfm2_feed, head_dim=divided_head_dim, mixer=short_convolution
    ),
    "lfm2_moe": attention(
        listed_convolutions, lfm2_experts, head_dim=divided_head_dim, mixer=short_convolution
    ),
}
"""`model_type` -> how its fields are read."""
