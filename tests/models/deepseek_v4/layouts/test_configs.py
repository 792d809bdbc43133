"""`config.json` in the published layouts, to and from our configuration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.deepseek_v4.checkpoint_files import read_config, read_eos_ids
from models.deepseek_v4.config import (
    FULL,
    PRESETS,
    V4_FLASH,
    ConfigError,
    DeepseekV4Config,
    EngramShape,
)
from models.deepseek_v4.layouts.configs import (
    from_published,
    official_config,
    transformers_config,
)
from models.errors import ModelError
from tests.models.small import LATENT, REAL


@st.composite
def configs(draw: st.DrawFn) -> DeepseekV4Config:
    """Of any widths, rotary shares included that floating point does not hold exactly."""
    head_dim = 2 * draw(st.integers(2, 300))
    kinds = draw(st.lists(st.sampled_from(sorted(set(V4_FLASH.layer_types))), min_size=1))
    return replace(
        REAL,
        head_dim=head_dim,
        qk_rope_head_dim=2 * draw(st.integers(1, head_dim // 2)),
        layer_types=tuple(kinds),
        num_hash_layers=draw(st.integers(0, len(kinds))),
        csa_ratio=draw(st.integers(1, 9)),
        hca_ratio=draw(st.integers(1, 200)),
        yarn_factor=draw(st.sampled_from([2.0, 16.0])),
        yarn_original_positions=draw(st.integers(64, 1 << 16)),
        rope_theta=draw(st.sampled_from([1e4, 5e5])),
        compress_rope_theta=draw(st.sampled_from([1.6e5, 1e6])),
        swiglu_limit=draw(st.sampled_from([1.0, 10.0])),
        rms_norm_eps=draw(st.sampled_from([1e-6, 1e-5])),
    )


@given(configs())
def test_transformers_layout_keeps_every_field(config: DeepseekV4Config) -> None:
    written = json.loads(json.dumps(transformers_config(config, "float32")))
    assert from_published(written) == config
    assert int(config.head_dim * written["partial_rotary_factor"]) == config.qk_rope_head_dim


@given(configs())
def test_official_layout_keeps_every_field(config: DeepseekV4Config) -> None:
    config = replace(config, csa_ratio=4, hca_ratio=128)
    written = json.loads(json.dumps(official_config(config, "bfloat16", "bf16")))
    assert "layer_types" not in written
    assert from_published(written) == config


@pytest.mark.parametrize("layout", ["transformers", "official"])
@settings(max_examples=20)
@given(config=configs())
def test_transformers_reads_both_and_says_the_same(layout: str, config: DeepseekV4Config) -> None:
    hugging_face = pytest.importorskip("transformers.models.deepseek_v4").DeepseekV4Config
    if layout == "official":
        config = replace(config, csa_ratio=4, hca_ratio=128)
        values = official_config(config, "float32", "bf16")
        # Of the official file transformers takes qk_rope_head_dim / head_dim, rounded down.
        rotary = int(config.head_dim * (config.qk_rope_head_dim / config.head_dim))
        config = replace(config, qk_rope_head_dim=rotary - rotary % 2)
        values["qk_rope_head_dim"] = config.qk_rope_head_dim
    else:
        values = transformers_config(config, "float32")
    read = hugging_face(**values)
    assert read.eos_token_id is None
    assert from_published(json.loads(read.to_json_string(use_diff=False))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_in_the_official_layout(name: str) -> None:
    """The ratios of layers that only draft are left out."""
    values = official_config(PRESETS[name], "bfloat16", "fp4")
    values["compress_ratios"].append(0)
    assert from_published(values) == PRESETS[name]


def changed(**fields: Any) -> dict[str, Any]:
    values = transformers_config(REAL, "float32")
    return {name: value for name, value in (values | fields).items() if value != "absent"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (changed(model_type="llama"), r"^model_type: got 'llama', expected deepseek_v4; other"),
        (changed(scoring_func="softmax"), r"^scoring_func: got 'softmax', expected 'sqrtsoftplus'"),
        (changed(num_key_value_heads=2), r"^num_key_value_heads: got 2, expected 1"),
        (changed(hidden_size="absent"), r"^hidden_size: the field is missing$"),
        (changed(hidden_size="64"), r"^hidden_size: got '64', expected a whole number$"),
        (changed(hidden_size=True), r"^hidden_size: got True, expected a whole number$"),
        (changed(hc_eps="small"), r"^hc_eps: got 'small', expected a number$"),
        (changed(layer_types="absent"), r"^compress_ratios: got None, expected a list of 4 numb"),
        (changed(layer_types=["full_attention"] * 4), r"^layer_types: got .*, expected 4 of slid"),
        (changed(mlp_layer_types=["moe", "hash_moe"] * 2), r"^mlp_layer_types: got .*hash_moe lay"),
        (changed(num_hidden_layers=0), r"^num_hidden_layers: got 0, expected a whole number from"),
        (
            changed(rope_parameters={"rope_type": "linear"}),
            r"^rope_scaling.type: got 'linear', exp",
        ),
        (
            changed(rope_parameters={"rope_type": "yarn", "attention_factor": 1.3}),
            r"^rope_scaling.attention_factor: got 1.3, expected 1.0$",
        ),
        (
            changed(layer_types="absent", compress_ratios=[0, 8, 4, 4]),
            r"^compress_ratios: got 8, expected 0, 4 or 128$",
        ),
    ],
)
def test_what_is_not_computed_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_published(values)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            replace(REAL, log_length_base=128),
            r"^log_length_base: got 128, expected null: .*sharpen",
        ),
        (replace(REAL, layer_types=(FULL,)), r"^layer_types: got full_attention, expected layers"),
        (LATENT, r"^latent: got fields, expected null: it is no part of the published"),
        (
            replace(REAL, engram=EngramShape(layers=(1,))),
            r"^engram: got fields, expected null: it is no part of the published",
        ),
    ],
)
def test_only_a_stock_model_is_written(config: DeepseekV4Config, message: str) -> None:
    for write in (transformers_config, lambda c, d: official_config(c, d, "bf16")):
        with pytest.raises(ConfigError, match=message):
            write(config, "float32")


def test_other_ratios_are_not_official() -> None:
    with pytest.raises(ConfigError, match=r"^hca_ratio: got 64, expected 128, as in the official"):
        official_config(replace(REAL, hca_ratio=64), "bfloat16", "bf16")


def test_end_of_sequence_of_both_files(tmp_path: Path) -> None:
    config = transformers_config(REAL, "float32", eos_ids=[7])
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_eos_ids(tmp_path) == {7}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert read_eos_ids(tmp_path) == {7, 9}
    assert read_config(tmp_path) == REAL


def test_a_folder_with_another_architecture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(ModelError, match=r"config.json: model_type: got 'qwen3', expected deep"):
        read_config(tmp_path)
