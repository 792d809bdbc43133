"""`config.json` of transformers' layout and of the official one, to and from our configuration.

transformers (5.19 to 5.23) names each layer's kind (`layer_types`, `mlp_layer_types`); the official
file has a ratio per layer (`compress_ratios`, 0 for a window alone) and counts its hash layers
(`num_hash_layers`). What our model does not compute is refused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from models.deepseek_v4.config import CSA, HCA, PARTS, SLIDING, ConfigError, DeepseekV4Config
from models.deepseek_v4.config import is_uncompressed as keeps_every_token

MODEL_TYPE = "deepseek_v4"
HASH, SCORED = "hash_moe", "moe"
SAME = (
    *("hidden_size", "num_attention_heads", "q_lora_rank", "o_groups", "o_lora_rank"),
    *("n_routed_experts", "moe_intermediate_size", "routed_scaling_factor", "index_topk"),
    *("vocab_size", "head_dim", "sliding_window", "index_n_heads", "index_head_dim"),
    *("num_experts_per_tok", "n_shared_experts", "hc_mult", "hc_sinkhorn_iters", "hc_eps"),
    *("rms_norm_eps", "swiglu_limit", "rope_theta", "compress_rope_theta"),
    "max_position_embeddings",
)
"""Fields of the same name and meaning everywhere."""
COMPUTED: dict[str, tuple[object, ...]] = {
    "num_key_value_heads": (1,),
    "scoring_func": ("sqrtsoftplus",),
    "topk_method": ("noaux_tc",),
    "norm_topk_prob": (True,),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "tie_word_embeddings": (False,),
}
"""Values that the model computes; a file that leaves the field out means these."""
RATIOS = {SLIDING: 0, CSA: 4, HCA: 128}


def is_published(values: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of one of these layouts, not of our own."""
    return "model_type" in values


def from_published(values: Mapping[str, Any]) -> DeepseekV4Config:
    """Our configuration. Raises: ConfigError for what is missing, unknown or not computed."""
    if values.get("model_type") != MODEL_TYPE:
        raise _wrong(
            "model_type",
            values.get("model_type"),
            f"{MODEL_TYPE}; other architectures are read as hf:FOLDER",
        )
    for name, allowed in COMPUTED.items():
        if values.get(name) is not None and values[name] not in allowed:
            raise _wrong(name, values[name], f"{allowed[0]!r}, which this model computes")
    kinds, csa_ratio, hca_ratio = _layers(values)
    found = {
        **{name: values[name] for name in SAME if values.get(name) is not None},
        **_rotary_bases(values),
        **_yarn(values),
        "csa_ratio": csa_ratio,
        "hca_ratio": hca_ratio,
        "num_hash_layers": _hash_layers(values, len(kinds)),
        "qk_rope_head_dim": _rotary(values),
    }
    types = get_type_hints(DeepseekV4Config)
    for name, value in found.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (types[name] is int and not isinstance(value, int)):
            raise _wrong(name, value, "a whole number" if types[name] is int else "a number")
    missing = [f.name for f in fields(DeepseekV4Config) if f.default is MISSING]
    for name in missing:
        if name not in found and name != "layer_types":
            raise ConfigError(f"{name}: the field is missing")
    return DeepseekV4Config(**found, layer_types=tuple(kinds))


def refuse_unpublished(config: DeepseekV4Config) -> None:
    """Raises: ConfigError for a model that is no stock DeepSeek-V4."""
    if keeps_every_token(config):
        raise ConfigError(
            "layer_types: got full_attention, expected layers of DeepSeek-V4; the uncompressed "
            "twin is of no published architecture"
        )
    for part in PARTS:
        if getattr(config, part) is not None:
            raise ConfigError(
                f"{part}: got fields, expected null: it is no part of the published architecture"
            )
    if config.log_length_base is not None:
        raise ConfigError(
            f"log_length_base: got {config.log_length_base}, expected null: no engine computes it; "
            "--sharpen 2.0 puts a constant temperature into the weights instead"
        )


def transformers_config(
    config: DeepseekV4Config, dtype: str, eos_ids: Collection[int] = ()
) -> dict[str, Any]:
    """`config.json` for transformers. `dtype`: of the saved weights. Raises: ConfigError."""
    refuse_unpublished(config)
    hashed = min(config.num_hash_layers, config.num_hidden_layers)
    yarn = _yarn_fields(config)
    return {
        **_common(config, dtype, eos_ids),
        "layer_types": list(config.layer_types),
        "compress_rates": {CSA: config.csa_ratio, HCA: config.hca_ratio},
        "mlp_layer_types": [HASH] * hashed + [SCORED] * (config.num_hidden_layers - hashed),
        "partial_rotary_factor": _rotary_factor(config),
        "rope_parameters": {"rope_type": "yarn", **yarn},
    }


def official_config(
    config: DeepseekV4Config, dtype: str, experts: str, eos_ids: Collection[int] = ()
) -> dict[str, Any]:
    """The official `config.json`; `experts`: their type, "bf16", "fp8" or "fp4".

    Raises:
        ConfigError: the model is no stock DeepSeek-V4, or has other ratios than 4 and 128.
    """
    refuse_unpublished(config)
    for name, value in (("csa_ratio", 4), ("hca_ratio", 128)):
        if getattr(config, name) != value:
            raise _wrong(name, getattr(config, name), f"{value}, as in the official layout")
    quantized = {
        "quantization_config": {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "scale_fmt": "ue8m0",
            "weight_block_size": [128, 128],
        }
    }
    return {
        **_common(config, dtype, eos_ids),
        "compress_ratios": [RATIOS[kind] for kind in config.layer_types],
        "num_hash_layers": config.num_hash_layers,
        "num_nextn_predict_layers": 0,
        "topk_method": "noaux_tc",
        "rope_scaling": {"type": "yarn", **_yarn_fields(config)},
        "expert_dtype": experts,
        **({} if experts == "bf16" else quantized),
    }


def _common(config: DeepseekV4Config, dtype: str, eos_ids: Collection[int]) -> dict[str, Any]:
    """What both files say. Without `eos_ids`, null: engines would take id 1 otherwise."""
    return {
        "architectures": ["DeepseekV4ForCausalLM"],
        "model_type": MODEL_TYPE,
        "torch_dtype": dtype,
        "bos_token_id": None,
        "eos_token_id": sorted(eos_ids) or None,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "num_hidden_layers": config.num_hidden_layers,
        "qk_rope_head_dim": config.qk_rope_head_dim,
        **{name: allowed[0] for name, allowed in COMPUTED.items() if name != "topk_method"},
        **{name: getattr(config, name) for name in SAME},
    }


def _yarn_fields(config: DeepseekV4Config) -> dict[str, Any]:
    return {
        "factor": config.yarn_factor,
        "beta_fast": config.yarn_beta_fast,
        "beta_slow": config.yarn_beta_slow,
        "original_max_position_embeddings": config.yarn_original_positions,
    }


def _rotary_factor(config: DeepseekV4Config) -> float:
    """The share of rotary channels, such that transformers' int(head_dim * share) is right."""
    share = config.qk_rope_head_dim / config.head_dim
    exact = int(config.head_dim * share) == config.qk_rope_head_dim
    return share if exact else math.nextafter(share, 1.0)


def _layers(values: Mapping[str, Any]) -> tuple[list[str], int, int]:
    """Each layer's kind and the two ratios. The ratios of layers that only draft are left out."""
    count = values.get("num_hidden_layers")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise _wrong("num_hidden_layers", count, "a whole number from 1")
    kinds, ratios = values.get("layer_types"), values.get("compress_ratios")
    if kinds is None:
        by_ratio = {ratio: kind for kind, ratio in RATIOS.items()}
        if not isinstance(ratios, list) or len(ratios) < count:
            raise _wrong("compress_ratios", ratios, f"a list of {count} numbers, or layer_types")
        unknown = [ratio for ratio in ratios[:count] if ratio not in by_ratio]
        if unknown:
            raise _wrong("compress_ratios", unknown[0], "0, 4 or 128")
        return [by_ratio[ratio] for ratio in ratios[:count]], RATIOS[CSA], RATIOS[HCA]
    if not isinstance(kinds, list) or len(kinds) < count or not set(kinds) <= set(RATIOS):
        raise _wrong("layer_types", kinds, f"{count} of {', '.join(RATIOS)}")
    rates = values.get("compress_rates") or {}
    return kinds[:count], rates.get(CSA, RATIOS[CSA]), rates.get(HCA, RATIOS[HCA])


def _hash_layers(values: Mapping[str, Any], layers: int) -> int:
    kinds = values.get("mlp_layer_types")
    if kinds is None:
        count = values.get("num_hash_layers", 3)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise _wrong("num_hash_layers", count, "a whole number from 0")
        return min(count, layers)
    count = kinds.count(HASH)
    if kinds[:layers] != [HASH] * count + [SCORED] * (layers - count):
        raise _wrong("mlp_layer_types", kinds, f"{HASH} layers first, then {SCORED}")
    return int(count)


def _rotary(values: Mapping[str, Any]) -> int:
    given, share = values.get("qk_rope_head_dim"), values.get("partial_rotary_factor")
    if isinstance(given, int):
        return given
    head_dim = values.get("head_dim", 512)
    if isinstance(share, float) and isinstance(head_dim, int):
        return round(head_dim * share)
    if given is None and share is None:
        return 64
    raise _wrong("qk_rope_head_dim", given, "a whole number")


def _rotary_bases(values: Mapping[str, Any]) -> dict[str, Any]:
    """The two bases where transformers has written them into `rope_parameters`."""
    nested = values.get("rope_parameters") or {}
    places = {"rope_theta": "main", "compress_rope_theta": "compress"}
    return {
        name: nested[place]["rope_theta"]
        for name, place in places.items()
        if isinstance(nested.get(place), dict) and "rope_theta" in nested[place]
    }


def _yarn(values: Mapping[str, Any]) -> dict[str, Any]:
    """YaRN's fields, of layers with entries; with none of them nothing is scaled."""
    scaling = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if isinstance(scaling.get("compress"), dict):
        scaling = scaling["compress"]
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return {"yarn_factor": 1.0}
    if kind != "yarn":
        raise _wrong("rope_scaling.type", kind, "yarn or default")
    if scaling.get("attention_factor", 1.0) not in (None, 1.0):
        raise _wrong("rope_scaling.attention_factor", scaling["attention_factor"], "1.0")
    names = {
        "factor": "yarn_factor",
        "beta_fast": "yarn_beta_fast",
        "beta_slow": "yarn_beta_slow",
        "original_max_position_embeddings": "yarn_original_positions",
    }
    return {ours: scaling[name] for name, ours in names.items() if scaling.get(name) is not None}


def _wrong(field: str, value: object, expected: str) -> ConfigError:
    return ConfigError(f"{field}: got {value!r}, expected {expected}")
