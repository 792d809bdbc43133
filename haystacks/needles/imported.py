"""Needles of other benchmarks' files, which the user brings: RULER's and MRCR's.

RULER: Hsieh et al. 2024, arXiv:2404.06654; MRCR: Vodrahalli et al. 2024, arXiv:2409.12640, in the
form of the data set openai/mrcr. Only needles, questions and answers are taken: the haystack, the
lengths and the depths are those of the sweep.
"""

import json
import re
from typing import Any

from haystacks.needles.base import Fact
from haystacks.needles.own_file import Record, RecordError, answers_of, refuse_given_away, text_of

MAX_OTHER_NEEDLES = 8
"""Of the needles that RULER's hardest tasks fill a whole haystack with."""

RULER_NEEDLE = re.compile(
    r"One of the special magic (?P<kind>numbers|words|uuids) for (?P<key>[^\n]+?) is: "
    r"(?P<value>[^\s.]+)\."
)
RULER_QUESTION = re.compile(
    r"What (?P<verb>is|are all) the special magic (?P<kind>\w+) for (?P<query>[^\n]+?) "
    r"mentioned in the provided text\?"
)
RULER_FORMATS = {"numbers": "number", "words": "word", "uuids": "uuid"}
MRCR_ASK = re.compile(r"Prepend \S+ to (?=the \d+)")


def ruler_fact(record: Record) -> Fact:
    """The fact of a record of RULER's niah tasks (`input`, `outputs`). Raises RecordError."""
    text, gold = text_of(record, "input"), answers_of(record, "outputs")
    questions = list(RULER_QUESTION.finditer(text))
    if not questions:
        raise RecordError("input: asks for no special magic; of RULER only niah tasks are read")
    asked = questions[-1]
    needles = list({found["value"]: found for found in RULER_NEEDLE.finditer(text)}.values())
    own = [needle for needle in needles if needle["value"] in gold]
    missing = [value for value in gold if value not in {needle["value"] for needle in own}]
    if missing:
        raise RecordError(f"outputs: no needle of the input has {missing[0]!r:.60}")
    refuse_given_away(asked[0], gold)
    others = [needle for needle in needles if needle not in own][:MAX_OTHER_NEEDLES]
    verb = "is" if asked["verb"] == "is" else "are"
    magic = f"The special magic {asked['kind']} for {asked['query']}"
    return Fact(
        family="",
        key=asked["query"],
        pieces=tuple(f" {needle[0]}" for needle in own),
        ask=f" {asked[0]}",
        statement=f" {magic} mentioned in the provided text {verb}",
        gold=gold,
        distractors=tuple(needle["value"] for needle in others),
        answer_format=RULER_FORMATS[own[0]["kind"]],
        answer_mode="one" if len(gold) == 1 else "all in any order",
        distractor_pieces=tuple(f" {needle[0]}" for needle in others),
        distractor_keys=tuple(
            key for key in dict.fromkeys(n["key"] for n in (*own, *others)) if key != asked["query"]
        ),
    )


def mrcr_fact(record: Record) -> Fact:
    """The fact of a record of MRCR (`prompt`, `answer`, `random_string_to_prepend`).

    Needles are the turns with the request that is asked about. The random string, by which MRCR's
    own score knows an answer, is neither asked for nor expected. Raises RecordError.
    """
    messages = _messages(record)
    prepended = text_of(record, "random_string_to_prepend")
    answer = text_of(record, "answer").removeprefix(prepended).strip()
    *turns, last = messages
    pairs = [
        (ask["content"], reply["content"].strip())
        for ask, reply in zip(turns[::2], turns[1::2], strict=False)
        if ask["role"] == "user" and reply["role"] == "assistant"
    ]
    asks = [ask for ask, reply in pairs if reply == answer]
    if not asks:
        raise RecordError("answer: is no reply of the assistant in the prompt")
    replies = [reply for ask, reply in pairs if ask == asks[0]]
    question, found = MRCR_ASK.subn("Repeat ", last["content"])
    if last["role"] != "user" or not found:
        raise RecordError("prompt: does not end with 'Prepend ... to the ...'")
    return Fact(
        family="",
        key=asks[0],
        pieces=tuple(f"\nUser: {asks[0]}\nAssistant: {reply}\n" for reply in replies),
        ask=f"\nUser: {question.strip()}",
        statement="\nAssistant:",
        gold=(answer,),
        distractors=tuple(dict.fromkeys(reply for reply in replies if reply != answer)),
        answer_format="text",
    )


def _messages(record: Record) -> list[dict[str, str]]:
    messages: Any = record.get("prompt")
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except json.JSONDecodeError:
            raise RecordError("prompt: is not JSON") from None
    if not isinstance(messages, list) or not messages:
        raise RecordError("prompt: should be a list of messages")
    for message in messages:
        if not isinstance(message, dict) or not all(
            isinstance(message.get(field), str) for field in ("role", "content")
        ):
            raise RecordError("prompt: a message should have a role and a content, both text")
    return messages
