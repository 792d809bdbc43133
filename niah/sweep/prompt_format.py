"""Writes what stands around a haystack: BOS, instruction, question, a chat template's turns."""

from typing import NamedTuple

from haystacks.chat_template import PLACEHOLDER
from haystacks.needles.registry import Fact
from haystacks.tokenizer import Tokenizer
from niah.errors import PlanError
from niah.sweep.config import PromptFormat

Ids = tuple[int, ...]
ANSWER = "\nAnswer:"  # ends a completion prompt without an answer prefix


class Frame(NamedTuple):
    """A prompt is `prefix_ids`, the haystack, a question, and `suffix_ids`."""

    prefix_ids: Ids
    suffix_ids: Ids


def frame(prompt: PromptFormat, tokenizer: Tokenizer) -> Frame:
    """What all prompts of a sweep begin and end with; a BOS stands there exactly once.

    Raises: PlanError where a chat is wanted of a tokenizer without a template.
    """
    if prompt.kind == "completion":
        text = f"{prompt.instruction}\n\n" if prompt.instruction else ""
        return Frame((*tokenizer.start_ids, *tokenizer.encode(text)), ())
    user = f"{prompt.instruction}\n\n{PLACEHOLDER}" if prompt.instruction else PLACEHOLDER
    texts = tokenizer.chat_texts(prompt.system, user, "")
    if texts is None:
        raise PlanError(
            f"prompt.kind = chat: tokenizer {tokenizer.name} has no chat template; use completion"
        )
    before, after = (tuple(tokenizer.encode_template(text)) for text in texts)
    start = tokenizer.start_ids
    return Frame(before if before[: len(start)] == start else (*start, *before), after)


def question_text(prompt: PromptFormat, fact: Fact) -> str:
    """What follows the haystack."""
    if prompt.kind == "chat":
        return f"\n\n{fact.ask.strip()}"
    return fact.question if prompt.answer_prefix else f"{fact.ask}{ANSWER}"


def answer_start(prompt: PromptFormat, fact: Fact) -> str:
    """What a chat model's answer is made to begin with."""
    return fact.statement.strip() if prompt.kind == "chat" and prompt.answer_prefix else ""


def gold_text(prompt: PromptFormat, fact: Fact) -> str:
    """The right continuation of the prompt, where there is one value."""
    begins = prompt.kind == "chat" and not prompt.answer_prefix
    return fact.gold[0] if begins else f" {fact.gold[0]}"


def gold_ids(prompt: PromptFormat, fact: Fact, tokenizer: Tokenizer) -> Ids:
    """The right continuation's ids; empty where there is more than one."""
    return tuple(tokenizer.encode(gold_text(prompt, fact))) if fact.answer_mode == "one" else ()


def end_ids(prompt: PromptFormat, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Tokens that end a turn of a chat, whether or not a model's own configuration has them."""
    return tokenizer.eos_ids if prompt.kind == "chat" else ()


def stop_texts(prompt: PromptFormat, fact: Fact) -> tuple[str, ...]:
    """Texts that end an answer. A chat without an answer prefix ends by itself.

    Behind an answer prefix the full stop of the planted sentence ends the answer: what a model
    writes in the sentence after is no part of it, and digits there would make a decimal fraction
    of a number that was right. A text that a value holds itself ends none.
    """
    if not prompt.answer_prefix and prompt.kind == "chat":
        return ()
    ends = any(f" {fact.gold[0]}." in piece for piece in fact.pieces)
    full_stop = prompt.answer_prefix and fact.answer_mode == "one" and ends
    stops = ("\n", ".") if full_stop else ("\n",)
    return tuple(stop for stop in stops if not any(stop in gold for gold in fact.gold))
