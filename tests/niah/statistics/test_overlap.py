"""How much of their text streams have in common."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niah.statistics.overlap import overlap_text, shared_share

PLACES = st.tuples(st.integers(0, 60), st.integers(1, 40))


@given(st.lists(PLACES, min_size=1, max_size=8))
def test_the_share_is_that_of_tokens_counted_one_by_one(places: list[tuple[int, int]]) -> None:
    spans = [range(start, start + length) for start, length in places]
    shares = []
    for number, span in enumerate(spans):
        others = set().union(*spans[:number], *spans[number + 1 :])
        shares.append(len(others.intersection(span)) / len(span))
    starts, lengths = np.array(places).T
    assert shared_share(starts, starts + lengths) == pytest.approx(np.mean(shares))


def test_a_little_is_not_told() -> None:
    starts = np.array([0, 90, 300])
    assert overlap_text("kjv", starts, starts + 100) == ""
    assert overlap_text("kjv", starts, starts + 150).startswith(
        "Streams of kjv share text: on average 27% of a stream"
    )
