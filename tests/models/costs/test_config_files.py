"""Architectures read from a config.json, against the models that transformers builds from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, cache_utils
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from models.costs.architecture import Architecture
from models.costs.config_files import FAMILIES, read_architecture
from models.costs.deepseek_v4 import session
from models.costs.memory import cache_bytes, total
from models.costs.presets import DEEPSEEK_V3, PRESETS, V3_2_INDEXER
from models.errors import ModelError
from models.registry import configuration

CONFIGS = Path(__file__).parent / "configs"
TOKENS = 40
COMMON: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 16}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
QWEN_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
SHARED = {"shared_expert_intermediate_size": 40}
DELTA = {
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "head_dim": 24,
}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
INDEX = {"index_n_heads": 4, "index_head_dim": 16, "index_topk": 8}
SMALL: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": WINDOW,
    "ministral": WINDOW
    | {"head_dim": 24, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "mixtral": EXPERTS | {"sliding_window": None},
    "phi3": {"sliding_window": None},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1} | WINDOW,
    "qwen3": {"head_dim": 24},
    "qwen3_moe": QWEN_EXPERTS | {"mlp_only_layers": [1], "head_dim": 24},
    "gemma": {"head_dim": 24},
    "gemma2": {"head_dim": 24} | WINDOW,
    "gemma3_text": {"head_dim": 24, "num_hidden_layers": 7} | WINDOW,
    "cohere2": WINDOW,
    "smollm3": {},
    "olmo2": {},
    "olmo3": WINDOW,
    "granite": {},
    "seed_oss": {"head_dim": 24},
    "starcoder2": {"sliding_window": None},
    "gpt_neox": {},
    "gpt_oss": EXPERTS | WINDOW | {"head_dim": 24},
    "minimax_m2": EXPERTS | {"head_dim": 24},
    "glm4": {"head_dim": 16},
    "glm4_moe": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "first_k_dense_replace": 1,
        "head_dim": 16,
    },
    "deepseek_v2": LATENT | {"q_lora_rank": None},
    "deepseek_v3": LATENT,
    "glm4_moe_lite": LATENT,
    "deepseek_v32": LATENT | INDEX,
    "glm_moe_dsa": LATENT | INDEX | {"indexer_types": ["full", "shared", "full", "shared"]},
    "deepseek_v4": {
        "hc_mult": 4,
        "intermediate_size": 24,  # another name of moe_intermediate_size
        "max_position_embeddings": 4096,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "qk_rope_head_dim": 8,
        "q_lora_rank": 24,
        "o_groups": 2,
        "o_lora_rank": 16,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "sliding_window": 16,
        "layer_types": [
            "sliding_attention",
            "compressed_sparse_attention",
            "heavily_compressed_attention",
            "compressed_sparse_attention",
        ],
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
    }
    | INDEX,
    "qwen3_next": QWEN_EXPERTS | SHARED | DELTA,
    "qwen3_5_text": DELTA,
    "qwen3_5_moe_text": QWEN_EXPERTS | SHARED | DELTA,
    "jamba": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "attn_layer_period": 4,
        "attn_layer_offset": 2,
        "mamba_d_state": 8,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_dt_rank": 6,
        "use_mamba_kernels": False,
    },
    "bamba": {
        "attn_layer_indices": [1],
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_n_groups": 1,
        "mamba_d_state": 8,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_chunk_size": 8,
    },
    "lfm2": {"full_attn_idxs": [1, 3], "conv_L_cache": 3, "block_multiple_of": 16},
    "lfm2_moe": QWEN_EXPERTS
    | {
        "layer_types": ["conv", "full_attention", "conv", "full_attention"],
        "conv_L_cache": 3,
        "num_dense_layers": 1,
    },
}


WITH_STATES = {
    "qwen3_next",
    "qwen3_5_text",
    "qwen3_5_moe_text",
    "jamba",
    "bamba",
    "lfm2",
    "lfm2_moe",
}
"""Families with layers that keep a state in place of rows."""


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def skip_an_unknown(family: str) -> None:
    if family not in CONFIG_MAPPING:
        pytest.skip("a newer transformers has this family")


def skip_what_transformers_lacks(family: str) -> None:
    """Skips a family without a class, or without a cache to compare with."""
    skip_an_unknown(family)
    if family in WITH_STATES and not hasattr(cache_utils, "LinearAttentionLayer"):
        pytest.skip("a newer transformers keeps this family's states in a DynamicCache")


def small_config(family: str) -> Any:
    return CONFIG_MAPPING[family](**{**COMMON, **SMALL[family]})


def held_tensors(cache: object) -> int:
    """Bytes of the tensors that a cache reaches, counters aside."""
    seen: dict[int, int] = {}

    def walk(value: object) -> None:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            seen[id(value)] = value.numel() * value.element_size()
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list | tuple):
            for item in value:
                walk(item)
        elif hasattr(value, "__dict__"):
            walk(vars(value))

    walk(cache.layers)
    return sum(seen.values())


def matrices(model: torch.nn.Module, config: Any) -> int:
    """Parameters that one token multiplies with."""
    experts = next(
        (
            getattr(config, name)
            for name in ("num_experts", "n_routed_experts", "num_local_experts")
            if getattr(config, name, None)
        ),
        1,
    )
    counted = config.vocab_size * config.hidden_size if config.tie_word_embeddings else 0
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or any(w in name for w in ("bias", "embed_", "A_log")):
            continue
        chosen = config.num_experts_per_tok if ".experts." in name else experts
        counted += parameter.numel() * chosen // experts
    return counted


def as_transformers_keeps_it(architecture: Architecture) -> Architecture:
    """A window without the query's own row."""
    return replace(
        architecture,
        rows=tuple(
            replace(rows, newest=None if rows.newest is None else rows.newest - 1)
            for rows in architecture.rows
        ),
    )


def test_every_family_is_compared() -> None:
    assert set(FAMILIES) - set(SMALL) == {"kimi_k2"}  # V3's fields; transformers has no class


@pytest.mark.parametrize("family", SMALL)
def test_a_family_against_transformers(family: str, tmp_path: Path) -> None:
    """The cache's bytes in two types and the matrices of one token, from the file that
    transformers writes and from one with the fields given here alone."""
    skip_what_transformers_lacks(family)
    config = small_config(family)
    saved = json.loads(config.to_json_string(use_diff=False))
    architecture = read_architecture(written(tmp_path, saved))
    short = read_architecture(written(tmp_path, {"model_type": family, **COMMON, **SMALL[family]}))
    assert replace(short, max_position=architecture.max_position) == architecture
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    assert architecture.active is not None
    assert sum(architecture.active) == matrices(model, config)
    if family == "deepseek_v4":  # its tails differ; tests/models/deepseek_v4 has its own oracle
        return
    kept = as_transformers_keeps_it(architecture)
    for dtype, layout in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        cache = DynamicCache(config=config)
        with torch.inference_mode():
            model.to(dtype)(torch.arange(TOKENS)[None], past_key_values=cache, use_cache=True)
        assert total(cache_bytes(kept, TOKENS, layout)) == held_tensors(cache), dtype


OWN_WIDTHS = {"deepseek_v2", "deepseek_v3", "glm4_moe_lite", "deepseek_v32", "glm_moe_dsa"}
"""Families whose heads have other fields for their widths."""


@pytest.mark.parametrize("family", sorted(set(SMALL) - OWN_WIDTHS - {"deepseek_v4"}))
def test_a_head_width_in_the_file_counts_where_transformers_reads_it(
    family: str, tmp_path: Path
) -> None:
    """Pruned models have heads that are not hidden_size / heads wide."""
    skip_what_transformers_lacks(family)
    config = CONFIG_MAPPING[family](**{**COMMON, **SMALL[family], "head_dim": 32})
    saved = json.loads(config.to_json_string(use_diff=False))
    kept = as_transformers_keeps_it(read_architecture(written(tmp_path, saved)))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    cache = DynamicCache(config=config)
    with torch.inference_mode():
        model(torch.arange(TOKENS)[None], past_key_values=cache, use_cache=True)
    assert total(cache_bytes(kept, TOKENS, "fp32")) == held_tensors(cache)


def test_the_released_configuration_of_v4_flash() -> None:
    assert read_architecture(CONFIGS / "deepseek-v4-flash.json") == PRESETS["v4-flash"]


def test_v3_2_from_its_fields(tmp_path: Path) -> None:
    values = {"model_type": "deepseek_v32", **DEEPSEEK_V3, **V3_2_INDEXER}
    read = read_architecture(written(tmp_path, values))
    assert replace(read, has_precisions=True) == PRESETS["v3.2"]


def test_the_text_part_of_a_multimodal_model(tmp_path: Path) -> None:
    text = {"model_type": "qwen3_5_text", **COMMON, **DELTA}
    alone = read_architecture(written(tmp_path, text))
    assert (
        read_architecture(written(tmp_path, {"model_type": "qwen3_5", "text_config": text}))
        == alone
    )


def test_a_checkpoint_of_this_repository(tmp_path: Path) -> None:
    config = configuration("nano-v4")
    assert read_architecture(written(tmp_path, config.as_dict())) == session(config)


LLAMA = {"model_type": "llama", **COMMON}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "rwkv"}, "model_type: got 'rwkv', expected one of llama, "),
        ({"hidden_size": 8}, "field model_type is missing"),
        (without(LLAMA, "num_hidden_layers"), "field num_hidden_layers is missing"),
        (without(LLAMA, "vocab_size"), "field vocab_size is missing"),
        (
            LLAMA | {"num_key_value_heads": "two"},
            "num_key_value_heads: got 'two', expected a whole",
        ),
        (
            LLAMA | {"num_hidden_layers": 0},
            "num_hidden_layers: got 0, expected a whole number >= 1",
        ),
        (LLAMA | {"num_hidden_layers": True}, "num_hidden_layers: got True, expected a whole"),
        ({**LLAMA, "model_type": "mistral"}, "field sliding_window is missing"),
        ({**LLAMA, "model_type": "qwen3"}, "field head_dim is missing"),
        (
            {**LLAMA, "model_type": "olmo3", "layer_types": ["mamba"] * 4},
            "layer_types: got mamba, expected full_attention, sliding_attention",
        ),
        (
            {**LLAMA, "model_type": "olmo3", "layer_types": ["full_attention"]},
            "layer_types: got ['full_attention'], expected a list of 4 layers",
        ),
        (
            {**LLAMA, "model_type": "qwen2", "use_sliding_window": "no"},
            "use_sliding_window: got 'no', expected true or false",
        ),
        ({"model_type": 3}, "model_type: got 3, expected text"),
        (
            {"model_type": "deepseek_v4", **COMMON, "compress_ratios": [0, 2, 4, 128]},
            "compress_ratios: got [0, 2, 4, 128], expected 4 of 0, 4 and 128",
        ),
        (
            {"model_type": "deepseek_v32", **COMMON, **LATENT, **INDEX, "index_topk_freq": 4},
            "index_topk_freq: write indexer_types, a word for each layer",
        ),
        (
            {"model_type": "deepseek_v2", **COMMON, **LATENT, "moe_layer_freq": 2},
            "moe_layer_freq: got 2, expected 1",
        ),
        ({"o_groups": 4}, "config: "),
    ],
)
def test_what_is_unknown_is_refused(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, values)
    with pytest.raises(ModelError) as refused:
        read_architecture(path)
    told = str(refused.value)
    assert told.startswith(f"{path}: {message}")
    assert "\n" not in told


@pytest.mark.parametrize("family", SMALL)
def test_no_field_is_guessed(family: str, tmp_path: Path) -> None:
    """Without a field a file is refused by the field's name, or read as transformers reads it."""
    skip_an_unknown(family)
    values = {**COMMON, **SMALL[family]}
    for name in values:
        fewer = without(values, name)
        refusal = refused(written(tmp_path, {"model_type": family, **fewer}))
        if refusal is not None:
            assert name in refusal or name == "layer_types", (name, refusal)
            continue
        found = read_architecture(tmp_path / "config.json")
        config = CONFIG_MAPPING[family](**fewer)
        saved = json.loads(config.to_json_string(use_diff=False))
        read = read_architecture(written(tmp_path, saved))
        assert replace(found, max_position=read.max_position) == read, name


def refused(path: Path) -> str | None:
    """The message of a refusal."""
    try:
        read_architecture(path)
    except ModelError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "no JSON"), ("[1]", "got list, expected a JSON object"), ("\x80", "no JSON")],
)
def test_what_is_no_json_object(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=message):
        read_architecture(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none.json: cannot be read: No such file"):
        read_architecture(tmp_path / "none.json")
