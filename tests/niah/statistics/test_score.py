"""Score intervals of a share whose questions come in streams."""

from __future__ import annotations

from niah.statistics.score import share_ends, wilson_ends


def test_a_share_of_unlike_streams_is_known_less_well() -> None:
    """Two streams right throughout and two wrong throughout tell less than twenty questions."""
    low, high = share_ends((5, 5, 5, 5), (0, 0, 5, 5), 1.96)
    alone = wilson_ends(0.5, 20.0, 1.96)
    assert low < alone[0] - 0.02
    assert high > alone[1] + 0.02
    assert share_ends((1,) * 20, (0,) * 10 + (1,) * 10, 1.96) == alone
