"""Facts that lead to one another: variables over hops (RULER), UUIDs that point to UUIDs."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from haystacks.needles.base import (
    Fact,
    Family,
    TemplateSplit,
    ValueSplit,
    pick_named,
)
from haystacks.needles.values import distinct, letters, number, two_words, uuid4

# (question, statement); {value} the chain's number, {name} its last variable.
ALL_NAMES: dict[TemplateSplit, tuple[tuple[str, str], ...]] = {
    "trained": (
        (
            "Which variables hold the value {value}?",
            "The variables that hold the value {value} are",
        ),
        ("Name every variable equal to {value}.", "The variables equal to {value} are"),
    ),
    "unseen": (("Which names stand for {value}?", "The names that stand for {value} are"),),
}
LAST_VALUE: dict[TemplateSplit, tuple[tuple[str, str], ...]] = {
    "trained": (
        ("What is the value of {name}?", "The value of {name} is"),
        ("Which number does {name} hold?", "The number that {name} holds is"),
    ),
    "unseen": (("What appears if {name} is printed?", "If {name} is printed, what appears is"),),
}
# (link to plant, question, statement)
POINTERS: dict[TemplateSplit, tuple[tuple[str, str, str], ...]] = {
    "trained": (
        (
            "The record {one} points to the record {next}.",
            "Starting at the record {first} of {key}, which record is reached after {hops} steps?",
            "After {hops} steps from {first} one reaches the record",
        ),
        (
            "After the node {one} comes the node {next}.",
            "Which node comes {hops} places after the node {first} of {key}?",
            "The node that comes {hops} places after {first} is",
        ),
    ),
    "unseen": (
        (
            "Whoever finds {one} is sent on to {next}.",
            "Where does somebody who finds {first} of {key} stand after being sent on {hops} "
            "times?",
            "Sent on {hops} times, one stands at",
        ),
    ),
}


@dataclass(frozen=True)
class Chains:
    """Variables set to a number and to one another: the chain asked about, then another."""

    names: tuple[tuple[str, ...], tuple[str, ...]]
    values: tuple[str, str]

    def pieces(self, index: int) -> tuple[str, ...]:
        """The assignments of a chain, in order."""
        names = self.names[index]
        sources = (self.values[index], *names[:-1])
        return tuple(
            f" VAR {name} = {source}." for name, source in zip(names, sources, strict=True)
        )


def draw_chains(rng: np.random.Generator, split: ValueSplit, hops: int) -> Chains:
    """Two chains of `hops` + 1 variables, all of different names, and two numbers."""
    names = distinct(letters, rng, split, 2 * (hops + 1))
    values = distinct(number, rng, split, 2)
    return Chains((tuple(names[: hops + 1]), tuple(names[hops + 1 :])), (values[0], values[1]))


@dataclass(frozen=True)
class VariableTracking(Family):
    """RULER's task: all variables of the chain that begins with a number."""

    hops: int = 4

    name = "variable_tracking"
    description = "chains of X = Y; all variables that hold a number are asked for, in any order"

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        (ask, statement), name = pick_named(rng, ALL_NAMES, templates)
        chains = draw_chains(rng, split, self.hops)
        return Fact(
            family=self.name,
            key=chains.values[0],
            pieces=chains.pieces(0),
            ask=f" {ask.format(value=chains.values[0])}",
            statement=f" {statement.format(value=chains.values[0])}",
            gold=chains.names[0],
            distractors=chains.names[1],
            answer_format="word",
            answer_mode="all in any order",
            distractor_pieces=chains.pieces(1),
            distractors_in_order=True,
            distractor_keys=(chains.values[1],),
            template=name,
        )


@dataclass(frozen=True)
class VariableValue(Family):
    """The same chains, asked from the other end: one number, which takes every hop to find."""

    hops: int = 4

    name = "variable_value"
    description = "chains of X = Y; the number that the last variable holds is asked for"

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        (ask, statement), name = pick_named(rng, LAST_VALUE, templates)
        chains = draw_chains(rng, split, self.hops)
        asked = chains.names[0][-1]
        return Fact(
            family=self.name,
            key=asked,
            pieces=chains.pieces(0),
            ask=f" {ask.format(name=asked)}",
            statement=f" {statement.format(name=asked)}",
            gold=(chains.values[0],),
            distractors=(chains.values[1],),
            distractor_pieces=chains.pieces(1),
            distractors_in_order=True,
            distractor_keys=(*chains.names[0][:-1], *chains.names[1]),
            template=name,
        )


@dataclass(frozen=True)
class UuidChain(Family):
    """Each UUID names the next; the last is asked for, given the first."""

    hops: int = 3

    name = "uuid_chain"
    description = "each UUID points to the next; the one three steps on is asked for"

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        (piece, ask, statement), name = pick_named(rng, POINTERS, templates)
        links = [uuid4(rng, split) for _ in range(self.hops + 1)]
        key = two_words(rng, split)
        first = f" The first of {key} is {links[0]}."
        slots = {"first": links[0], "key": key, "hops": self.hops}
        return Fact(
            family=self.name,
            key=key,
            pieces=(
                first,
                *(f" {piece.format(one=one, next=next_)}" for one, next_ in pairwise(links)),
            ),
            ask=f" {ask.format_map(slots)}",
            statement=f" {statement.format_map(slots)}",
            gold=(links[-1],),
            distractors=tuple(links[:-1]),
            answer_format="uuid",
            template=name,
        )
