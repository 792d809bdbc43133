"""Aggregation over lists scattered through the text: common and frequent words (RULER).

The lists belong to a key, so that several questions fit into one context.
"""

from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np

from haystacks.needles.base import (
    Fact,
    Family,
    TemplateSplit,
    ValueSplit,
    pick_named,
)
from haystacks.needles.values import distinct, two_words, word

# (list to plant, question, statement)
WORDINGS: dict[TemplateSplit, tuple[tuple[str, str, str], ...]] = {
    "trained": (
        (
            "A list of {key}: {words}.",
            "Which {count} words occur most often in the lists of {key}?",
            "The words that occur most often in the lists of {key} are",
        ),
        (
            "On this page {key} wrote: {words}.",
            "Which {count} words did {key} write most often?",
            "The words that {key} wrote most often are",
        ),
    ),
    "unseen": (
        (
            "Counted today by {key}: {words}.",
            "Which {count} things did {key} count most?",
            "The things that {key} counted most are",
        ),
    ),
}
COUNT_WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}


class Counting(Family):
    """Lists of words, the commonest of which are asked for; subclasses say how words repeat."""

    num_gold: int

    @property
    @abstractmethod
    def num_words(self) -> int:
        """How many different words the lists hold."""

    @abstractmethod
    def lists(self, rng: np.random.Generator, words: list[str]) -> list[list[str]]:
        """All `words` in lists; `num_gold` of them are more frequent than the others."""

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        (piece, ask, statement), name = pick_named(rng, WORDINGS, templates)
        key = two_words(rng, split)
        ask = f" {ask.format(key=key, count=COUNT_WORDS[self.num_gold])}"
        statement = f" {statement.format(key=key)}"
        lists = self.lists(rng, distinct(word, rng, split, self.num_words, unlike=ask + statement))
        ranking = by_count(lists)
        return Fact(
            family=self.name,
            key=key,
            pieces=tuple(f" {piece.format(key=key, words=', '.join(ws))}" for ws in lists),
            ask=ask,
            statement=statement,
            gold=tuple(ranking[: self.num_gold]),
            distractors=tuple(ranking[self.num_gold : 2 * self.num_gold]),
            answer_format="word",
            answer_mode="all in any order",
            template=name,
        )


def by_count(lists: list[list[str]]) -> list[str]:
    """The words of all lists, most frequent first; ties by name."""
    counts = Counter(chain.from_iterable(lists))
    return sorted(counts, key=lambda counted: (-counts[counted], counted))


def shuffled(rng: np.random.Generator, words: list[str]) -> list[str]:
    return [words[i] for i in rng.permutation(len(words))]


@dataclass(frozen=True)
class CommonWords(Counting):
    """Common words are in every list, every other word is in one list only."""

    num_gold: int = 3
    num_lists: int = 6
    others_per_list: int = 4

    name = "common_words"
    description = "six lists of words; the three that are in every list are asked for"

    @property
    def num_words(self) -> int:
        return self.num_gold + self.num_lists * self.others_per_list

    def lists(self, rng: np.random.Generator, words: list[str]) -> list[list[str]]:
        size = self.others_per_list
        common, others = words[: self.num_gold], words[self.num_gold :]
        starts = range(0, len(others), size)
        return [shuffled(rng, common + others[start : start + size]) for start in starts]


@dataclass(frozen=True)
class FrequentWords(Counting):
    """Counts fall as the power `alpha` of the rank; words are spread over the lists at random."""

    num_gold: int = 3
    num_lists: int = 6
    num_ranks: int = 12
    top_count: int = 16
    alpha: float = 1.0

    name = "frequent_words"
    description = "lists of words with Zipf counts; the three most frequent are asked for"

    def lists(self, rng: np.random.Generator, words: list[str]) -> list[list[str]]:
        bag = shuffled(
            rng, [w for w, n in zip(words, self.counts(), strict=True) for _ in range(n)]
        )
        return [bag[i :: self.num_lists] for i in range(self.num_lists)]

    @property
    def num_words(self) -> int:
        return self.num_ranks

    def counts(self) -> list[int]:
        """How often each rank occurs; the last gold word is more frequent than the next."""
        return [
            max(1, round(self.top_count / rank**self.alpha))
            for rank in range(1, 1 + self.num_ranks)
        ]
