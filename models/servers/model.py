"""`openai:MODEL`: a model that a server runs, asked over HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from models.errors import ModelError
from models.protocols import Forks, TokenizerRef
from models.servers.client import Client
from models.servers.dialects import OpenAI
from models.servers.options import ServerOptions, parse_options
from models.servers.probing import Found, probe
from models.servers.session import Line, ServerSession

SCHEME = "openai:"
DECIDING = ("prefix", "extra", "declared")
"""Options that may decide an answer. An address, a key or a pace decides none, and a tokenizer has
a fingerprint of its own."""


class ServerModel:
    """Implements `RemoteModel`."""

    def __init__(self, name: str, options: ServerOptions, client: Client, found: Found) -> None:
        dialect, as_text = found.dialect, _sends_text(options, found.dialect)
        self.name = name
        self.tokenizer = TokenizerRef(options.tokenizer)
        self.vocab_size: int | None = None
        self.max_position = found.max_position
        self.forks: Forks = "resend"
        self.cache_kinds: Mapping[str, str] = {}
        self.device = "remote"
        self.concurrency = options.concurrency
        self.max_prompt_tokens = options.max_prompt_tokens
        self.sends_prefixes = options.prefix == "warm"
        deciding = options.as_dict()
        self._described: dict[str, object] = {
            "dialect": dialect.name,
            "prompt": "text" if as_text else "ids",
            "server": found.facts,
            **{key: deciding[key] for key in DECIDING},
        }
        self.fingerprint = _digest({"model": name, **self._described})
        self._line = Line(
            client,
            dialect,
            name.removeprefix(SCHEME),
            as_text,
            options.prefix,
            options.extra,
            options.concurrency,
        )

    def session(self) -> ServerSession:
        return ServerSession(self._line)

    def describe(self) -> dict[str, object]:
        return dict(self._described)


def load(name: str, options: Mapping[str, object]) -> ServerModel:
    """`openai:MODEL`, as the server at `base_url` calls it.

    Options: those of `ServerOptions`.

    Raises:
        ModelError: an option is wrong, nothing answers, or the server has no such model.
    """
    parsed = parse_options(options)
    if not name.removeprefix(SCHEME):
        raise ModelError(f"model: got {name!r}, expected openai:MODEL as the server calls it")
    client = Client(
        parsed.root,
        parsed.key(),
        timeout=parsed.timeout,
        retries=parsed.retries,
        max_tokens=parsed.max_prompt_tokens,
    )
    found = client.run(probe(client, name.removeprefix(SCHEME), parsed.dialect)).result()
    if parsed.prefix == "cold" and not found.dialect.can_be_cold:
        raise ModelError(
            f"options.prefix: got 'cold', which dialect {found.dialect.name} has no request for; "
            "expected warm or as_is"
        )
    return ServerModel(name, parsed, client, found)


def _sends_text(options: ServerOptions, dialect: OpenAI) -> bool:
    if options.prompt == "ids" and not dialect.takes_ids:
        raise ModelError(
            f"options.prompt: got 'ids', expected text: dialect {dialect.name} takes no ids"
        )
    return options.prompt == "text" or not dialect.takes_ids


def _digest(value: object) -> str:
    """16 hex digits. Raises: ModelError where an option is no JSON."""
    try:
        text = json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        raise ModelError("options.extra, options.declared: expected values of JSON") from None
    return hashlib.sha256(text.encode()).hexdigest()[:16]
