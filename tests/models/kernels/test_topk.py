"""The streaming top-k against `select` over all scores: the same entries, ties included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("numba", reason="the kernels need numba")

from models.deepseek_v4.cache import Rows
from models.deepseek_v4.indexer import Indexer, select
from models.kernels import topk
from models.kernels.selection import FEW_QUERIES, Candidates, best_entries
from models.number_formats import RotatedFp4

T = topk.TILE


@pytest.fixture(autouse=True)
def no_grad() -> object:
    with torch.no_grad():
        yield


def drawn(
    num_queries: int, n: int, *, heads: int = 4, dim: int = 32, whole: bool = False, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, head weights and keys; `whole` numbers score exactly, and tie often."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (2, num_queries, heads, dim), (2, num_queries, heads), (2, n, dim)
    q, w, keys = (torch.randn(shape, generator=generator) for shape in shapes)
    if whole:
        q, w, keys = (t.round().clamp(-1, 1) for t in (q, w, keys))
    return q, w, keys


def ascending(num_queries: int, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    visible = torch.randint(0, n + 1, (num_queries,), generator=generator).sort().values
    visible[-1] = n
    return visible


def cut(keys: Tensor, *bounds: int) -> tuple[Tensor, ...]:
    return tuple(torch.tensor_split(keys, bounds, dim=1))


def assert_as_selected(
    q: Tensor, w: Tensor, segments: tuple[Tensor, ...], visible: Tensor, k: int
) -> None:
    keys = torch.cat(segments, dim=1)[:, : int(visible[-1])]
    expected, valid = select(Indexer.score(q, w, keys), visible, k)
    chosen, real = best_entries(q, w, segments, visible, k)
    assert chosen.shape == expected.shape
    assert torch.equal(real, valid)
    assert torch.equal(chosen[real], expected[valid])
    assert bool((chosen.diff(dim=-1) > 0).all())


COUNTS = [1, 3, FEW_QUERIES - 1, FEW_QUERIES, 150]


@pytest.mark.parametrize("whole", [False, True], ids=["random", "many ties"])
@pytest.mark.parametrize("num_queries", COUNTS)
@pytest.mark.parametrize("n", [1, T - 1, T, T + 1, 1500])
@pytest.mark.parametrize("k", [1, 64, 2000])
def test_the_same_entries(num_queries: int, n: int, k: int, whole: bool) -> None:
    q, w, keys = drawn(num_queries, n, whole=whole)
    assert_as_selected(q, w, (keys,), ascending(num_queries, n), k)


@pytest.mark.parametrize(("heads", "dim"), [(1, 8), (4, 16), (5, 7), (16, 16), (24, 32), (64, 128)])
def test_any_width_and_number_of_heads(heads: int, dim: int) -> None:
    q, w, keys = drawn(80, 500, heads=heads, dim=dim)
    assert_as_selected(q, w, (keys,), ascending(80, 500), 20)


@pytest.mark.parametrize("whole", [False, True], ids=["random", "many ties"])
@pytest.mark.parametrize("bounds", [(1,), (T,), (T + 1, T + 3), (300, 300, 301, 777)])
@pytest.mark.parametrize("num_queries", [1, 90])
def test_keys_of_several_segments(num_queries: int, bounds: tuple[int, ...], whole: bool) -> None:
    q, w, keys = drawn(num_queries, 900, whole=whole)
    assert_as_selected(q, w, cut(keys, *bounds), ascending(num_queries, 900), 30)


@pytest.mark.parametrize("dim", [2, 16, 32, 64, 128])
@pytest.mark.parametrize("num_queries", [1, 90])
def test_fp4_keys_are_scored_as_they_decode(num_queries: int, dim: int) -> None:
    """Every score is the same, bit for bit: with k = n, the order of ties would show."""
    form = RotatedFp4.of(dim)
    q, w, keys = drawn(num_queries, 900, dim=dim)
    keys = 10 * keys**3
    keys[:, 200:260] = 0.0
    stored = form.encode(keys)
    visible = ascending(num_queries, 900)
    for bounds in ((900,), (T + 1, T + 3, 700)):
        pieces, decoded = cut(stored, *bounds), cut(form.decode(stored), *bounds)
        for k in (1, 64, 300):
            packed, plain = (best_entries(q, w, rows, visible, k) for rows in (pieces, decoded))
            assert torch.equal(packed[0], plain[0])
            assert torch.equal(packed[1], plain[1])


def test_scores_of_fp4_keys_are_those_of_their_numbers() -> None:
    form = RotatedFp4.of(32)
    q, w, keys = (t[:1].numpy() for t in drawn(3, 150))
    stored = form.encode(torch.from_numpy(keys))
    sides = stored[0].numpy(), form.decode(stored)[0].numpy()
    found = [Candidates.none((3,), 150) for _ in sides]
    for rows, candidates in zip(sides, found, strict=True):
        topk.scan(q[0], w[0], np.full(3, 150), *candidates, rows, 0, 150)
    assert np.array_equal(found[0].scores[:, :150], found[1].scores[:, :150])


@pytest.mark.parametrize("count", [1, 5, 8, 13, 20])
def test_rows_give_fp4_keys_as_they_are_stored(count: int) -> None:
    form = RotatedFp4.of(32)
    table = Rows(format=form)
    keys = drawn(1, 20)[2][:1]
    for start, stop in ((0, 5), (5, 8), (8, 20)):
        table.append(keys[:, start:stop])
        table = table.fork()
    found = table.scored(count)
    assert torch.equal(torch.cat(found, dim=1), form.encode(keys[:, :count]))
    assert all(rows.shape[1] for rows in found)
    plain = Rows()
    plain.append(keys)
    assert torch.equal(torch.cat(plain.scored(count), dim=1), keys[:, :count])


@pytest.mark.parametrize("num_queries", [1, 7, 130])
def test_threads_change_nothing(num_queries: int) -> None:
    q, w, keys = drawn(num_queries, 9000, whole=True)
    visible = ascending(num_queries, 9000)
    alone = best_entries(q, w, cut(keys, 4000), visible, 64)
    torch.set_num_threads(3)
    try:
        together = best_entries(q, w, cut(keys, 4000), visible, 64)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(alone[0], together[0])
    assert torch.equal(alone[1], together[1])


@pytest.mark.parametrize("k", [1, 5, 64])
def test_scores_that_only_rise_replace_every_candidate(k: int) -> None:
    keys = torch.arange(1.0, 2001.0)[None, :, None].expand(1, -1, 4)
    q, w = torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1)
    chosen, _ = best_entries(q, w, (keys,), torch.tensor([1999, 2000]), k)
    assert chosen[0, 0].tolist() == list(range(1999 - k, 1999))
    assert chosen[0, 1].tolist() == list(range(2000 - k, 2000))


@pytest.mark.parametrize("k", [1, 20, 64])
def test_scores_of_any_magnitude(k: int) -> None:
    """From the smallest number to 1e38, of both signs, a third of them equal."""
    exponents = torch.linspace(-45, 38, 1500)[torch.randperm(1500)]
    keys = 10.0**exponents
    keys[::3] = 1.0
    q = torch.tensor([1.0, -1.0]).repeat(40)[None, :, None, None]
    w = q[..., 0]  # the second kind of query scores 0 everywhere
    w[:, 2::4] = -1.0
    assert_as_selected(q, w, (keys[None, :, None],), ascending(80, 1500), k)


def test_equal_scores_leave_the_first_entries() -> None:
    q, w, keys = torch.zeros(1, 100, 4, 8), torch.ones(1, 100, 4), torch.randn(1, 3000, 8)
    chosen, real = best_entries(q, w, (keys,), torch.full((100,), 3000), 70)
    assert torch.equal(chosen, torch.arange(70).expand(1, 100, 70))
    assert bool(real.all())
