"""Facts in the dress of their haystack: a contract's clause, a declaration in code, a log's line.

Each fact has a twin under a near-identical key as distractor.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np

from haystacks.needles.base import Fact, Family, TemplateSplit, ValueSplit, pick_named
from haystacks.needles.multi import near_keys
from haystacks.needles.values import Draw, date, distinct, number, two_words, word


class Form(NamedTuple):
    """`before` and `after` surround the value in the text; the question is `ask`, then `before`.

    Slots: {key} "amber falcon", {Key} "Amber Falcon", {key_} "amber_falcon", {KEY} "AMBER_FALCON";
    {ref} is the document's numbering of the line, empty in the question.
    """

    ask: str
    before: str
    answer_format: str = "number"
    draw: Draw = number
    after: str = ""


class DocumentFact(Family):
    """A form filled in for the key and, with another value, for a similar key."""

    forms: ClassVar[Mapping[TemplateSplit, tuple[Form, ...]]]
    joint: ClassVar[str] = "\n"

    @abstractmethod
    def reference(self, rng: np.random.Generator) -> str:
        """What numbers or dates a line in such a document, with the space after it."""

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        form, name = pick_named(rng, self.forms, templates)
        key = two_words(rng, split)
        (twin,) = near_keys(rng, split, key, 1)
        slots = spellings(key, ref="")
        ask = f"\n{form.ask}".format_map(slots)
        statement = f"{self.joint}{form.before}".format_map(slots)
        value, twin_value = distinct(form.draw, rng, split, 2, unlike=ask + statement)
        return Fact(
            family=self.name,
            key=key,
            pieces=(self._piece(rng, form, key, value),),
            ask=ask,
            statement=statement,
            gold=(value,),
            distractors=(twin_value,),
            answer_format=form.answer_format,
            distractor_pieces=(self._piece(rng, form, twin, twin_value),),
            distractor_keys=(twin,),
            template=name,
        )

    def _piece(self, rng: np.random.Generator, form: Form, key: str, value: str) -> str:
        line = "\n" + form.before + " {value}" + form.after + "\n"
        return line.format_map(spellings(key, ref=self.reference(rng)) | {"value": value})


def spellings(key: str, ref: str) -> dict[str, str]:
    """The ways in which a document may write a two-word key, and the line's reference."""
    joined = key.replace(" ", "_")
    return {"key": key, "Key": key.title(), "key_": joined, "KEY": joined.upper(), "ref": ref}


def title_word(rng: np.random.Generator, split: ValueSplit) -> str:
    """A noun with a capital letter: the name of a party, a defined term."""
    return word(rng, split).title()


class ContractClause(DocumentFact):
    """A sum, a date, a party or a defined term; at home in the corpus "legal"."""

    name = "contract_clause"
    description = "a clause of a contract: a sum, a date, a party, a defined term"
    joint = " "
    forms: ClassVar[Mapping[TemplateSplit, tuple[Form, ...]]] = {
        "trained": (
            Form(
                "How much is the Retention Sum under the {Key} Agreement?",
                "{ref}The Retention Sum under the {Key} Agreement is EUR",
                after=", payable on completion.",
            ),
            Form(
                "On which date does the {Key} Agreement end?",
                "{ref}The {Key} Agreement ends, without notice being given, on",
                answer_format="date",
                draw=date,
                after=".",
            ),
            Form(
                "Who is the guarantor of the {Key} Agreement?",
                "{ref}The guarantor of the {Key} Agreement is the firm of",
                answer_format="word",
                draw=title_word,
                after=", jointly and severally.",
            ),
        ),
        "unseen": (
            Form(
                "Which defined term covers the {key}?",
                "{ref}In this Agreement the {key} is called the",
                answer_format="word",
                draw=title_word,
                after=".",
            ),
            Form(
                "To which amount is liability for the {key} limited?",
                "{ref}Liability for the {key} is limited to EUR",
                after=" for each event.",
            ),
        ),
    }

    def reference(self, rng: np.random.Generator) -> str:
        return f"{rng.integers(2, 30)}.{rng.integers(1, 10)} "


class CodeDeclaration(DocumentFact):
    """A constant, a default argument or a configuration value; at home in the corpus "python"."""

    name = "code_declaration"
    description = "a declaration in Python source: a constant, a default argument, a setting"
    forms: ClassVar[Mapping[TemplateSplit, tuple[Form, ...]]] = {
        "trained": (
            Form("# What is the value of {KEY}_LIMIT?", "{KEY}_LIMIT ="),
            Form(
                "# What is the default limit of open_{key_}?",
                "def open_{key_}(path, *, limit: int =",
                after="):\n    return path, limit",
            ),
        ),
        "unseen": (Form("# How is the {key} configured?", "settings['{key}'] ="),),
    }

    def reference(self, rng: np.random.Generator) -> str:
        return ""


class AgentLogFact(DocumentFact):
    """A tool call and its result; at home in the corpus "agent-log"."""

    name = "agent_log_fact"
    description = "an agent's log: the result of one tool call"
    forms: ClassVar[Mapping[TemplateSplit, tuple[Form, ...]]] = {
        "trained": (
            Form(
                "task: Repeat what read_sensor returned for {key}.",
                '{ref}call: read_sensor({{"name": "{key}"}})\n{ref}result:',
            ),
            Form(
                "task: Repeat the ticket that was opened for {key}.",
                '{ref}call: open_ticket({{"subject": "{key}"}})\n{ref}result: ticket',
            ),
        ),
        "unseen": (
            Form(
                "task: Say who owns the service {key}.",
                '{ref}call: get_owner({{"service": "{key}"}})\n{ref}result: owner',
                answer_format="word",
                draw=word,
            ),
        ),
    }

    def reference(self, rng: np.random.Generator) -> str:
        hours, minutes, seconds = rng.integers([24, 60, 60])
        return f"[{hours:02d}:{minutes:02d}:{seconds:02d}] step {rng.integers(1, 25)} "
