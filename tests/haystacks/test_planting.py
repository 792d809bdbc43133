"""Planting is exact: spans, order, length, edges; and refuses what cannot be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystacks.planting import Insertion, PlantError, Span, Stop, align, plant

HAYSTACK = np.arange(1000, 6000, dtype=np.uint16)
NEEDLE_ID = 7


@st.composite
def plantings(draw: st.DrawFn) -> tuple[int, list[Insertion]]:
    """A length and non-overlapping insertions in random order; adjacent ones and edges included."""
    insertions = []
    at = 0
    for _ in range(draw(st.integers(0, 6))):
        start = at + draw(st.integers(0, 40))
        ids = draw(st.lists(st.integers(0, 999), min_size=1, max_size=9))
        insertions.append(Insertion(start, ids))
        at = start + len(ids)
    return at + draw(st.integers(0, 40)), draw(st.permutations(insertions))


@given(plantings())
def test_every_needle_is_where_it_was_asked_to_be(case: tuple[int, list[Insertion]]) -> None:
    length, insertions = case
    planted = plant(HAYSTACK, length, insertions)
    assert planted.ids.shape == (length,)
    assert len(planted.spans) == len(insertions)
    for insertion, span in zip(insertions, planted.spans, strict=True):
        assert span == (insertion.start, insertion.start + len(insertion.ids))
        assert planted.ids[span.start : span.end].tolist() == list(insertion.ids)


@given(plantings())
def test_the_rest_is_the_haystack_from_its_start_in_order(
    case: tuple[int, list[Insertion]],
) -> None:
    length, insertions = case
    planted = plant(HAYSTACK, length, insertions)
    is_hay = np.ones(length, dtype=bool)
    for span in planted.spans:
        is_hay[span.start : span.end] = False
    rest = planted.ids[is_hay]
    assert rest.tolist() == HAYSTACK[: len(rest)].tolist()


@given(plantings())
def test_the_order_of_insertions_does_not_matter(case: tuple[int, list[Insertion]]) -> None:
    length, insertions = case
    one, other = plant(HAYSTACK, length, insertions), plant(HAYSTACK, length, insertions[::-1])
    assert one.ids.tolist() == other.ids.tolist()
    assert one.spans == other.spans[::-1]


@pytest.mark.parametrize("start", [0, 97])
def test_a_needle_may_be_first_or_last(start: int) -> None:
    planted = plant(HAYSTACK, 100, [Insertion(start, [NEEDLE_ID] * 3)])
    assert planted.spans == (Span(start, start + 3),)
    assert np.flatnonzero(planted.ids == NEEDLE_ID).tolist() == [start, start + 1, start + 2]


def test_the_haystack_may_be_exactly_used_up() -> None:
    planted = plant(HAYSTACK[:7], 10, [Insertion(2, [NEEDLE_ID] * 3)])
    assert planted.ids.tolist() == [1000, 1001, 7, 7, 7, 1002, 1003, 1004, 1005, 1006]


@pytest.mark.parametrize(
    ("length", "insertions", "message"),
    [
        (100, [Insertion(98, [1, 2, 3])], "98 to 101 leaves 0 to 100"),
        (100, [Insertion(-1, [1])], "-1 to 0 leaves 0 to 100"),
        (100, [Insertion(10, [1, 2, 3]), Insertion(12, [4])], "10 to 13 and 12 to 13 overlap"),
        (100, [Insertion(10, [1]), Insertion(10, [4])], "10 to 11 and 10 to 11 overlap"),
        (100, [Insertion(10, [])], "at 10 is empty"),
        (9000, [Insertion(10, [1, 2])], "8998 of the haystack, which has 5000"),
        (-1, [], "length -1"),
    ],
)
def test_what_cannot_be_planted_is_refused_with_its_numbers(
    length: int, insertions: list[Insertion], message: str
) -> None:
    with pytest.raises(PlantError, match=message):
        plant(HAYSTACK, length, insertions)


def test_the_haystack_is_not_written_to() -> None:
    before = HAYSTACK.copy()
    plant(HAYSTACK, 50, [Insertion(3, [NEEDLE_ID])]).ids[:] = 0
    assert (before == HAYSTACK).all()


@st.composite
def interrupted(draw: st.DrawFn) -> tuple[list[Stop], np.ndarray]:
    """Needles and cuts in random order, none across another, and where characters begin."""
    stops = []
    at = 0
    for _ in range(draw(st.integers(1, 7))):
        at += draw(st.integers(0, 12))
        size = draw(st.integers(0, 5))
        stops.append(Stop(at, size, draw(st.sampled_from([1, 1, 2, 4]))))
        at += size
    characters = draw(st.lists(st.integers(1, 3), min_size=1, max_size=12))
    pattern = [i == 0 for size in characters for i in range(size)] + [True]
    return draw(st.permutations(stops)), np.array(pattern * 60)


@given(interrupted())
def test_aligned_places_cut_no_character(case: tuple[list[Stop], np.ndarray]) -> None:
    stops, boundaries = case
    try:
        places = align(stops, boundaries)
    except PlantError:
        return
    order = sorted(range(len(stops)), key=lambda i: (stops[i].at, stops[i].size > 0))
    planted = end = 0
    for i in order:
        assert places[i] >= max(stops[i].at, end)
        assert (places[i] - stops[i].at) % stops[i].modulus == 0
        assert boundaries[places[i] - planted]
        earlier = range(max(stops[i].at, end), places[i])
        nearer = [p for p in earlier if (p - stops[i].at) % stops[i].modulus == 0]
        assert not any(boundaries[p - planted] for p in nearer)
        planted += stops[i].size
        end = places[i] + stops[i].size


@given(interrupted())
def test_where_every_token_begins_a_character_nothing_moves(
    case: tuple[list[Stop], np.ndarray],
) -> None:
    stops, boundaries = case
    assert align(stops, np.ones_like(boundaries)) == [stop.at for stop in stops]


def test_a_phase_in_which_no_character_begins_is_refused() -> None:
    boundaries = np.array([True, False] * 50)
    assert align([Stop(3, 5)], boundaries) == [4]
    with pytest.raises(PlantError, match="no character of the text begins at a token from 3 on"):
        align([Stop(3, 5, 2)], boundaries)
