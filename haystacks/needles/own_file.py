"""Needle families of a user's file: JSONL with a fact, a question and an answer on each line."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from haystacks.needles.base import (
    Fact,
    Family,
    FamilyError,
    TemplateSplit,
    ValueSplit,
    holds,
    pick,
)

Record = Mapping[str, Any]
Reader = Callable[[Record], Fact]

FORMATS = ("number", "word", "uuid", "date", "version", "text")
FIELDS = ("fact", "question", "answer", "distractors", "format")
GUESSES = {
    "number": r"\d{1,3}(,\d{3})+(\.\d+)?|\d+(\.\d+)?",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "date": r"\d{4}-\d{2}-\d{2}",
    "version": r"v?\d+(\.\d+){2,}",
    "word": r"[A-Za-zÀ-ɏ]+",
}
NUMBER = r"\d[\d.,_'’\s]*"  # as it is judged: without a sign
# Where a sentence begins: after the end of another.
SENTENCE_START = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
NO_STATEMENT = " The answer is"


class RecordError(ValueError):
    """What is wrong with a line of a file; the message names the field."""


@dataclass(frozen=True)
class FileFamily(Family):
    """The facts of a file, drawn in random order; `fingerprint` is of the file's content.

    Its lines have no wordings or values apart for training: both template splits are the same
    facts, and the split "train" is refused.
    """

    name: str
    description: str
    fingerprint: str
    facts: tuple[Fact, ...]

    def make(
        self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
    ) -> Fact:
        if split == "train":
            raise FamilyError(f"family {self.name}: has no facts for split train; use split eval")
        return pick(rng, self.facts)


def read_family(name: str, path: str, reader: Reader, folder: Path = Path()) -> FileFamily:
    """The family called `name` of the JSONL file at `path`, whose lines `reader` understands.

    A relative path begins at `folder`; errors name it as it is written.
    Raises FamilyError with the line and the field that are wrong.
    """
    try:
        content = (folder / Path(path).expanduser()).read_bytes()
        text = content.decode()
    except UnicodeDecodeError:
        raise FamilyError(f"family: {path} is not UTF-8 text; write it as JSONL") from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FamilyError(f"family: {path} cannot be read ({reason})") from None
    fingerprint = hashlib.sha256(content).hexdigest()[:16]
    facts = list(_facts(path, text, reader, f"content:{fingerprint}"))
    if not facts:
        raise FamilyError(f"family: {path} holds no needle")
    return FileFamily(name, f"{len(facts)} needles of a file", fingerprint, tuple(facts))


def _facts(path: str, text: str, reader: Reader, family: str) -> Iterator[Fact]:
    asked: dict[str, int] = {}
    # Not splitlines: JSON may hold U+2028 as it is.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fact = reader(_parsed(line))
            first = asked.setdefault(fact.ask.strip().casefold(), number)
            if first != number:
                raise RecordError(f"question: is that of line {first} already")
        except RecordError as error:
            raise FamilyError(f"family: {path}, line {number}: {error}") from None
        # What differs in case only is one value for a reader, so it may not meet itself either.
        folded = {claim.casefold() for claim in fact.claims} - fact.claims
        yield replace(
            fact,
            family=family,
            template=f"line/{number}",
            distractor_keys=(*fact.distractor_keys, *sorted(folded)),
        )


def _parsed(line: str) -> Record:
    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        again = {name for name in names if names.count(name) > 1}
        if again:
            raise RecordError(f"{sorted(again)[0]}: stands twice")
        return dict(pairs)

    try:
        record = json.loads(line, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise RecordError(f"is not JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(record, dict):
        raise RecordError("is not a JSON object of names and values")
    return record


def own_fact(record: Record) -> Fact:
    """The fact of a record in this repository's own format. Raises RecordError."""
    unknown = sorted(set(record) - set(FIELDS))
    if unknown:
        raise RecordError(f"{unknown[0]}: no such field; there is {', '.join(FIELDS)}")
    fact, question = text_of(record, "fact"), text_of(record, "question")
    gold = answers_of(record)
    refuse_given_away(question, gold)
    others = [_distractor(other) for other in _list(record, "distractors")]
    for other, value in others:
        if any(holds(other, answer) for answer in gold):
            raise RecordError(f"distractors: {other!r:.60} holds the answer")
        if value and not holds(other, value):
            raise RecordError(f"distractors: {other!r:.60} does not hold its answer {value!r}")
    return Fact(
        family="",
        key=question.strip(),
        pieces=(piece_of(fact),),
        ask=f" {question.strip()}",
        statement=statement_of(fact, gold[0]),
        gold=gold,
        distractors=tuple(dict.fromkeys(value for _, value in others if value)),
        answer_format=format_of(record, gold),
        answer_mode="one" if len(gold) == 1 else "all in any order",
        distractor_pieces=tuple(piece_of(other) for other, _ in others),
    )


def text_of(record: Record, field: str) -> str:
    """A field that has to be text. Raises RecordError."""
    if field not in record:
        raise RecordError(f"{field}: is missing")
    value = record[field]
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"{field}: is {json.dumps(value)[:60]}; it should be text")
    try:
        value.encode()
    except UnicodeEncodeError:
        told = json.dumps(value)[:60]
        raise RecordError(f"{field}: is {told}; half a character is no text") from None
    return value


def answers_of(record: Record, field: str = "answer") -> tuple[str, ...]:
    """A text, or a list of texts that are all asked for. Raises RecordError."""
    values = record.get(field)
    listed = values if isinstance(values, list) else [text_of(record, field)]
    if not listed:
        raise RecordError(f"{field}: is an empty list; it should be text, or a list of texts")
    answers = tuple(text_of({field: value}, field).strip() for value in listed)
    if len({answer.casefold() for answer in answers}) < len(answers):
        raise RecordError(f"{field}: holds a value twice")
    return answers


def refuse_given_away(question: str, gold: Sequence[str]) -> None:
    """Raises RecordError where a question holds an answer to itself."""
    given = next((answer for answer in gold if holds(question, answer)), None)
    if given is not None:
        raise RecordError(f"question: holds the answer {given!r:.60}")


def _list(record: Record, field: str) -> list[Any]:
    values = record.get(field, [])
    if not isinstance(values, list):
        raise RecordError(f"{field}: is {json.dumps(values)[:60]}; it should be a list")
    return values


def _distractor(value: Any) -> tuple[str, str]:
    """A sentence to plant, and its value where it is told."""
    if isinstance(value, dict):
        unknown = sorted(set(value) - {"fact", "answer"})
        if unknown:
            raise RecordError(f"distractors: {unknown[0]}: no such field; there is fact, answer")
        return text_of(value, "fact"), text_of(value, "answer").strip()
    return text_of({"distractors": value}, "distractors"), ""


def piece_of(fact: str) -> str:
    """A fact as it is planted: behind a space, or on the line that it begins itself."""
    return fact if fact[0] in " \n" else f" {fact}"


def statement_of(fact: str, gold: str) -> str:
    """The fact's sentence up to its value; where there is none, what leads to any answer."""
    before, found, _ = fact.partition(gold)
    begun = SENTENCE_START.split(before.strip())[-1].strip()
    return f" {begun}" if found and begun else NO_STATEMENT


def format_of(record: Record, gold: Sequence[str]) -> str:
    """The format that is told, or that all of `gold` have. Raises RecordError."""
    told = record.get("format")
    if told is not None:
        if told not in FORMATS:
            raise RecordError(f"format: is {json.dumps(told)[:60]}; there is {', '.join(FORMATS)}")
        if told == "number" and (other := [v for v in gold if not re.fullmatch(NUMBER, v)]):
            raise RecordError(
                f"format: is number, but the answer {other[0]!r:.60} has more than digits and "
                "separators; leave the format out"
            )
        return str(told)
    fitting = (
        name for name, form in GUESSES.items() if all(re.fullmatch(form, value) for value in gold)
    )
    return next(fitting, "text")
