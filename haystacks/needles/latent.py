"""Facts that share no word with their question: a cue is planted, what it implies is asked for.

After NoLiMa (arXiv:2502.05167), with pairs and names of our own (wordlists/associations_*.txt).
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from haystacks.needles.base import (
    Fact,
    Family,
    TemplateSplit,
    ValueSplit,
    pick,
    pick_named,
)

FOLDER = Path(__file__).parent / "wordlists"
QUESTIONS: dict[TemplateSplit, tuple[tuple[str, str], ...]] = {
    "trained": (
        ("Which person {implied}?", "The person meant is"),
        ("Who {implied}?", "The answer is"),
        ("Name somebody who {implied}.", "That is"),
    ),
    "unseen": (("If one of them {implied}, who is it?", "It must be"),),
}


class Association(NamedTuple):
    """What is planted of a person, and what follows from it; no content word in common."""

    cue: str
    implied: str


@cache
def associations(split: ValueSplit) -> tuple[Association, ...]:
    """The pairs of `split`."""
    lines = (FOLDER / f"associations_{split}.txt").read_text().splitlines()
    return tuple(Association(*line.split(" | ")) for line in lines)


@cache
def person_names(split: ValueSplit) -> tuple[str, ...]:
    """First names of `split`, one word each."""
    return tuple((FOLDER / f"names_{split}.txt").read_text().split())


class LatentAssociation(Family):
    """Only knowledge of the world connects question and needle: lexical search cannot."""

    name = "latent_association"
    description = "a cue implies the answer without a word in common with the question"

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        (ask, statement), name = pick_named(rng, QUESTIONS, templates)
        pair = pick(rng, associations(split))
        person = pick(rng, person_names(split))
        return Fact(
            family=self.name,
            key=pair.implied,
            pieces=(f" {person} {pair.cue}.",),
            ask=f" {ask.format(implied=pair.implied)}",
            statement=f" {statement}",
            gold=(person,),
            answer_format="word",
            template=name,
        )
