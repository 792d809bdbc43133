"""Computed bytes and FLOPs against figures that others measured or published.

The claims about DeepSeek's models stand in `models.costs.claims`. `configs/` holds the shapes of
the models named here as their config.json has them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from models.costs.config_files import read_architecture
from models.costs.flops import prefill_flops, token_flops
from models.costs.memory import cache_bytes, request, total
from models.costs.presets import find_architecture

CONFIGS = Path(__file__).parent / "configs"


@pytest.mark.parametrize(
    ("model", "tokens", "gib"),
    [
        ("llama-3.1-8b", 1024, 0.125),
        ("llama-3.1-8b", 16000, 1.95),
        ("llama-3.1-8b", 128000, 15.62),
        ("llama-3.1-70b", 1024, 0.313),
        ("llama-3.1-70b", 16000, 4.88),
        ("llama-3.1-70b", 128000, 39.06),
    ],
)
def test_llama_3_1(model: str, tokens: int, gib: float) -> None:
    """Hugging Face's blog on Llama 3.1, inference memory in FP16."""
    held = total(cache_bytes(read_architecture(CONFIGS / f"{model}.json"), tokens))
    assert held / 2**30 == pytest.approx(gib, rel=0.005)


@pytest.mark.parametrize(
    ("model", "kilobytes"),
    [("v3", 70.272), ("qwen2.5-72b", 327.680), ("llama-3.1-405b", 516.096)],
)
def test_bytes_a_token_in_deepseeks_comparison(model: str, kilobytes: float) -> None:
    """Insights into DeepSeek-V3 (arXiv 2505.09343), Table 1, bf16."""
    name = model if model == "v3" else str(CONFIGS / f"{model}.json")
    assert request(find_architecture(name)) == (0, 1000 * kilobytes)


@pytest.mark.parametrize(("model", "gigaflops"), [("v3", 250), ("llama-3.1-405b", 2448)])
def test_training_flops_in_deepseeks_comparison(model: str, gigaflops: float) -> None:
    """The same paper: GFLOPS a token in training at 4,096 tokens, causal attention. Training takes
    three forward passes, each with the head for every token."""
    architecture = find_architecture(model if model == "v3" else str(CONFIGS / f"{model}.json"))
    assert architecture.active is not None
    forward = prefill_flops(architecture, 4096).total / 4096 + 2 * architecture.active.head
    assert 3 * forward / 1e9 == pytest.approx(gigaflops, rel=0.02)


def test_gemma_3_270m_as_measured() -> None:
    """66.0 MB held by transformers' cache in fp32 at 8K: 15 of 18 layers keep a window."""
    held = total(cache_bytes(read_architecture(CONFIGS / "gemma-3-270m.json"), 8192, "fp32"))
    assert held / 1e6 == pytest.approx(66.0, rel=0.005)


def test_fp8_holds_four_times_the_tokens_of_fp32() -> None:
    """As vLLM on a CPU reports it for its cache types."""
    architecture = read_architecture(CONFIGS / "llama-3.1-8b.json")
    assert request(architecture, "fp32").slope == 4 * request(architecture, "fp8").slope


def test_linear_layers_by_hand() -> None:
    """Qwen3-Next: 36 layers keep 4 tokens of 8,192 convolved channels in bf16 and 32 states of
    128 x 128 in fp32, 12 layers keep 2 heads of 256; a token takes 6 FLOPs a channel of a state."""
    architecture = read_architecture(CONFIGS / "qwen3-next-80b-a3b.json")
    recurrent = 32 * 128 * 128
    assert request(architecture) == (36 * (4 * 8192 * 2 + recurrent * 4), 12 * 2 * 2 * 256 * 2)
    for length in (1, 100):
        held = cache_bytes(architecture, length)
        assert held["state"] == request(architecture).fixed
        assert token_flops(architecture, length).state == 36 * 6 * recurrent
    assert prefill_flops(architecture, 100).state == 100 * 36 * 6 * recurrent
