"""Seeded keys and values of many kinds, disjoint between training and evaluation.

Numbers, letters, UUIDs and dates are split by a hash of what is written, so that no digit or
prefix betrays the split; words are split by list.
"""

import datetime
import hashlib
import re
import uuid
from collections.abc import Callable
from functools import cache
from string import ascii_uppercase

import numpy as np

from haystacks.needles.base import FamilyError, ValueSplit, pick
from haystacks.needles.words import adjectives, nouns

NUMBER_DIGITS = 5
NAME_LETTERS = 5
TRIES = 100
# In an answer these introduce a value and are never one.
WORDS_FOR_VALUES = frozenset({"answer", "code", "identifier", "number", "value", "word"})
WORD = re.compile(r"[a-z]+")
FIRST_DAY = datetime.date(1950, 1, 1)
NUM_DAYS = 40_000

Draw = Callable[[np.random.Generator, ValueSplit], str]


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


@cache
def _value_words(split: ValueSplit) -> tuple[str, ...]:
    return tuple(noun for noun in nouns(split) if noun not in WORDS_FOR_VALUES)


def word(rng: np.random.Generator, split: ValueSplit) -> str:
    """A noun of three to nine letters, none of those by which values are called."""
    return pick(rng, _value_words(split))


def uuid4(rng: np.random.Generator, split: ValueSplit) -> str:
    """A random UUID (version 4) in lower case, with its hyphens."""
    return _of_split(lambda: str(uuid.UUID(bytes=rng.bytes(16), version=4)), split)


def letters(rng: np.random.Generator, split: ValueSplit) -> str:
    """A variable's name of five capital letters, as in RULER."""
    alphabet = np.array(list(ascii_uppercase))
    return _of_split(lambda: "".join(rng.choice(alphabet, NAME_LETTERS)), split)


def _of_split(draw: Callable[[], str], split: ValueSplit) -> str:
    for _ in range(TRIES):
        value = draw()
        if value_split(value) == split:
            return value
    raise FamilyError(f"no value of split {split} in {TRIES} draws")


@cache
def _dates(split: ValueSplit) -> tuple[str, ...]:
    days = ((FIRST_DAY + datetime.timedelta(days=n)).isoformat() for n in range(NUM_DAYS))
    return tuple(day for day in days if value_split(day) == split)


def date(rng: np.random.Generator, split: ValueSplit) -> str:
    """A day as YYYY-MM-DD."""
    return pick(rng, _dates(split))


def distinct(
    draw: Draw, rng: np.random.Generator, split: ValueSplit, n: int, unlike: str = ""
) -> list[str]:
    """`n` different values by `draw`, none a word of the text `unlike`, whatever its case.

    Raises FamilyError if they are not found in bounded time.
    """
    said = set(WORD.findall(unlike.lower()))
    values: dict[str, None] = {}
    for _ in range(TRIES * n):
        if len(values) == n:
            break
        value = draw(rng, split)
        if value.lower() not in said:
            values[value] = None
    if len(values) < n:
        raise FamilyError(f"{n} different values asked, {len(values)} found")
    return list(values)


def two_words(rng: np.random.Generator, split: ValueSplit) -> str:
    """A key: adjective and noun, such as "amber falcon"."""
    return f"{pick(rng, adjectives(split))} {pick(rng, nouns(split))}"
