"""Published figures agree with the computed ones; a wrong layout or figure is found."""

from __future__ import annotations

import pytest

from models.costs import claims, layouts
from models.costs.claims import CLAIMS, SOURCES, Claim, check
from models.costs.layouts import Layout


def test_every_published_figure_holds() -> None:
    checked = check(CLAIMS)
    assert [found.claim.what for found in checked if not found.holds] == []
    assert {claim.source for claim in CLAIMS} == set(SOURCES)


def test_the_figures_of_the_report_are_there() -> None:
    """10% and 27%, 7% and 10%, 9.5 and 13.7, 3.7 and 9.8 times, 2% of GQA8; vLLM's and V4.1's."""
    printed = [(claim.printed, claim.unit) for claim in CLAIMS if claim.source in "abcf"]
    assert printed == [
        (10, "%"), (7, "%"), (9.5, "×"), (13.7, "×"), (27, "%"), (10, "%"), (3.7, "×"), (9.8, "×"),
        (2, "%"), (9.62, ""), (83.9, ""), (8.7, "×"), (890, ""), (3514, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "beyond"),
    [(9.55, 0.0), (9.45, 0.0), (9.73, 0.18 / 9.5), (9.27, 0.18 / 9.5), (9.75, 0.2 / 9.5)],
)
def test_rounding_is_no_deviation(value: float, beyond: float) -> None:
    (found,) = check([Claim("smaller", 9.5, 1, "×", lambda: value, "a")])
    assert found.off == pytest.approx(value / 9.5 - 1)
    assert found.beyond == pytest.approx(beyond, abs=1e-12)
    assert found.holds == (beyond < 0.02)


def test_entries_counted_short_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of 512 bytes, scales and rotary channels' second byte forgotten."""
    v4 = layouts.LAYOUTS["v4"]
    short = Layout("short", lambda s: 512 if s.role == "latent" else v4.row_bytes(s))
    monkeypatch.setitem(layouts.LAYOUTS, "v4", short)
    wrong = [found.claim.what for found in check(CLAIMS) if not found.holds]
    assert "V4-Pro, cache smaller" in wrong
    assert "V4-Flash, B/token" in wrong
    assert "V4-Pro at 1M, GiB" not in wrong


def test_the_weighting_is_said_to_be_reconstructed() -> None:
    assert "reconstructed" in claims.FLOPS_CAVEAT
    assert "not documented by DeepSeek" in claims.FLOPS_CAVEAT
