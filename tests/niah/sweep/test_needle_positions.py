"""Where pieces are wanted: at their depth, of their phase, in order, inside the context."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niah.sweep.needle_positions import aim, latest_starts

moduli = st.sampled_from((1, 4, 128))
sizes_of_pieces = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(moduli, st.data(), st.floats(0, 1), st.integers(1024, 5000), sizes_of_pieces)
def test_starts_have_their_residue_and_keep_to_order_and_context(
    modulus: int, data: st.DataObject, depth: float, cut: int, sizes: list[int]
) -> None:
    residue = data.draw(st.integers(0, modulus - 1))
    starts = aim(depth, cut, sizes, 0.1, modulus, residue)
    assert all(start % modulus == residue for start in starts)
    assert starts[0] >= 0
    assert starts[-1] + sizes[-1] <= cut
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


@pytest.mark.parametrize("modulus", [1, 4, 128])
@pytest.mark.parametrize("depth", [0.1, 0.5, 0.9])
def test_every_residue_has_its_nearest_start(modulus: int, depth: float) -> None:
    for residue in range(modulus):
        (start,) = aim(depth, 1500, [20], 0.1, modulus, residue)
        assert abs(start - depth * 1500) <= modulus / 2


@given(st.floats(0, 1), st.integers(1024, 5000), sizes_of_pieces, st.floats(0, 1))
def test_the_first_piece_stands_at_its_depth_wherever_all_fit(
    depth: float, cut: int, sizes: list[int], spread: float
) -> None:
    starts = aim(depth, cut, sizes, spread, 1, 0)
    assert starts[0] == min(round(depth * cut), cut - sum(sizes))


def test_pieces_are_spread_evenly_behind_the_first() -> None:
    starts = aim(0.2, 10_000, [20, 20, 20, 20], 0.1, 1, 0)
    assert starts == (2000, 2327, 2653, 2980)
    assert starts[-1] + 20 == 2000 + 1000


def test_the_spread_shrinks_to_what_is_left() -> None:
    starts = aim(0.95, 10_000, [20, 20, 20], 0.1, 1, 0)
    assert starts == (9500, 9740, 9980)
    assert aim(1.0, 10_000, [20, 20, 20], 0.1, 1, 0) == (9940, 9960, 9980)


def test_latest_starts_leave_room_for_the_phases_behind() -> None:
    latest = latest_starts(1000, [10, 10, 10], 128, 5)
    assert latest == [645, 773, 901]
    assert {b - a for a, b in pairwise(latest)} == {128}
