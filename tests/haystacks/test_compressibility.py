"""The compression ratio orders texts as their names promise."""

import numpy as np
import pytest

from haystacks.compressibility import (
    PIECE_TOKENS,
    SAMPLE_PIECES,
    compression_ratio,
    context_ratio,
    sample,
)
from haystacks.corpora.registry import load_corpus
from haystacks.tokenizer import FastTokenizer


@pytest.mark.slow
def test_corpora_span_a_range_of_compressibility(tokenizer: FastTokenizer) -> None:
    names = ["noise", "kjv", "shuffled:kjv", "random-words", "random-tokens"]
    ratios = []
    for name in names:
        ids = load_corpus(name, tokenizer, min_tokens=1 << 15).read(0, 1 << 15)
        ratios.append(compression_ratio(tokenizer.decode(ids)))
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[0] > 20 * ratios[1]
    assert ratios[-1] < 0.7 * ratios[1]


def test_wide_ids_and_text_are_measured_too() -> None:
    assert compression_ratio("a" * 10_000) > 100
    assert compression_ratio([70_000] * 1000) > 100
    noise = np.random.default_rng(0).integers(0, 1 << 16, 10_000)
    assert 0.9 < compression_ratio(noise) <= 1.0


@pytest.mark.parametrize("nothing", ["", []])
def test_nothing_has_no_ratio(nothing: str | list[int]) -> None:
    with pytest.raises(ValueError, match="empty"):
        compression_ratio(nothing)


def test_a_short_contexts_ratio_is_that_of_its_text(tokenizer: FastTokenizer) -> None:
    ids = load_corpus("kjv", tokenizer).read(1000, 20_000)
    assert context_ratio(ids, tokenizer) == compression_ratio(tokenizer.decode(ids))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["noise", "kjv", "python", "random-words"])
def test_a_long_contexts_ratio_is_near_that_of_its_text(
    tokenizer: FastTokenizer, name: str
) -> None:
    ids = load_corpus(name, tokenizer, min_tokens=1 << 20).read(0, 1 << 20)
    whole = compression_ratio(tokenizer.decode(ids))
    assert context_ratio(ids, tokenizer) == pytest.approx(whole, rel=0.1)


def test_a_sample_is_bounded_and_reaches_from_end_to_end() -> None:
    most = SAMPLE_PIECES * PIECE_TOKENS
    (whole,) = sample(np.arange(most))
    assert len(whole) == most
    pieces = sample(np.arange(3 * most))
    assert [len(piece) for piece in pieces] == SAMPLE_PIECES * [PIECE_TOKENS]
    assert (pieces[0][0], pieces[-1][-1]) == (0, 3 * most - 1)
    steps = np.diff([piece[0] for piece in pieces])
    assert max(steps) - min(steps) <= 1
