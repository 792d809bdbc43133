"""Defines a planted fact (text only) and a family of facts, and draws many distinct facts."""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np

ValueSplit = Literal["train", "eval"]
TemplateSplit = Literal["trained", "unseen"]
AnswerMode = Literal["one", "all in any order", "all in order"]

TRIES_PER_FACT = 100

Picked = TypeVar("Picked")


class FamilyError(ValueError):
    """A family that does not exist, or that cannot give as many distinct facts as asked."""


@dataclass(frozen=True)
class Fact:
    """One question with what must be planted to answer it.

    `pieces` are planted at increasing positions in this order; each begins with one space (or,
    where a line is planted, with a newline) and is complete in itself. `distractor_pieces` are
    planted too, anywhere (at increasing positions if `distractors_in_order`: a chain is a rival
    only where it can be followed), and must not change the answer; `distractor_keys` are the keys
    they speak of. `ask` follows the context: the question alone. `statement` follows `ask`: it
    repeats the planted sentence up to, but excluding, the value and the space before it, so that
    the right continuation is a space and the gold (RULER's answer prefix, arXiv:2404.06654). Each
    begins with a space or a newline; a `statement` may be empty. `gold` has one value unless
    `answer_mode` asks for all. A value may hold several words. `distractors` are other values in
    the pieces, which a confused model may give. `template` names the wording, e.g. "trained/3".
    """

    family: str
    key: str
    pieces: tuple[str, ...]
    ask: str
    statement: str
    gold: tuple[str, ...]
    distractors: tuple[str, ...] = ()
    answer_format: str = "number"
    answer_mode: AnswerMode = "one"
    distractor_pieces: tuple[str, ...] = ()
    distractor_keys: tuple[str, ...] = ()
    distractors_in_order: bool = False
    template: str = ""

    @property
    def question(self) -> str:
        """`ask` and `statement`, as a completion prompt ends."""
        return self.ask + self.statement

    @property
    def values(self) -> tuple[str, ...]:
        """All values that are planted: gold, then distractors."""
        return self.gold + self.distractors

    @property
    def claims(self) -> frozenset[str]:
        """Every key and value that is planted: no other fact in the same context may have one."""
        return frozenset((self.key, *self.distractor_keys, *self.values))

    @cached_property
    def gold_pieces(self) -> tuple[int, ...]:
        """Which of the pieces hold a gold value."""
        held = [any(holds(piece, gold) for gold in self.gold) for piece in self.pieces]
        return tuple(index for index, each in enumerate(held) if each)


def holds(text: str, value: str) -> bool:
    """Whether `text` says `value`, and not as a part of a longer word or number."""
    before = r"(?<![A-Za-z0-9_])" if re.match(r"[A-Za-z0-9]", value) else ""
    after = r"(?![A-Za-z0-9_])" if re.search(r"[A-Za-z0-9]\Z", value) else ""
    return bool(re.search(before + re.escape(value) + after, text, re.IGNORECASE))


class Family(ABC):
    """A kind of fact. Subclasses override `make`, which depends on nothing but its arguments."""

    name: str
    description: str

    @abstractmethod
    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        """One fact. Keys and values of the two splits are disjoint, as are the templates'."""

    def make_many(
        self,
        rng: np.random.Generator,
        n: int,
        split: ValueSplit,
        templates: TemplateSplit = "trained",
        taken: Collection[str] = (),
    ) -> list[Fact]:
        """`n` facts of which no two share a key or a value, and none has one that is `taken`.

        Raises FamilyError when that many distinct ones are not found in bounded time.
        """
        facts: list[Fact] = []
        claimed = set(taken)
        for _ in range(TRIES_PER_FACT * n):
            if len(facts) == n:
                break
            fact = self.make(rng, split, templates)
            if claimed.isdisjoint(fact.claims):
                facts.append(fact)
                claimed |= fact.claims
        if len(facts) < n:
            raise FamilyError(f"family {self.name}: {n} distinct facts asked, {len(facts)} found")
        return facts


def pick(rng: np.random.Generator, items: Sequence[Picked]) -> Picked:
    """One of `items`, uniformly."""
    return items[int(rng.integers(len(items)))]


def pick_distinct(rng: np.random.Generator, items: Sequence[Picked], n: int) -> list[Picked]:
    """`n` of `items` at different places, in random order."""
    return [items[int(i)] for i in rng.choice(len(items), size=n, replace=False)]


def pick_named(
    rng: np.random.Generator, pools: Mapping[TemplateSplit, Sequence[Picked]], split: TemplateSplit
) -> tuple[Picked, str]:
    """One wording of the split's pool, uniformly, with its name, e.g. "trained/3"."""
    index = int(rng.integers(len(pools[split])))
    return pools[split][index], f"{split}/{index}"
