"""The uncompressed twin's attention against loops: both of its paths, and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.deepseek_v4.attention import Step
from models.deepseek_v4.config import FULL
from models.deepseek_v4.dense import DenseTwin, FullAttention, causal_with_sink
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.parts import softmax_with_sink, window_part
from models.layers import Rotation
from tests.models.naive import attention_with_sink
from tests.models.small import REAL, full_logits, random_ids, randomized, relative_difference


def random_attention(num_tokens: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """q [1, S, H, C], kv [1, S, C], sinks [H]."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, num_tokens, 3, 8, generator=generator)
    kv = torch.randn(1, num_tokens, 8, generator=generator)
    return q, kv, torch.randn(3, generator=generator)


def full_attention() -> FullAttention:
    attention = randomized(DenseTwin(REAL), seed=5).model.layers[1].self_attn
    assert isinstance(attention, FullAttention)
    return attention


@pytest.mark.parametrize(
    "sizes", [[40], [1] * 40, [7, 1, 20, 12]], ids=["whole", "tokens", "mixed"]
)
def test_cached_attention_equals_loops(sizes: list[int]) -> None:
    attention = full_attention()
    cache = attention.new_cache()
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 40, REAL.num_attention_heads, REAL.head_dim, generator=generator)
    kv = torch.randn(1, 40, REAL.head_dim, generator=generator)
    indices = torch.arange(40)
    rotation = Rotation(indices, torch.ones(4))
    step = Step(indices, indices, rotation, rotation, torch.ones(4))
    outputs = []
    with torch.no_grad():
        for queries, keys in zip(q.split(sizes, 1), kv.split(sizes, 1), strict=True):
            outputs.append(attention.attend(queries, queries, queries, keys, step, cache))
    expected = attention_with_sink(q[0], kv[0], attention.sinks.detach())
    torch.testing.assert_close(torch.cat(outputs, 1)[0], expected, rtol=1e-5, atol=1e-6)


def test_attention_without_a_cache_equals_loops() -> None:
    q, kv, sinks = random_attention()
    expected = attention_with_sink(q[0], kv[0], sinks)
    torch.testing.assert_close(causal_with_sink(q, kv, sinks)[0], expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_causal_with_sink_equal_autograd_through_plain_operations() -> None:
    inputs = [x.requires_grad_() for x in random_attention()]
    twins = [x.detach().clone().requires_grad_() for x in inputs]
    direction = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))

    (causal_with_sink(*inputs) * direction).sum().backward()
    q, kv, sinks = twins
    logits = torch.einsum("bshc,btc->bhst", q, kv)
    logits = logits.masked_fill(torch.ones(40, 40).triu(1).bool(), -torch.inf)
    with_sink = torch.cat((logits, sinks[None, :, None, None].expand(1, 3, 40, 1)), dim=-1)
    mixed = torch.einsum("bhst,btc->bshc", with_sink.softmax(-1)[..., :-1], kv)
    (mixed * direction).sum().backward()
    for ours, plain in zip(inputs, twins, strict=True):
        assert ours.grad is not None
        assert plain.grad is not None
        torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [1, 5, 16, 100])
@pytest.mark.parametrize("past", [0, 3, 15])
def test_window_equals_loops(window: int, past: int) -> None:
    q, kv, sinks = random_attention()
    expected = attention_with_sink(q[0], kv[0], sinks, window)[past:]
    near = kv[:, max(0, past - window + 1) :]
    part = window_part(q[:, past:], near, window)
    actual = softmax_with_sink([part], sinks)[0]
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_twins_are_one_function_until_the_first_entry_closes() -> None:
    compressed = randomized(DeepseekV4(REAL), seed=2)
    twin = DenseTwin(REAL)
    assert twin.config.layer_types == (REAL.layer_types[0], FULL, FULL, FULL)
    differences = twin.load_state_dict(compressed.state_dict(), strict=False)
    assert not differences.missing_keys
    assert all(".compressor." in name for name in differences.unexpected_keys)
    ids = random_ids(REAL.csa_ratio)
    ours, theirs = full_logits(compressed, ids), full_logits(twin, ids)
    assert relative_difference(ours[:-1], theirs[:-1]) < 1e-5
    assert relative_difference(ours[-1], theirs[-1]) > 1e-3
