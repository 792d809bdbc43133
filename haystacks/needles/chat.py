"""The same request several times in a chat: which answer came n-th (after MRCR; own wording)."""

from dataclasses import dataclass

import numpy as np

from haystacks.needles.base import (
    Fact,
    Family,
    TemplateSplit,
    ValueSplit,
    pick_named,
)
from haystacks.needles.values import distinct, two_words, word

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
# (request, reply up to the value, reply to the question up to the value)
TURNS: dict[TemplateSplit, tuple[tuple[str, str, str], ...]] = {
    "trained": (
        (
            "Suggest a name for the {key}.",
            "How about the name",
            "My {nth} suggestion for the {key} was",
        ),
        (
            "Write a one-word poem about the {key}.",
            "Here is my poem:",
            "The {nth} poem about the {key} was",
        ),
        (
            "Give me a password that fits the {key}.",
            "A fitting password is",
            "The {nth} password for the {key} was",
        ),
    ),
    "unseen": (
        (
            "What shall we hide under the {key}?",
            "I would hide a",
            "In my {nth} answer about the {key} I would hide a",
        ),
    ),
}


@dataclass(frozen=True)
class NthAsk(Family):
    """Identical requests, different replies, in this order."""

    num_asks: int = 4

    name = "nth_ask"
    description = "one request four times in a chat; the reply to the n-th is asked for"

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        (request, reply, recall), name = pick_named(rng, TURNS, templates)
        key = two_words(rng, split)
        wording = f"{request} {reply} {recall} {key}"
        words = distinct(word, rng, split, self.num_asks, unlike=wording)
        asked = int(rng.integers(self.num_asks))
        nth = ORDINALS[asked]
        turn = f"\nUser: {request.format(key=key)}\nAssistant: {reply}"
        again = f"Repeat only your {nth} reply to: {request.format(key=key)}"
        return Fact(
            family=self.name,
            key=key,
            pieces=tuple(f"{turn} {said}.\n" for said in words),
            ask=f"\nUser: {again}",
            statement=f"\nAssistant: {recall.format(nth=nth, key=key)}",
            gold=(words[asked],),
            distractors=(*words[:asked], *words[asked + 1 :]),
            answer_format="word",
            template=name,
        )
