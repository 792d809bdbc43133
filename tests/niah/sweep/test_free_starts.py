"""Free starts are those that a step-by-step search finds."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niah.sweep.free_starts import Obstacles, Span, free_start

MODULI = st.sampled_from((1, 4, 128))


def in_order(wanted: int, first: int, last: int, modulus: int, limit: int) -> Iterator[int]:
    """Every start within bounds of `wanted`'s residue, nearest first, the later one first."""
    low, high = max(first, wanted - limit), min(last, wanted + limit)
    fitting = [start for start in range(low, high + 1) if (start - wanted) % modulus == 0]
    inside = min(fitting, key=lambda start: abs(start - wanted), default=0)
    yield from sorted(fitting, key=lambda start: (abs(start - inside), -start))


def is_free(start: int, end: int, spans: list[Span], cuts: list[int]) -> bool:
    whole = all(end <= other or other_end <= start for other, other_end in spans)
    return whole and not any(start < cut < end for cut in cuts)


@st.composite
def disjoint(draw: st.DrawFn) -> list[Span]:
    ends = sorted(draw(st.sets(st.integers(0, 300), max_size=20)))
    return list(zip(ends[::2], ends[1::2], strict=False))


@given(
    disjoint(),
    disjoint(),
    st.lists(st.integers(0, 300), max_size=4),
    st.integers(1, 30),
    st.tuples(st.integers(-50, 350), st.integers(0, 99), st.integers(50, 300)),
    MODULI,
    st.sampled_from((5, 64, 1000)),
)
def test_the_free_start_is_the_one_that_a_search_step_by_step_finds(
    spans: list[Span],
    taken: list[Span],
    cuts: list[int],
    size: int,
    bounds: tuple[int, int, int],
    modulus: int,
    limit: int,
) -> None:
    wanted, first, last = bounds
    found = free_start(
        Obstacles((spans, taken), sorted(cuts)), size, wanted, first, last, modulus, limit
    )
    tried = in_order(wanted, first, last, modulus, limit)
    blocked = [*spans, *taken]
    expected = next((s for s in tried if is_free(s, s + size, blocked, cuts)), None)
    assert found == expected


@pytest.mark.parametrize(
    ("wanted", "start"), [(0, 0), (95, 90), (105, 120), (110, 120), (100, 90), (310, 300)]
)
def test_a_start_slides_past_what_is_taken(wanted: int, start: int) -> None:
    obstacles = Obstacles(([(100, 120)], []), [])
    assert free_start(obstacles, 10, wanted, 0, 300, 1, 1000) == start
