"""What each server wants to be asked, and how its answers are read.

Every request sets what servers differ in: temperature 0, a seed, the length of the answer, and no
penalty on tokens that the prompt holds. vLLM and `transformers serve` take penalties from a model's
generation_config.json, llama.cpp from its command line.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.errors import ServerError
from models.protocols import Finish, GoldScoring, TokenIds
from models.servers.bodies import Body
from models.servers.options import Prefix

Json = Mapping[str, Any]
SEED = 0
ROUNDING = 1e-3  # of a logarithm that should be 0 at the most
COMPLETIONS = "/v1/completions"


class Ask(NamedTuple):
    """One prompt. `prompt`: its text, or its ids in pieces. `tokens`: how many ids it has."""

    model: str
    prompt: str | Sequence[TokenIds]
    tokens: int
    max_new_tokens: int
    stop: tuple[str, ...]
    prefix: Prefix
    extra: Mapping[str, Any]


class Heard(NamedTuple):
    """What a server answered. None: it does not say."""

    text: str
    ids: tuple[int, ...] | None
    finish: Finish
    prompt_tokens: int | None
    cached_tokens: int | None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    thought: str | None = None


class Scored(NamedTuple):
    """A request that says how probable `gold` was. `ask.prompt` ends with it where `gold_scoring`
    is "whole", and before it, which is one token, where it is "by token"."""

    ask: Ask
    gold: tuple[int, ...]


class OpenAI:
    """A server of /v1/completions and nothing beyond.

    `unpenalised`: fields that turn off what would keep an answer from repeating the prompt. A
    user's `extra` comes before them.
    """

    name = "openai"
    unpenalised: Mapping[str, float] = {"frequency_penalty": 0, "presence_penalty": 0}
    path = COMPLETIONS
    takes_ids = True
    can_be_cold = False  # whether a request can shun the prefix cache
    steps = False  # whether a prompt that is one token longer makes the server compute that alone
    gold_scoring: GoldScoring = "none"
    gold_path = COMPLETIONS

    def gold_body(self, scored: Scored) -> Body:
        raise NotImplementedError(f"dialect {self.name} scores no answer")

    def gold_heard(self, data: Json, scored: Scored) -> float | None:
        """Raises: ServerError where the answer is not one."""
        raise NotImplementedError(f"dialect {self.name} scores no answer")

    def fields(self, ask: Ask) -> dict[str, Any]:
        """A request's fields but for the prompt; fresh for every try."""
        return {
            "model": ask.model,
            "max_tokens": ask.max_new_tokens,
            "temperature": 0,
            "seed": SEED,
            **({"stop": list(ask.stop)} if ask.stop else {}),
        }

    def body(self, ask: Ask) -> Body:
        """A request's JSON."""
        fields = {**self.unpenalised, **ask.extra, **self.fields(ask)}
        return Body(fields, "prompt", ask.prompt)

    def heard(self, data: Json, ask: Ask) -> Heard:
        """Raises: ServerError where the answer is not one, or not of this prompt."""
        choices = data.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise ServerError(f"choices: got {_short(choices)}, expected one answer")
        choice = choices[0]
        usage = data.get("usage") or {}
        if not isinstance(usage, dict):
            raise ServerError(f"usage: got {_short(usage)}, expected a mapping")
        details = usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        check_length(count(usage.get("completion_tokens"), "usage.completion_tokens"), ask)
        thought = choice.get("reasoning_content", choice.get("reasoning"))
        return Heard(
            text=text_of(choice.get("text"), "choices[0].text"),
            ids=answer_ids(choice.get("token_ids"), "choices[0].token_ids", ask),
            finish=finish_of(choice),
            prompt_tokens=count(usage.get("prompt_tokens"), "usage.prompt_tokens"),
            cached_tokens=count(cached, "usage.prompt_tokens_details.cached_tokens"),
            thought=None if thought is None else text_of(thought, "choices[0].reasoning_content"),
        )


class TransformersServe(OpenAI):
    """`transformers serve`: text only."""

    name = "transformers"
    unpenalised: Mapping[str, float] = {"frequency_penalty": 0}
    takes_ids = False


class VLLM(OpenAI):
    """vLLM: ids both ways, and a salt that keeps a prompt apart from cached ones."""

    name = "vllm"
    unpenalised: Mapping[str, float] = {**OpenAI.unpenalised, "repetition_penalty": 1}
    can_be_cold = True
    gold_scoring: GoldScoring = "whole"

    def fields(self, ask: Ask) -> dict[str, Any]:
        cold = {"cache_salt": secrets.token_hex(16)} if ask.prefix == "cold" else {}
        own = {"add_special_tokens": False} if isinstance(ask.prompt, str) else {}
        return super().fields(ask) | {"return_token_ids": True} | own | cold

    def heard(self, data: Json, ask: Ask) -> Heard:
        heard = super().heard(data, ask)
        read = data["choices"][0].get("prompt_token_ids")
        if read is not None and not isinstance(ask.prompt, str) and not is_same(read, ask.prompt):
            raise ServerError("prompt_token_ids: the server read other ids than were sent")
        return heard

    def gold_body(self, scored: Scored) -> Body:
        ask = scored.ask
        fields = {**ask.extra, **self.fields(ask), "prompt_logprobs": 0, "return_token_ids": False}
        return Body(fields, "prompt", ask.prompt)

    def gold_heard(self, data: Json, scored: Scored) -> float | None:
        choices = data.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        listed = choice.get("prompt_logprobs") if isinstance(choice, dict) else None
        if not isinstance(listed, list) or len(listed) != scored.ask.tokens:
            return None
        total = 0.0
        for token, entry in zip(scored.gold, listed[-len(scored.gold) :], strict=True):
            found = entry.get(str(token)) if isinstance(entry, dict) else None
            if not isinstance(found, dict):
                return None
            total += logprob(found.get("logprob"), "prompt_logprobs")
        return total


class SGLang(VLLM):
    """SGLang: as vLLM here, with its own switch for what was cached."""

    name = "sglang"
    gold_path = "/generate"

    def fields(self, ask: Ask) -> dict[str, Any]:
        fields = super().fields(ask) | {"return_cached_tokens_details": True}
        fields.pop("add_special_tokens", None)
        return fields

    def gold_body(self, scored: Scored) -> Body:
        ask = scored.ask
        salt = self.fields(ask).get("cache_salt")
        fields = {
            "sampling_params": {"temperature": 0, "max_new_tokens": 1},
            "return_logprob": True,
            "logprob_start_len": ask.tokens - len(scored.gold) - 1,
            **({} if salt is None else {"cache_salt": salt}),
        }
        return Body(fields, "input_ids", ask.prompt)

    def gold_heard(self, data: Json, scored: Scored) -> float | None:
        meta = data.get("meta_info")
        listed = meta.get("input_token_logprobs") if isinstance(meta, dict) else None
        if not isinstance(listed, list) or len(listed) < len(scored.gold):
            return None
        total = 0.0
        for token, entry in zip(scored.gold, listed[-len(scored.gold) :], strict=True):
            if not isinstance(entry, list) or entry[1:2] != [token] or entry[0] is None:
                return None
            total += logprob(entry[0], "meta_info.input_token_logprobs")
        return total


class LlamaCpp(OpenAI):
    """llama.cpp's own /completion, which says what was cached, truncated and how long it took."""

    name = "llamacpp"
    unpenalised: Mapping[str, float] = {
        **OpenAI.unpenalised,
        "repeat_penalty": 1,
        "dry_multiplier": 0,
    }
    path = gold_path = "/completion"
    can_be_cold = True
    steps = True
    gold_scoring: GoldScoring = "by token"

    def fields(self, ask: Ask) -> dict[str, Any]:
        cached = {} if ask.prefix == "as_is" else {"cache_prompt": ask.prefix == "warm"}
        return {
            "model": ask.model,
            "n_predict": ask.max_new_tokens,
            "temperature": 0,
            "seed": SEED,
            "stop": list(ask.stop),
            "return_tokens": True,
            **cached,
        }

    def heard(self, data: Json, ask: Ask) -> Heard:
        if data.get("truncated"):
            raise ServerError("truncated: the server has shortened the prompt or the answer")
        kinds: dict[object, Finish] = {"limit": "length", "word": "stop", "eos": "eos"}
        kind = data.get("stop_type")
        if kind not in kinds:
            raise ServerError(f"stop_type: got {_short(kind)}, expected one of {', '.join(KINDS)}")
        timings = data.get("timings") or {}
        if not isinstance(timings, dict):
            raise ServerError(f"timings: got {_short(timings)}, expected a mapping")
        check_length(count(data.get("tokens_predicted"), "tokens_predicted"), ask)
        return Heard(
            text=text_of(data.get("content"), "content"),
            ids=answer_ids(data.get("tokens"), "tokens", ask),
            finish=kinds[kind],
            prompt_tokens=count(data.get("tokens_evaluated"), "tokens_evaluated"),
            cached_tokens=count(timings.get("cache_n"), "timings.cache_n"),
            prefill_seconds=seconds(timings.get("prompt_ms"), "timings.prompt_ms"),
            decode_seconds=seconds(timings.get("predicted_ms"), "timings.predicted_ms"),
        )

    def gold_body(self, scored: Scored) -> Body:
        """The next token is forced; the logarithm is of its probability from before the bias.

        The cache is used: what is scored is what the answer was read from.
        """
        ask = scored.ask
        forced = {"n_probs": 1, "logit_bias": [[scored.gold[0], FORCED]], "cache_prompt": True}
        own = {**self.fields(ask), "n_predict": 1, "stop": [], **forced}
        fields = {**self.unpenalised, **ask.extra, **own}
        return Body(fields, "prompt", ask.prompt)

    def gold_heard(self, data: Json, scored: Scored) -> float | None:
        listed = data.get("completion_probabilities")
        entry = listed[0] if isinstance(listed, list) and len(listed) == 1 else None
        if not isinstance(entry, dict) or entry.get("id") != scored.gold[0]:
            return None
        return logprob(entry.get("logprob"), "completion_probabilities")


FORCED = 1e4  # a bias beside which no logit counts
KINDS = ("limit", "word", "eos")
DIALECTS: Mapping[str, OpenAI] = {
    dialect.name: dialect
    for dialect in (OpenAI(), VLLM(), SGLang(), LlamaCpp(), TransformersServe())
}


def is_same(read: object, sent: Sequence[TokenIds]) -> bool:
    """Whether a list that a server gave back holds the ids that were sent, compared by parts."""
    if not isinstance(read, list) or len(read) != sum(map(len, sent)):
        return False
    at = 0
    for part in sent:
        if read[at : at + len(part)] != np.asarray(part).tolist():
            return False
        at += len(part)
    return True


def logprob(value: object, where: str) -> float:
    """Raises: ServerError where it is no logarithm of a probability."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not float(str(value)) <= ROUNDING:
        raise ServerError(f"{where}: got {_short(value)}, expected a number up to 0")
    return min(0.0, float(str(value)))


def finish_of(choice: Json) -> Finish:
    """`stop` also where a server does not tell a stop text from the end of a sequence."""
    reason = choice.get("finish_reason")
    if reason == "length":
        return "length"
    if reason == "stop":
        return "eos" if choice.get("stop_reason", "") is None else "stop"
    raise ServerError(f"finish_reason: got {_short(reason)}, expected stop or length")


def text_of(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ServerError(f"{where}: got {_short(value)}, expected a text")
    return value


def answer_ids(value: object, where: str, ask: Ask) -> tuple[int, ...] | None:
    """The answer's ids, one more than asked for at the most: the end of a sequence counts."""
    if value is None:
        return None
    if not isinstance(value, list) or any(type(i) is not int or i < 0 for i in value):
        raise ServerError(f"{where}: got {_short(value)}, expected token ids")
    check_length(len(value), ask)
    return tuple(value)


def check_length(tokens: int | None, ask: Ask) -> None:
    if tokens is not None and tokens > ask.max_new_tokens + 1:
        raise ServerError(f"the answer has {tokens} tokens where {ask.max_new_tokens} were allowed")


def count(value: object, where: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ServerError(f"{where}: got {_short(value)}, expected a count")
    return value


def seconds(milliseconds: object, where: str) -> float | None:
    if milliseconds is None:
        return None
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        raise ServerError(f"{where}: got {_short(milliseconds)}, expected a number")
    if not math.isfinite(milliseconds) or milliseconds < 0:
        raise ServerError(f"{where}: got {milliseconds}, expected a number from 0")
    return milliseconds / 1000


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
