"""RMSNorm and rotary embedding in one pass against torch's small operations."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("numba", reason="the kernels need numba")

from models import kernels
from models.layers import RMSNorm, Rotation, rms_normalize, rope_frequencies

SHAPES = [(1, 1, 64), (2, 37, 24), (1, 70, 2, 64), (2, 33, 3, 32)]


@pytest.mark.parametrize("shape", SHAPES)
def test_norms_are_torchs(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    norm = RMSNorm(shape[-1], 1e-3)
    torch.nn.init.normal_(norm.weight)

    @torch.no_grad()
    def both_kinds() -> list[torch.Tensor]:
        return [norm(x), rms_normalize(x, 1e-3), norm(x.transpose(0, 1)), norm(x[0, 0])]

    found = both_kinds()
    monkeypatch.setenv(kernels.SWITCH, "0")
    for ours, theirs in zip(found, both_kinds(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pairs", [1, 4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_rotations_are_torchs_to_the_bit(
    shape: tuple[int, ...], pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    turn = Rotation(torch.arange(100, 100 + shape[1]), rope_frequencies(2 * pairs, 1e4))
    apart = x.transpose(-1, -2).contiguous().transpose(-1, -2)  # as attention returns its mixes

    @torch.no_grad()
    def both_ways() -> list[torch.Tensor]:
        return [turn.apply(x), turn.undo(x), turn.apply(apart)]

    found = both_ways()
    monkeypatch.setenv(kernels.SWITCH, "0")
    for ours, theirs in zip(found, both_ways(), strict=True):
        assert torch.equal(ours, theirs)


def test_gradients_take_torchs_way() -> None:
    x = torch.randn(1, 3, 8, requires_grad=True)
    turn = Rotation(torch.arange(3), rope_frequencies(4, 1e4))
    turn.apply(RMSNorm(8, 1e-6)(x)).sum().backward()
    assert x.grad is not None
