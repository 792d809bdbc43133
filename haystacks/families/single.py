"""One key, one value, one sentence: the classical needle (RULER's single NIAH).

Knows nothing about tokens or positions.
"""

from typing import ClassVar

import numpy as np

from haystacks.families.base import Fact, Family, TemplateSplit, ValueSplit
from haystacks.families.templates import pick_template
from haystacks.families.values import number, two_words


class SingleNumber(Family):
    """Two-word key, five-digit value."""

    name = "single_number"
    description = "one sentence gives a five-digit number for a two-word key"
    noun: ClassVar[str] = "code"
    answer_format: ClassVar[str] = "number"

    def value(self, rng: np.random.Generator, split: ValueSplit) -> str:
        return number(rng, split)

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        template = pick_template(rng, templates)
        key = two_words(rng, split)
        value = self.value(rng, split)
        return Fact(
            family=self.name,
            key=key,
            pieces=(template.piece(key, self.noun, value),),
            question=template.question(key, self.noun),
            gold=(value,),
            answer_format=self.answer_format,
            template=template.name,
        )
