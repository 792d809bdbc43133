"""A compressor's entries in one pass against torch's small operations."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("numba", reason="the kernels need numba")

from models import kernels
from models.deepseek_v4.compressor import Compressor
from models.layers import rope_frequencies

HIDDEN, WIDTH = 24, 20
TOLERANCE = 1e-5


def compressor(ratio: int, overlap: bool) -> Compressor:
    torch.manual_seed(ratio)
    made = Compressor(HIDDEN, WIDTH, ratio, overlap=overlap, eps=1e-6)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=2.0)  # gates far apart: some weights vanish
    return made


@torch.no_grad()
def entries(made: Compressor, x: torch.Tensor, *ends: int) -> list[torch.Tensor]:
    """Of tokens read in pieces that end at `ends`: entries, then what is kept for the next."""
    tail, found, start = None, [], 0
    frequencies = rope_frequencies(8, 10000.0)
    for end in (*ends, x.shape[1]):
        piece = x[:, start:end]
        new, tail = made.compress(piece, torch.arange(start, end), tail, frequencies)
        found.append(new)
        start = end
    assert tail is not None
    return [torch.cat(found, dim=1), *tail]


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("ratio", [1, 4, 16])
@pytest.mark.parametrize("size", [3, 64, 150])
def test_equals_torch(
    size: int, ratio: int, overlap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compressor(ratio, overlap)
    x = torch.randn(2, size, HIDDEN)
    found = entries(made, x)
    monkeypatch.setenv(kernels.SWITCH, "0")
    for ours, theirs in zip(found, entries(made, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("ends", [(64,), (1, 2, 70), (63, 65, 66, 120), (5, 128)])
def test_pieces_and_threads_change_nothing(ends: tuple[int, ...], overlap: bool) -> None:
    made, x = compressor(4, overlap), torch.randn(1, 400, HIDDEN)
    whole = entries(made, x)
    torch.set_num_threads(2)
    try:
        together = entries(made, x, *ends)
    finally:
        torch.set_num_threads(1)
    for ours, theirs in zip(together, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)
