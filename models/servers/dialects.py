"""What each server wants to be asked, and how its answers are read.

Every request sets what servers differ in: temperature 0, a seed and the length of the answer.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.errors import ServerError
from models.protocols import Finish, TokenIds
from models.servers.options import Prefix

Json = Mapping[str, Any]
SEED = 0
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


class OpenAI:
    """A server of /v1/completions and nothing beyond."""

    name = "openai"
    path = COMPLETIONS
    takes_ids = True
    can_be_cold = False  # whether a request can shun the prefix cache

    def fields(self, ask: Ask) -> dict[str, Any]:
        """A request's fields but for the prompt; fresh for every try."""
        return {
            "model": ask.model,
            "max_tokens": ask.max_new_tokens,
            "temperature": 0,
            "seed": SEED,
            **({"stop": list(ask.stop)} if ask.stop else {}),
        }

    def body(self, ask: Ask) -> bytes:
        """A request's JSON. Ids become text piece by piece, so that no list of all is made."""
        fields = json.dumps({**ask.extra, **self.fields(ask)}, ensure_ascii=False, allow_nan=False)
        if isinstance(ask.prompt, str):
            prompt = json.dumps(ask.prompt, ensure_ascii=False)
        else:
            prompt = f"[{','.join(_written(ids) for ids in ask.prompt if len(ids))}]"
        return f'{fields[:-1]}, "prompt": {prompt}}}'.encode()

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
        return Heard(
            text=text_of(choice.get("text"), "choices[0].text"),
            ids=answer_ids(choice.get("token_ids"), "choices[0].token_ids", ask),
            finish=finish_of(choice),
            prompt_tokens=count(usage.get("prompt_tokens"), "usage.prompt_tokens"),
            cached_tokens=count(cached, "usage.prompt_tokens_details.cached_tokens"),
        )


class TransformersServe(OpenAI):
    """`transformers serve`: text only."""

    name = "transformers"
    takes_ids = False


class VLLM(OpenAI):
    """vLLM: ids both ways, and a salt that keeps a prompt apart from cached ones."""

    name = "vllm"
    can_be_cold = True

    def fields(self, ask: Ask) -> dict[str, Any]:
        cold = {"cache_salt": secrets.token_hex(16)} if ask.prefix == "cold" else {}
        own = {"add_special_tokens": False} if isinstance(ask.prompt, str) else {}
        return super().fields(ask) | {"return_token_ids": True} | own | cold

    def heard(self, data: Json, ask: Ask) -> Heard:
        heard = super().heard(data, ask)
        read = data["choices"][0].get("prompt_token_ids")
        if read is not None and not isinstance(ask.prompt, str):
            sent = [i for part in ask.prompt for i in np.asarray(part).tolist()]
            if read != sent:
                raise ServerError("prompt_token_ids: the server read other ids than were sent")
        return heard


class SGLang(VLLM):
    """SGLang: as vLLM here, with its own switch for what was cached."""

    name = "sglang"

    def fields(self, ask: Ask) -> dict[str, Any]:
        fields = super().fields(ask) | {"return_cached_tokens_details": True}
        fields.pop("add_special_tokens", None)
        return fields


class LlamaCpp(OpenAI):
    """llama.cpp's own /completion, which says what was cached, truncated and how long it took."""

    name = "llamacpp"
    path = "/completion"
    can_be_cold = True

    def fields(self, ask: Ask) -> dict[str, Any]:
        cached = {} if ask.prefix == "as_is" else {"cache_prompt": ask.prefix == "warm"}
        return {
            "model": ask.model,
            "n_predict": ask.max_new_tokens,
            "temperature": 0,
            "repeat_penalty": 1.0,
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


KINDS = ("limit", "word", "eos")
DIALECTS: Mapping[str, OpenAI] = {
    dialect.name: dialect
    for dialect in (OpenAI(), VLLM(), SGLang(), LlamaCpp(), TransformersServe())
}


def _written(ids: TokenIds) -> str:
    return ",".join(map(str, np.asarray(ids).tolist()))


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
