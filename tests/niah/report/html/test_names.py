"""What a page says of an arm behind a server: the evidence of its cache, and requests at once."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from niah.report.html.names import served_text

NAN = math.nan


@pytest.mark.parametrize(
    ("cached", "flight", "failed", "text"),
    [
        ([0, 0], [1, 1], [False, False], "0 of 2,000 prompt tokens came from the server's cache"),
        (
            [900, 950],
            [3, 4],
            [False, False],
            "1,850 of 2,000 prompt tokens came from the server's cache; up to 4 requests at once",
        ),
        (
            [900, NAN],
            [1, NAN],
            [False, False],
            "900 of 1,000 prompt tokens came from the server's cache, not known for 1 answer",
        ),
        ([NAN, NAN], [NAN, NAN], [False, False], "the server did not say what its cache gave"),
        (
            [5, NAN],
            [1, NAN],
            [False, True],
            "5 of 1,000 prompt tokens came from the server's cache",
        ),
        ([NAN, NAN], [NAN, NAN], [True, True], ""),
    ],
)
def test_a_servers_evidence_is_told(
    cached: list[float], flight: list[float], failed: list[bool], text: str
) -> None:
    rows = pd.DataFrame(
        {
            "model": "openai:m",
            "length": 1000,
            "cached_tokens": cached,
            "requests_in_flight": flight,
            "failed": failed,
        }
    )
    assert served_text(rows) == text
    assert served_text(rows.assign(model="nano-v4")) == ""
