"""Wordings drawn anew for every training sequence, so that no list of them can be learned by heart.

A model that knows ten wordings answers those ten. Half of these are plain English from a small
grammar, half are bits of the training text with a key and a value set between. The grammar
uses no held-out word and none that is peculiar to the unseen wordings of evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import numpy as np

from haystacks.needles.base import pick
from haystacks.needles.templates import TRAINED, UNSEEN, Template
from haystacks.needles.words import adjectives, nouns

Rng = np.random.Generator

# {a} and {b}: nouns; {done}: a participle; {at}: a preposition.
FORMS = (
    Template("What is the {a} of {key}?", "The {a} of {key} is"),
    Template("Which {noun} is {done} {at} {key}?", "The {noun} {done} {at} {key} is"),
    Template("What was {done} {at} {key}?", "{done} {at} {key} was"),
    Template("How was {key} {done} {at} the {a}?", "{at} the {a}, {key} was {done} as"),
    Template("Which {a} does the {b} {key} have?", "The {b} {key} has the {a}"),
    Template("What has the {a} {done} {at} {key}?", "{at} {key} the {a} has {done}"),
    Template("Tell me the {a} and {b} of {key}.", "{key} with its {b}: {a}"),
    Template("{key}?", "{key}:"),
    Template("What about {key}?", "{a} {at} {key}, {done}"),
    Template("Which {noun} was {done}?", "{done}, {at} the {a} {key}, was the {noun}"),
    Template("What did the {a} of {key} say?", "The {a} of {key} said"),
    Template("Say how the {a} {done} {key}.", "The {a} once {done} {key} {at}"),
    Template("What did {key} bring {at} the {a}?", "{at} the {a}, {key} brought"),
    Template("What stands {at} {key}?", "{at} {key} stands"),
    Template("Which {noun} goes to {key}?", "To {key} goes the {noun}"),
    Template("Under what is {key} {done}?", "{key} is {done} {at} the {a} as"),
    Template("With which {a} was {key} {done}?", "{key} was {done} with the {a}"),
    Template("What is known of the {a} {key}?", "They {done} the {a} {key} and called it"),
    Template("What belongs to {key}?", "The {a} that belongs to {key} is"),
    Template("Who or what is {at} {key}?", "The one {at} {key}, {done} by the {a}, is"),
    Template("Give the {noun} of {key}.", "{key}, {a} and {b}, has the {noun}"),
    Template("Where {key} is {done}, what comes next?", "{key} is {done}; next comes"),
)
PARTICIPLES = tuple(
    """
    added assigned bought brought called chosen counted drawn entered fixed found heard held hidden
    kept known left made marked measured named ordered paid posted put quoted read reported said
    sealed seen sent set shown signed sold stored taken told used weighed won
    """.split()  # noqa: SIM905
)
PREPOSITIONS = tuple(
    "about above after behind beside by for from in near of on over to under".split()  # noqa: SIM905
)


@cache
def _forbidden() -> frozenset[str]:
    """Held-out words, and words of the unseen wordings that no trained wording has."""

    def words(templates: tuple[Template, ...]) -> set[str]:
        return {word for t in templates for word in re.findall(r"[a-z]+", f"{t.ask} {t.statement}")}

    peculiar = words(UNSEEN) - words(TRAINED)
    return frozenset(peculiar.union(nouns("eval"), adjectives("eval")))


@cache
def _allowed(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in _forbidden())


def english(rng: Rng) -> Template:
    """A wording by the grammar; `{key}` and `{noun}` are left to be filled in."""
    words = {
        "a": pick(rng, _allowed(nouns("train"))),
        "b": pick(rng, _allowed(nouns("train"))),
        "done": pick(rng, _allowed(PARTICIPLES)),
        "at": pick(rng, _allowed(PREPOSITIONS)),
        "key": "{key}",
        "noun": "{noun}",
    }
    form = pick(rng, FORMS)
    return Template(_sentence(form.ask, words), _sentence(form.statement, words))


def _sentence(form: str, words: dict[str, str]) -> str:
    filled = form.format_map(words)
    return filled[0].upper() + filled[1:]


def scraps(rng: Rng, text: Callable[[Rng, int], str]) -> Template:
    """A wording of pieces of text; `text(rng, n)` gives some of about n tokens."""

    def some(fewest: int, most: int) -> str:
        drawn = " ".join(text(rng, int(rng.integers(fewest, most + 1))).split())
        return drawn.replace("{", "").replace("}", "").replace("\ufffd", "")

    statement = f"{some(0, 6)} {{key}} {some(1, 7)}".strip()
    return Template(f"{some(1, 6)} {{key}}?", statement)
