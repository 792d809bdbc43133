"""The adapter on tiny random models of transformers' architectures; the table is `SERVED`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")

from models.transformers_models.held import CACHE_KINDS
from tests.models.architectures import REFUSED, SERVED, STEPWISE, Architecture, examine, load

QUICK = ("llama", "gemma3n_text", "deepseek_v3", "deepseek_v4", "qwen3_next", "lfm2", "bamba")


def cases(architectures: list[Architecture]) -> list[object]:
    """One of each kind of cache is quick, the others are slow."""
    return [
        pytest.param(
            architecture,
            id=architecture.label,
            marks=() if architecture.model_type in QUICK else pytest.mark.slow,
        )
        for architecture in architectures
    ]


@pytest.mark.parametrize("architecture", cases(SERVED))
def test_served(architecture: Architecture) -> None:
    """Split = whole, fork = whole, bytes = bytes reachable, and the answers of `generate`."""
    weights = load(architecture)
    assert weights.fault is None
    assert not weights.network.stepwise
    check(architecture, weights)


@pytest.mark.parametrize("architecture", STEPWISE, ids=lambda a: a.label)
def test_served_token_by_token(architecture: Architecture) -> None:
    weights = load(architecture)
    assert weights.fault is None
    assert weights.network.stepwise
    check(architecture, weights)


def check(architecture: Architecture, weights: object) -> None:
    result = examine(weights)  # type: ignore[arg-type]
    assert result.cached < 1e-3
    assert result.split < 1e-3
    assert result.forked < 1e-3
    assert set(result.held) <= set(CACHE_KINDS)
    assert sum(result.held.values()) == result.reachable > 0
    assert result.generated == result.expected
    assert result.forks == "share"


@pytest.mark.parametrize("architecture", REFUSED, ids=lambda a: a.label)
def test_refused(architecture: Architecture) -> None:
    """Those that keep their text elsewhere, or let tokens see later ones."""
    fault = load(architecture).fault
    assert fault is not None
    assert fault.startswith(
        ("gives other answers when a text is read in pieces", "cannot read a short text in pieces")
    )
    assert "\n" not in fault


def test_there_are_enough() -> None:
    assert len({architecture.model_type for architecture in SERVED}) >= 80


def test_the_docs_name_them_all() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    for architecture in (*SERVED, *STEPWISE, *REFUSED):
        assert f"\n| {architecture.label} |" in page
