"""Attention by blocks against one softmax over everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.deepseek_v4 import blocked
from tests.models.naive import attention_with_sink


@given(
    heads=st.integers(1, 3),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    limit=st.sampled_from([1, 100, 2**19]),
    scale=st.sampled_from([0.1, 1.0, 40.0]),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_any_blocks_give_the_whole_softmax(
    heads: int, cuts: list[int], limit: int, scale: float, seed: int
) -> None:
    """`limit` makes blocks of 16 to 40; segments may be empty."""
    generator = torch.Generator().manual_seed(seed)
    q = scale * torch.randn(1, 40, heads, 8, generator=generator)
    kv = torch.randn(1, 40, 8, generator=generator)
    sinks = torch.randn(heads, generator=generator)
    bounds = sorted(cuts)
    *past, own = torch.tensor_split(kv, bounds, dim=1)
    start = bounds[-1] if bounds else 0
    if not own.shape[1]:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocked, "CPU_LIMIT", limit)
        found = blocked.attend(q[:, start:], past, own, sinks)
    expected = attention_with_sink(q[0], kv[0], sinks)[start:]
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)
