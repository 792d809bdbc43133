"""Packing questions into streams: positions, shares, cuts, phases."""

from itertools import pairwise

import pytest
from hypothesis import given

from niah.sweep.stream_packing import Item, max_slide, pack
from tests.niah.strategies import grids, shares


def spans_of(items: list[Item], placed: dict[int, tuple[int, ...]]) -> list[tuple[int, int, int]]:
    """(start, end, item index) of every piece in a stream, in order."""
    return sorted(
        (start, start + size, index)
        for index, starts in placed.items()
        for start, size in zip(starts, items[index].sizes, strict=True)
    )


@given(grids, shares)
def test_every_question_is_placed_once(items: list[Item], max_share: float) -> None:
    streams = pack(items, max_share)
    assert sorted(index for placed in streams for index in placed) == list(range(len(items)))


@given(grids, shares)
def test_needles_never_overlap_and_no_cut_goes_through_one(
    items: list[Item], max_share: float
) -> None:
    for placed in pack(items, max_share):
        spans = spans_of(items, placed)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        for index in placed:
            cut = items[index].cut
            assert not any(start < cut < end for start, end, _ in spans)
            assert all(start >= 0 and end <= cut for start, end, owner in spans if owner == index)


@given(grids, shares)
def test_needles_before_any_cut_keep_to_their_share(items: list[Item], max_share: float) -> None:
    for placed in pack(items, max_share):
        spans = spans_of(items, placed)
        for index in placed:
            cut = items[index].cut
            before = [(end - start, owner) for start, end, owner in spans if start < cut]
            if len({owner for _, owner in before}) > 1:
                assert sum(tokens for tokens, _ in before) <= max_share * cut


@given(grids, shares)
def test_pieces_keep_their_order_and_phase(items: list[Item], max_share: float) -> None:
    for placed in pack(items, max_share):
        for index, starts in placed.items():
            item = items[index]
            ordered = starts[: item.num_ordered]
            assert list(ordered) == sorted(ordered)
            wanted = item.wanted[: item.num_ordered]
            pairs = zip(ordered, wanted, strict=True)
            assert all((start - want) % item.modulus == 0 for start, want in pairs)


@given(grids, shares)
def test_no_stream_holds_a_claim_twice(items: list[Item], max_share: float) -> None:
    for placed in pack(items, max_share):
        claims = [claim for index in placed for claim in items[index].claims]
        assert len(claims) == len(set(claims))


@given(grids, shares)
def test_only_an_item_alone_moves_far_from_where_it_was_wanted(
    items: list[Item], max_share: float
) -> None:
    for placed in pack(items, max_share):
        for index in list(placed)[1:]:
            item = items[index]
            ordered = zip(placed[index], item.wanted[: item.num_ordered], strict=False)
            assert all(abs(start - wanted) <= max_slide(item) for start, wanted in ordered)


@given(grids, shares)
def test_the_rest_keeps_its_order_where_it_has_one(items: list[Item], max_share: float) -> None:
    for placed in pack(items, max_share):
        for index, starts in placed.items():
            rest = starts[items[index].num_ordered :]
            assert not items[index].rest_in_order or list(rest) == sorted(rest)


def test_a_free_start_is_taken_as_wanted() -> None:
    items = [Item(1000, 980, (20,), (want,), 1) for want in (0, 100, 960)]
    assert pack(items, 0.1) == [{0: (0,), 1: (100,), 2: (960,)}]


def test_a_taken_start_slides_to_the_nearest_free_one() -> None:
    items = [Item(1000, 980, (20,), (100,), 1), Item(1000, 980, (20,), (105,), 1)]
    assert pack(items, 0.1) == [{0: (100,), 1: (120,)}]


@pytest.mark.parametrize(("modulus", "streams"), [(1, 1), (4, 1), (128, 2)])
def test_a_taken_start_of_a_long_modulus_is_left_to_another_stream(
    modulus: int, streams: int
) -> None:
    items = [Item(1000, 980, (20,), (500,), 1, modulus)] * 2
    assert len(pack(items, 0.1)) == streams


def test_the_end_of_a_stream_taken_by_others_is_no_reason_to_stand_elsewhere() -> None:
    """Six needles wanted at the end: a slide is counted from there, not from the last free one."""
    streams = pack([Item(1000, 980, (20,), (960,), 1)] * 6, 0.5)
    assert [len(placed) for placed in streams] == [4, 2]


def test_a_question_that_would_exceed_the_share_gets_a_stream_of_its_own() -> None:
    items = [Item(1000, 980, (20,), (want,), 1) for want in (0, 500)]
    assert len(pack(items, 0.03)) == 2
    assert len(pack(items, 0.05)) == 1


def test_what_does_not_fit_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="70 needle tokens in a context of 60"):
        pack([Item(80, 60, (70,), (0,), 1)], 0.02)


def test_an_early_piece_leaves_a_later_one_room_for_its_phase() -> None:
    item = Item(length=120, cut=112, sizes=(2, 14), wanted=(94, 99), num_ordered=2, modulus=4)
    assert pack([item], 0.5) == [{0: (90, 95)}]
