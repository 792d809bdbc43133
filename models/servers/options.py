"""The options of a server's arm, checked one by one."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from models.errors import ModelError
from models.options import whole_number

Prompt = Literal["ids", "text"]
Prefix = Literal["as_is", "cold", "warm"]
DialectName = Literal["auto", "openai", "vllm", "sglang", "llamacpp", "transformers"]

API = "/v1"
CHAT = (
    "options.prompt: got 'chat', expected ids or text: the sweep's prompt.kind = chat writes the "
    "chat template into either"
)
RESERVED = frozenset(
    """
    model prompt messages suffix echo stream stream_options n best_of max_tokens
    max_completion_tokens n_predict temperature seed stop cache_salt cache_prompt return_token_ids
    return_tokens prompt_logprobs logit_bias n_probs
    """.split()  # noqa: SIM905
)
"""Fields of a request that this package writes itself."""


def root_of(base_url: str) -> str:
    """A server's address without `/v1`: two spellings of one address are equal then."""
    return base_url.rstrip("/").removesuffix(API)


@dataclass(frozen=True)
class ServerOptions:
    """How a server is asked.

    `key_env` names the variable that holds the key. `timeout`: seconds for a whole answer.
    `retries`: further tries after what may pass. `gold_logprob`: whether the right answer is
    scored, with requests of its own. `max_prompt_tokens`: the most that a run may
    send. `extra`: further fields of every request. `declared`: what the user says of the weights
    and the cache; it is part of the model's fingerprint.
    """

    base_url: str
    tokenizer: str
    key_env: str | None = None
    prompt: Prompt | None = None
    dialect: DialectName = "auto"
    prefix: Prefix = "as_is"
    concurrency: int = 1
    timeout: float = 600.0
    retries: int = 3
    gold_logprob: bool = False
    max_prompt_tokens: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return root_of(self.base_url)

    def key(self) -> str | None:
        """The secret that `key_env` names. Raises: ModelError, which never holds it."""
        if self.key_env is None:
            return None
        found = os.environ.get(self.key_env, "")
        if not found:
            raise ModelError(f"options.key_env: the variable {self.key_env} is not set")
        if not found.isascii() or not found.isprintable() or " " in found:
            raise ModelError(
                f"options.key_env: the value of {self.key_env} cannot be a key: it holds "
                "characters that a header cannot hold"
            )
        return found

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def parse_options(options: Mapping[str, object]) -> ServerOptions:
    """Raises: ModelError naming the field, its value and what would be right."""
    known = ServerOptions.__dataclass_fields__
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ModelError(f"options: got {unknown[0]!r}, expected one of {', '.join(known)}")
    values = dict(options)
    if values.get("prompt") == "chat":
        raise ModelError(CHAT)
    for name in ("base_url", "tokenizer"):
        if not isinstance(values.get(name), str) or not values[name]:
            raise ModelError(f"options.{name}: got {values.get(name)!r}, expected {MEANT[name]}")
    _check_address(str(values["base_url"]))
    _check_key_env(values.get("key_env"))
    for name, choices in (("prompt", Prompt), ("prefix", Prefix), ("dialect", DialectName)):
        allowed = get_args(choices)
        if values.get(name) is not None and values[name] not in allowed:
            raise ModelError(
                f"options.{name}: got {values[name]!r}, expected one of {', '.join(allowed)}"
            )
    for name, least in (("concurrency", 1), ("retries", 0), ("max_prompt_tokens", 1)):
        if values.get(name) is not None:
            whole_number(name, values[name], least)
    _check_timeout(values.get("timeout", 600.0))
    if not isinstance(values.get("gold_logprob") or False, bool):
        raise ModelError(
            f"options.gold_logprob: got {values['gold_logprob']!r}, expected true or false"
        )
    for name in ("extra", "declared"):
        if not isinstance(values.get(name, {}), Mapping):
            raise ModelError(f"options.{name}: got {values[name]!r}, expected a mapping")
    _check_extra(values.get("extra", {}))
    given = {name: value for name, value in values.items() if value is not None}
    return ServerOptions(**given)  # type: ignore[arg-type]  # each was checked above


MEANT = {
    "base_url": "the server's address, such as http://127.0.0.1:8000/v1",
    "tokenizer": "the name of the server's tokenizer, such as hf:FOLDER or bundled-bpe-2048",
}


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ModelError(
            "options.base_url: should hold no user, password or query: keys go into the variable "
            "that key_env names"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise ModelError(f"options.base_url: got {address!r}, expected {MEANT['base_url']}")


def _check_key_env(name: object) -> None:
    """The value is not repeated: somebody may have written the key itself."""
    if name is not None and not (isinstance(name, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]*", name)):
        raise ModelError(
            "options.key_env: expected the name of a variable in capitals, such as "
            "OPENAI_API_KEY, not a key"
        )


def _check_timeout(value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(float(str(value))) or float(str(value)) <= 0:
        raise ModelError(f"options.timeout: got {value!r}, expected seconds above 0")


def _check_extra(extra: object) -> None:
    taken = sorted(RESERVED.intersection(extra if isinstance(extra, Mapping) else ()))
    if taken:
        raise ModelError(f"options.extra: got {taken[0]!r}, which the harness sends itself")
