"""Hyper-connections in one pass against torch's small operations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("numba", reason="the kernels need numba")

from models import kernels
from models.deepseek_v4.mhc import HyperConnection
from models.kernels.mhc import LANES
from tests.models.small import REAL, randomize

TOLERANCE = 1e-5


@pytest.mark.parametrize("num_streams", [2, 3, 4])
@pytest.mark.parametrize("iterations", [1, 2, 20])
@pytest.mark.parametrize("shape", [(1, 1), (1, LANES - 1), (2, LANES), (1, 2 * LANES + 3), (3, 90)])
def test_equals_torch(
    num_streams: int, iterations: int, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(REAL, hc_mult=num_streams, hc_sinkhorn_iters=iterations)
    connection = HyperConnection(config)
    randomize(connection, config, seed=iterations)
    generator = torch.Generator().manual_seed(0)
    streams = 3 * torch.randn(*shape, num_streams, config.hidden_size, generator=generator)
    output = torch.randn(*shape, config.hidden_size, generator=generator)

    @torch.no_grad()
    def both_ways() -> list[torch.Tensor]:
        x, post, mix = connection(streams)
        return [x, post, mix, connection.spread(output, streams.clone(), post, mix)]

    found = both_ways()
    monkeypatch.setenv(kernels.SWITCH, "0")
    for ours, theirs in zip(found, both_ways(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def test_streams_that_are_one_embedding_repeated() -> None:
    """The first layer's streams share memory: a view that the kernel has to lay out itself."""
    connection = HyperConnection(REAL)
    randomize(connection, REAL, seed=1)
    streams = torch.randn(1, 20, 1, REAL.hidden_size).expand(-1, -1, REAL.hc_mult, -1)
    with torch.no_grad():
        found, laid_out = connection(streams), connection(streams.contiguous())
    assert all(torch.equal(a, b) for a, b in zip(found, laid_out, strict=True))


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    connection = HyperConnection(REAL)
    randomize(connection, REAL, seed=2)
    streams = torch.randn(1, 40, REAL.hc_mult, REAL.hidden_size)
    with torch.no_grad():
        whole, alone = connection(streams), connection(streams[:, 17:18])
    for a, b in zip(whole, alone, strict=True):
        torch.testing.assert_close(a[:, 17:18], b, rtol=1e-6, atol=1e-6)
