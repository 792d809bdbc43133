"""Causal top-k against a plain sort, ties included: the earlier of two equals wins."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.deepseek_v4.indexer import select
from tests.models.naive import top_k


@st.composite
def scores_and_visible(draw: st.DrawFn) -> tuple[list[list[float]], list[int], int]:
    """Scores from few values, so that ties are the rule; zeros of both signs among them."""
    n = draw(st.integers(1, 12))
    value = st.sampled_from([-1.5, -0.0, 0.0, 0.25, 0.25, 3.0, -1e30])
    rows = draw(st.lists(st.lists(value, min_size=n, max_size=n), min_size=1, max_size=4))
    visible = draw(st.lists(st.integers(0, n), min_size=len(rows), max_size=len(rows)))
    return rows, visible, draw(st.integers(1, n + 2))


@given(scores_and_visible())
@settings(max_examples=300, deadline=None)
def test_select_equals_a_plain_sort(case: tuple[list[list[float]], list[int], int]) -> None:
    rows, visible, k = case
    indices, real = select(torch.tensor([rows]), torch.tensor(visible), k)
    assert indices.shape == (1, len(rows), min(k, len(rows[0])))
    for row, seen, picks, valid in zip(rows, visible, indices[0], real[0], strict=True):
        assert picks[valid].tolist() == top_k(row, seen, k)
        assert picks.tolist() == sorted(set(picks.tolist()))


@given(scores_and_visible(), st.data())
@settings(max_examples=100, deadline=None)
def test_any_split_of_the_queries_selects_the_same(
    case: tuple[list[list[float]], list[int], int], data: st.DataObject
) -> None:
    rows, visible, k = case
    at = data.draw(st.integers(0, len(rows)))
    scores, seen = torch.tensor([rows]), torch.tensor(visible)
    whole, valid = select(scores, seen, k)
    for piece in (slice(0, at), slice(at, None)):
        if len(seen[piece]):
            part, part_valid = select(scores[:, piece], seen[piece], k)
            assert torch.equal(part, whole[:, piece])
            assert torch.equal(part_valid, valid[:, piece])
