"""One key, one value, one sentence: the classical needle (RULER's single NIAH)."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from haystacks.needles.base import Fact, Family, TemplateSplit, ValueSplit, pick_named
from haystacks.needles.templates import TEMPLATES
from haystacks.needles.values import distinct, number, two_words, uuid4, word


class Single(Family):
    """A two-word key and a value; subclasses say of which kind."""

    noun: ClassVar[str]
    answer_format: ClassVar[str]

    @abstractmethod
    def value(self, rng: np.random.Generator, split: ValueSplit) -> str:
        """A value of the split."""

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        template, name = pick_named(rng, TEMPLATES, templates)
        key = two_words(rng, split)
        unlike = template.question(key, self.noun)
        (value,) = distinct(self.value, rng, split, 1, unlike=unlike)
        return Fact(
            family=self.name,
            key=key,
            pieces=(template.piece(key, self.noun, value),),
            ask=template.asked(key, self.noun),
            statement=template.stated(key, self.noun),
            gold=(value,),
            answer_format=self.answer_format,
            template=name,
        )


class SingleNumber(Single):
    """The value is a five-digit number."""

    name = "single_number"
    description = "one sentence gives a five-digit number for a two-word key"
    noun = "code"
    answer_format = "number"

    def value(self, rng: np.random.Generator, split: ValueSplit) -> str:
        return number(rng, split)


class SingleWord(Single):
    """The value is a noun."""

    name = "single_word"
    description = "one sentence gives a word for a two-word key"
    noun = "word"
    answer_format = "word"

    def value(self, rng: np.random.Generator, split: ValueSplit) -> str:
        return word(rng, split)


class SingleUuid(Single):
    """The value is a UUID."""

    name = "single_uuid"
    description = "one sentence gives a UUID for a two-word key"
    noun = "identifier"
    answer_format = "uuid"

    def value(self, rng: np.random.Generator, split: ValueSplit) -> str:
        return uuid4(rng, split)
