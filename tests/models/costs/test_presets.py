"""The published models, built without memory, have the published numbers of parameters."""

from __future__ import annotations

import pytest
import torch

from models.deepseek_v4.config import (
    CSA,
    HCA,
    PRESETS,
    SLIDING,
    V4_FLASH,
    V4_PRO,
    ConfigError,
    DeepseekV4Config,
)
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.weights import parameter_count
from tests.models.small import REAL


@pytest.mark.parametrize(
    ("name", "total", "active"), [("V4-Pro", 1573.0, 49.8), ("V4-Flash", 284.3, 13.8)]
)
def test_parameter_totals(name: str, total: float, active: float) -> None:
    """In units of 1e9. Embedding and head count, and for `active` 6 of the routed experts;
    MTP layers, routing tables and routing biases do not."""
    config = PRESETS[name]
    with torch.device("meta"):
        model = DeepseekV4(config)
    assert round(parameter_count(model) / 1e9, 1) == total
    routed = sum(p.numel() for n, p in model.named_parameters() if ".experts." in n)
    idle = routed * (1 - config.num_experts_per_tok / config.n_routed_experts)
    assert round((parameter_count(model) - idle) / 1e9, 1) == active


@pytest.mark.parametrize(
    ("config", "csa", "hca", "sliding"), [(V4_PRO, 30, 31, 0), (V4_FLASH, 21, 20, 2)]
)
def test_layers(config: DeepseekV4Config, csa: int, hca: int, sliding: int) -> None:
    counts = [config.layer_types.count(kind) for kind in (CSA, HCA, SLIDING)]
    assert counts == [csa, hca, sliding]


def test_a_configuration_survives_json() -> None:
    assert DeepseekV4Config.from_dict(REAL.as_dict()) == REAL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": ["linear"]}, r"^layer_types: got \['linear'\], expected each one of"),
        ({"qk_rope_head_dim": 7}, r"^qk_rope_head_dim: got 7, expected even"),
        ({"qk_rope_head_dim": 64}, r"^qk_rope_head_dim: got 64, .*at most head_dim \(16\)$"),
        ({"o_groups": 3}, r"^o_groups: got 3, expected a divisor of num_attention_heads \(2\)$"),
        ({"num_experts_per_tok": 9}, r"^num_experts_per_tok: got 9, expected 1 to"),
        ({"index_topk": 0}, r"^index_topk: got 0, expected at least 1$"),
        ({"index_top_k": 4}, r"^config: got \['index_top_k'\], expected fields among"),
    ],
)
def test_impossible_configurations(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeepseekV4Config.from_dict({**REAL.as_dict(), **change})


def test_a_missing_field_is_named() -> None:
    values = REAL.as_dict()
    del values["hidden_size"]
    with pytest.raises(ConfigError, match="hidden_size"):
        DeepseekV4Config.from_dict(values)
