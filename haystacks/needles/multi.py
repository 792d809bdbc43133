"""Several sentences around one question: similar keys, several values, several keys (RULER)."""

from dataclasses import dataclass

import numpy as np

from haystacks.needles.base import (
    Fact,
    Family,
    TemplateSplit,
    ValueSplit,
    pick,
    pick_distinct,
    pick_named,
)
from haystacks.needles.templates import TEMPLATES, Template
from haystacks.needles.values import distinct, number, two_words
from haystacks.needles.words import adjectives, nouns

NOUN = "code"
VALUES_OF_ONE_KEY: dict[TemplateSplit, tuple[Template, ...]] = {
    "trained": (
        Template("What are all the codes for {key}?", "One of the codes for {key} is"),
        Template("Which codes were issued to {key}?", "A code issued to {key} is"),
        Template("Which numbers open {key}?", "Among the numbers that open {key} is"),
    ),
    "unseen": (
        Template("Which figures did {key} report?", "A figure that {key} reported is"),
        Template("Which tickets does {key} hold?", "One ticket that {key} holds is"),
    ),
}
# Each answers a VALUES_OF_ONE_KEY of the same place: the statement in the plural.
ALL_VALUES: dict[TemplateSplit, tuple[str, ...]] = {
    "trained": (
        "The codes for {key} are",
        "The codes issued to {key} are",
        "The numbers that open {key} are",
    ),
    "unseen": ("The figures that {key} reported are", "The tickets that {key} holds are"),
}
SEVERAL_KEYS: dict[TemplateSplit, tuple[tuple[str, str], ...]] = {
    "trained": (
        ("What are the codes for {keys}, in this order?", "The codes for {keys} are"),
        ("Give the codes of {keys}, one after the other.", "The codes of {keys} are"),
    ),
    "unseen": (("Read out what belongs to {keys}, in turn.", "To {keys} belong"),),
}


@dataclass(frozen=True)
class MultiKey(Family):
    """Near-identical keys: half share the adjective of the key, half its noun."""

    num_distractors: int = 8

    name = "multi_key"
    description = "eight near-identical keys with values of their own; one is asked for"

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        template, name = pick_named(rng, TEMPLATES, templates)
        key = two_words(rng, split)
        keys = near_keys(rng, split, key, self.num_distractors)
        values = distinct(number, rng, split, 1 + len(keys))
        return Fact(
            family=self.name,
            key=key,
            pieces=(template.piece(key, NOUN, values[0]),),
            ask=template.asked(key, NOUN),
            statement=template.stated(key, NOUN),
            gold=(values[0],),
            distractors=tuple(values[1:]),
            distractor_pieces=tuple(map(lambda k, v: template.piece(k, NOUN, v), keys, values[1:])),
            distractor_keys=tuple(keys),
            template=name,
        )


def near_keys(rng: np.random.Generator, split: ValueSplit, key: str, n: int) -> list[str]:
    """`n` different keys that share one of their two words with `key`."""
    adjective, noun = key.split()
    same_adjective = [f"{adjective} {other}" for other in nouns(split) if other != noun]
    same_noun = [f"{other} {noun}" for other in adjectives(split) if other != adjective]
    half = n // 2
    return pick_distinct(rng, same_adjective, n - half) + pick_distinct(rng, same_noun, half)


@dataclass(frozen=True)
class MultiValue(Family):
    """One key, several values in sentences apart; all are asked for."""

    num_values: int = 4

    name = "multi_value"
    description = "one key has four values in four places; all are asked for, in any order"

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        template, name = pick_named(rng, VALUES_OF_ONE_KEY, templates)
        index = VALUES_OF_ONE_KEY[templates].index(template)
        key = two_words(rng, split)
        values = distinct(number, rng, split, self.num_values)
        asked = Template(template.ask, ALL_VALUES[templates][index])
        return Fact(
            family=self.name,
            key=key,
            pieces=tuple(template.piece(key, NOUN, value) for value in values),
            ask=asked.asked(key, NOUN),
            statement=asked.stated(key, NOUN),
            gold=tuple(values),
            answer_mode="all in any order",
            template=name,
        )


@dataclass(frozen=True)
class MultiQuery(Family):
    """Several keys in sentences apart; the values of all are asked for at once."""

    num_keys: int = 4

    name = "multi_query"
    description = "four keys in four places; their values are asked for in one question, in order"

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        template = pick(rng, TEMPLATES[templates])
        (ask, statement), name = pick_named(rng, SEVERAL_KEYS, templates)
        words = zip(
            pick_distinct(rng, adjectives(split), self.num_keys),
            pick_distinct(rng, nouns(split), self.num_keys),
            strict=True,
        )
        keys = [" ".join(pair) for pair in words]
        values = distinct(number, rng, split, self.num_keys)
        listed = f"{', '.join(keys[:-1])} and {keys[-1]}"
        order = rng.permutation(self.num_keys)
        return Fact(
            family=self.name,
            key=keys[0],
            pieces=tuple(template.piece(keys[i], NOUN, values[i]) for i in order),
            ask=f" {ask.format(keys=listed)}",
            statement=f" {statement.format(keys=listed)}",
            gold=tuple(values),
            answer_mode="all in order",
            distractor_keys=tuple(keys[1:]),
            template=name,
        )
