"""A needle family of one's own: the code of a locker."""

import numpy as np

from haystacks.needles.base import Fact, Family, TemplateSplit, ValueSplit
from haystacks.needles.templates import Template
from haystacks.needles.values import number, two_words

WORDINGS: dict[TemplateSplit, Template] = {
    "trained": Template("What is the code of locker {key}?", "The code of locker {key} is"),
    "unseen": Template("What opens locker {key}?", "Locker {key} is opened with"),
}


class Locker(Family):
    """A number for a key of two words; the draws of the two splits have none in common."""

    name = "locker"
    description = "one sentence gives the code of a locker"

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        key, value = two_words(rng, split), number(rng, split)
        wording = WORDINGS[templates]
        return Fact(
            family=self.name,
            key=key,
            pieces=(wording.piece(key, "code", value),),
            ask=wording.asked(key, "code"),
            statement=wording.stated(key, "code"),
            gold=(value,),
            answer_format="number",
            template=f"{templates}/0",
        )
