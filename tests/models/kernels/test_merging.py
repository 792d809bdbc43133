"""One softmax out of two and a sink, in one pass, against torch's small operations."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("numba", reason="the kernels need numba")

from models import kernels
from models.deepseek_v4.fused import Mixed, merge, nothing

HEADS, WIDTH = 3, 20


def attended(batch: int, size: int, keys: int) -> Mixed:
    """Over random keys; the log total is that of logits far apart."""
    output = torch.randn(batch, size, HEADS, WIDTH).transpose(1, 2)
    return Mixed(output, 20 * torch.randn(batch, HEADS, size) + keys)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1), (2, 70), (1, 1100)])
@pytest.mark.parametrize("num_parts", [1, 2, 3])
@torch.no_grad()
def test_equals_torch(
    shape: tuple[int, int], num_parts: int, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    parts, sinks = [attended(*shape, n) for n in range(num_parts)], torch.randn(HEADS)
    torch.set_num_threads(num_threads)
    try:
        found = merge(parts, sinks)
    finally:
        torch.set_num_threads(1)
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert found.shape == (*shape, HEADS, WIDTH)
    torch.testing.assert_close(found, merge(parts, sinks), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_queries_that_find_nothing_take_the_other_part() -> None:
    near, sinks = attended(1, 40, 0), torch.full((HEADS,), -torch.inf)
    empty = nothing(torch.zeros(1, 40, HEADS, WIDTH))
    assert torch.equal(merge([near, empty], sinks), near.output.transpose(1, 2))
    assert torch.equal(merge([near], sinks), near.output.transpose(1, 2))


@torch.no_grad()
def test_a_nan_stays() -> None:
    for broken in range(2):
        parts = [attended(1, 5, 0), attended(1, 5, 0)]
        parts[broken].log_total[0, 1, 3] = torch.nan
        found = merge(parts, torch.zeros(HEADS))
        assert bool(found[0, 3, 1].isnan().all())
        assert int(found.isnan().sum()) == WIDTH
