"""Parts of which families of a `config.json` are made: kinds of layers, layers that keep a state,
feed-forward parts, and fields that all families have."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from models.costs.architecture import ActiveParameters, State
from models.costs.config_fields import Fields
from models.deepseek_v4.config import SLIDING

FULL = "full_attention"
LINEAR = "linear_attention"
CONVOLUTION = "conv"
RECURRENT = 4  # bytes of a channel of a recurrent state: fp32
STEP = 6  # FLOPs of a channel of a recurrent state a token: decay and add, correct, read


class Mixer(NamedTuple):
    """A layer that keeps a state in place of rows."""

    weights: int  # multiplications of a token in one layer
    states: tuple[State, ...]  # of one layer


# Kinds of layers


def all_full(f: Fields) -> list[str]:
    return [FULL] * layer_count(f)


def all_in_window(f: Fields) -> list[str]:
    """Every layer has the window that `sliding_window` names, or none has (null)."""
    return [FULL if f.window("sliding_window") is None else SLIDING] * layer_count(f)


def listed_or(rule: Callable[[Fields, int], bool]) -> Callable[[Fields], list[str]]:
    """`layer_types`; where the file is older than that field, layers for which `rule` holds see a
    window."""

    def kinds(f: Fields) -> list[str]:
        layers = layer_count(f)
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
    layers = layer_count(f)
    listed = f.per_layer("layer_types", (FULL, LINEAR), layers)
    if listed is not None:
        return listed
    every = f.count("full_attention_interval")
    return [LINEAR if (i + 1) % every else FULL for i in range(layers)]


def listed_convolutions(f: Fields) -> list[str]:
    """LFM2's layers, by `layer_types` or by the numbers of those that attend."""
    layers = layer_count(f)
    listed = f.per_layer("layer_types", (FULL, CONVOLUTION), layers)
    if listed is not None:
        return listed
    if "full_attn_idxs" not in f.values:
        raise f.error("field layer_types or full_attn_idxs is missing")
    attending = f.indices("full_attn_idxs")
    return [FULL if i in attending else CONVOLUTION for i in range(layers)]


def jamba_layers(f: Fields) -> list[str]:
    period, offset = f.count("attn_layer_period"), f.count("attn_layer_offset", least=0)
    return [FULL if i % period == offset else LINEAR for i in range(layer_count(f))]


def bamba_layers(f: Fields) -> list[str]:
    attending = f.indices("attn_layer_indices")
    return [FULL if i in attending else LINEAR for i in range(layer_count(f))]


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


def in_layers(state: State, layers: int) -> State:
    return State(
        state.kind,
        layers,
        state.channels,
        element_bytes=state.element_bytes,
        flops=state.flops,
    )


# Feed-forward parts: multiplications of a token in all layers


def gated(f: Fields) -> int:
    return layer_count(f) * _expert(f, "intermediate_size")


def two_matrices(f: Fields) -> int:
    return layer_count(f) * 2 * f.count("hidden_size") * f.count("intermediate_size")


def all_experts(f: Fields) -> int:
    """Every layer routes among experts of `intermediate_size`."""
    router = f.count("hidden_size") * f.count("num_local_experts")
    return layer_count(f) * (router + _chosen(f) * _expert(f, "intermediate_size"))


def qwen_shared_experts(f: Fields) -> int:
    """As `qwen_experts`, and a gated expert that every token uses."""
    shared = _expert(f, "shared_expert_intermediate_size") + f.count("hidden_size")
    return qwen_experts(f, shared)


def qwen_experts(f: Fields, shared: int = 0) -> int:
    """Experts in every `decoder_sparse_step`-th layer."""
    d, step, layers = f.count("hidden_size"), f.count_or("decoder_sparse_step", 1), layer_count(f)
    dense = set(f.indices("mlp_only_layers"))
    sparse = sum((i + 1) % step == 0 and i not in dense for i in range(layers))
    routed = d * f.count("num_experts", "num_local_experts")
    routed += _chosen(f) * _expert(f, "moe_intermediate_size")
    rest = (layers - sparse) * _expert(f, "intermediate_size") if sparse < layers else 0
    return sparse * (routed + shared) + rest


def jamba_experts(f: Fields) -> int:
    period, offset = f.count("expert_layer_period"), f.count("expert_layer_offset", least=0)
    experts, layers = f.count("num_experts"), layer_count(f)
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
    return layer_count(f) * 3 * f.count("hidden_size") * width


def lfm2_experts(f: Fields) -> int:
    dense, layers = f.count("num_dense_layers", least=0), layer_count(f)
    routed = f.count("hidden_size") * f.count("num_experts")
    routed += _chosen(f) * _expert(f, "moe_intermediate_size")
    return dense * _expert(f, "intermediate_size") + (layers - dense) * routed


def deepseek_experts(f: Fields) -> int:
    return sum(deepseek_feed(f))


def deepseek_feed(f: Fields) -> tuple[int, int]:
    """Experts and dense layers; and routers, which stay in bf16."""
    d, layers = f.count("hidden_size"), layer_count(f)
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
    """For families whose model of transformers does not read the field `head_dim`."""
    return f.count("hidden_size") // f.count("num_attention_heads")


def shared_or_each(f: Fields) -> int:
    """For families that take every head where the field is left out."""
    return f.count_or("num_key_value_heads", f.count("num_attention_heads"))


def each_head(f: Fields) -> int:
    """For families whose heads share nothing."""
    return f.count("num_attention_heads")


def layer_count(f: Fields) -> int:
    return f.count("num_hidden_layers")


def head_weights(f: Fields) -> int:
    return f.count("vocab_size") * f.count("hidden_size")


def unquantised(f: Fields, weights: int) -> ActiveParameters:
    return ActiveParameters(bf16=weights, head=head_weights(f))


def max_position_of(f: Fields) -> int | None:
    limit = f.count_or("max_position_embeddings", 0, least=0)
    return limit or None
