"""Wordings of "KEY has VALUE", trained and never trained.

A template is a statement up to the value and an interrogative; the question is the
interrogative followed by that statement again (RULER's answer prefix). `{noun}` is what the
value is called.
"""

from typing import NamedTuple

from haystacks.needles.base import TemplateSplit


class Template(NamedTuple):
    """`ask` and `statement`, both with {key} and, where it is named, {noun}."""

    ask: str
    statement: str

    def piece(self, key: str, noun: str, value: str) -> str:
        """The sentence to plant, with one leading space."""
        return f" {self.statement} {{value}}.".format(key=key, noun=noun, value=value)

    def asked(self, key: str, noun: str) -> str:
        """The interrogative, with one leading space."""
        return f" {self.ask}".format(key=key, noun=noun)

    def stated(self, key: str, noun: str) -> str:
        """The statement up to where the value belongs, with one leading space."""
        return f" {self.statement}".format(key=key, noun=noun)

    def question(self, key: str, noun: str) -> str:
        """The text after the context: `asked`, then `stated`."""
        return self.asked(key, noun) + self.stated(key, noun)


TRAINED = (
    Template("What is the secret {noun} for {key}?", "The secret {noun} for {key} is"),
    Template("What is the access {noun} of {key}?", "The access {noun} of {key} is"),
    Template("Which {noun} is registered for {key}?", "The {noun} registered for {key} is"),
    Template("What is the magic {noun} of {key}?", "One should know that {key} has the {noun}"),
    Template("Which {noun} does the item {key} bear?", "The item {key} bears the {noun}"),
    Template("What was noted for {key}?", "Remember: the {noun} noted for {key} is"),
    Template("What does the record of {key} show?", "The record of {key} shows the {noun}"),
    Template("How is {key} listed?", "In the ledger, {key} is listed as"),
    Template("What is the lock of {key} set to?", "The lock of {key} is set to"),
    Template("What must be quoted for {key}?", "When asked about {key}, one must quote"),
)
UNSEEN = (
    Template("With what does the locker of {key} open?", "The locker of {key} opens with"),
    Template("What did the clerk write down for {key}?", "For {key} the clerk wrote down"),
    Template("What is printed on the label of {key}?", "On the label of {key} is printed"),
    Template("Which reference has the parcel of {key}?", "The parcel of {key} has reference"),
    Template("What was {key} given at the gate?", "At the gate {key} was given"),
    Template("What goes with {key}?", "It was agreed that with {key} goes the {noun}"),
)
TEMPLATES: dict[TemplateSplit, tuple[Template, ...]] = {"trained": TRAINED, "unseen": UNSEEN}
