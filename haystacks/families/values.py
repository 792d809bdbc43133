"""Seeded keys and values: numbers, words, UUIDs, two-word names; training and evaluation disjoint.

Numbers and UUIDs are split by a hash of what is written, so that no digit or prefix betrays the
split; words are split by list. Knows nothing about sentences.
"""

import hashlib
import uuid
from functools import cache

import numpy as np

from haystacks.families.base import FamilyError, ValueSplit, pick
from haystacks.words import adjectives, nouns

NUMBER_DIGITS = 5
UUID_TRIES = 100


def value_split(value: str) -> ValueSplit:
    """The split to which a number or UUID belongs: half of all values each."""
    return "train" if hashlib.sha256(value.encode()).digest()[0] < 128 else "eval"


@cache
def _numbers(split: ValueSplit) -> tuple[int, ...]:
    low, high = 10 ** (NUMBER_DIGITS - 1), 10**NUMBER_DIGITS
    return tuple(n for n in range(low, high) if value_split(str(n)) == split)


def number(rng: np.random.Generator, split: ValueSplit) -> str:
    """Five digits, the first of them not 0."""
    return str(pick(rng, _numbers(split)))


def word(rng: np.random.Generator, split: ValueSplit) -> str:
    """A noun of three to nine letters."""
    return pick(rng, nouns(split))


def uuid4(rng: np.random.Generator, split: ValueSplit) -> str:
    """A random UUID (version 4) in lower case, with its hyphens."""
    for _ in range(UUID_TRIES):
        value = str(uuid.UUID(bytes=rng.bytes(16), version=4))
        if value_split(value) == split:
            return value
    raise FamilyError(f"no UUID of split {split} in {UUID_TRIES} draws")


def two_words(rng: np.random.Generator, split: ValueSplit) -> str:
    """A key: adjective and noun, such as "amber falcon"."""
    return f"{pick(rng, adjectives(split))} {pick(rng, nouns(split))}"
