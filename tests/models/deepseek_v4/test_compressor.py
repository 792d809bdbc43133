"""The one compressor against loops, whole and in every split."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.deepseek_v4.compressor import Compressor, Tail, visible_entries
from models.layers import rope_frequencies
from tests.models.naive import compressed_entries

FREQUENCIES = rope_frequencies(4, 1e4)


def random_compressor(ratio: int, overlap: bool) -> Compressor:
    torch.manual_seed(0)
    compressor = Compressor(12, 6, ratio, overlap=overlap, eps=1e-6)
    with torch.no_grad():
        compressor.position_bias.normal_()
        compressor.kv_norm.weight.normal_()
    return compressor


@torch.no_grad()
def compress(compressor: Compressor, x: Tensor, sizes: list[int]) -> tuple[Tensor, Tail | None]:
    tail, entries, at = None, [], 0
    for size in (*sizes, len(x) - sum(sizes)):
        piece = x[None, at : at + size]
        new, tail = compressor.compress(piece, torch.arange(at, at + size), tail, FREQUENCIES)
        entries.append(new[0])
        at += size
    return torch.cat(entries), tail


@pytest.mark.parametrize(("ratio", "overlap"), [(4, True), (3, True), (7, False), (1, False)])
def test_entries_equal_loops(ratio: int, overlap: bool) -> None:
    compressor = random_compressor(ratio, overlap)
    x = torch.randn(4 * ratio + ratio - 1, 12)
    with torch.no_grad():
        bias = compressor.position_bias[torch.arange(len(x)) % ratio]
        gates = compressor.gate_proj(x) + bias
        values = compressor.kv_proj(x)
        expected = compressed_entries(
            values, gates, ratio, overlap, compressor.kv_norm, FREQUENCIES
        )
    entries, _ = compress(compressor, x, [])
    torch.testing.assert_close(entries, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("ratio", "overlap"), [(4, True), (7, False)])
def test_every_split_gives_the_same_entries_and_tail(ratio: int, overlap: bool) -> None:
    compressor = random_compressor(ratio, overlap)
    x = torch.randn(3 * ratio + 2, 12)
    whole, whole_tail = compress(compressor, x, [])
    assert whole_tail is not None
    for split in range(1, len(x)):
        entries, tail = compress(compressor, x, [split])
        torch.testing.assert_close(entries, whole, rtol=1e-5, atol=1e-6)
        assert tail is not None
        for ours, theirs in zip(tail, whole_tail, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_an_entry_is_visible_from_the_last_token_of_its_window() -> None:
    assert visible_entries(torch.arange(9), 4).tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]
