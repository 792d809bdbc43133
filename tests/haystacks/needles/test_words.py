"""Word splits are disjoint, simple, and large enough for every key that a run may want."""

from itertools import combinations

import pytest

from haystacks.needles.words import Split, adjectives, nouns

SPLITS: tuple[Split, ...] = ("train", "eval", "filler")


def test_no_word_is_in_two_splits_in_whatever_list() -> None:
    words = {split: {*adjectives(split), *nouns(split)} for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert words[one].isdisjoint(words[other])


@pytest.mark.parametrize("split", SPLITS)
def test_words_are_simple_and_unique(split: Split) -> None:
    for words in (adjectives(split), nouns(split)):
        assert len(words) == len(set(words))
        assert all(w.isascii() and w.isalpha() and w.islower() and 3 <= len(w) <= 9 for w in words)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_there_are_enough_keys(split: Split) -> None:
    assert len(adjectives(split)) * len(nouns(split)) > 400_000
