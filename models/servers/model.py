"""`openai:MODEL`: a model that a server runs, asked over HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from models.errors import ModelError
from models.protocols import Forks, GoldScoring, TokenizerRef
from models.servers.client import Client
from models.servers.dialects import OpenAI
from models.servers.options import ServerOptions, parse_options
from models.servers.probing import Found, probe
from models.servers.session import Line, ServerSession
from models.servers.tokenizer import ServerTokenizer, server_tokenizer
from models.servers.turns import turns_of

SCHEME = "openai:"
DECIDING = ("prefix", "concurrency", "extra", "declared")
"""Options that may decide an answer: a server batches the requests that it gets at once. An address
or a key decides none, and a tokenizer has a fingerprint of its own."""


class ServerModel:
    """Implements `RemoteModel`."""

    def __init__(
        self,
        name: str,
        options: ServerOptions,
        client: Client,
        found: Found,
        own_tokenizer: ServerTokenizer | None = None,
    ) -> None:
        dialect, as_text = found.dialect, _sends_text(options, found.dialect)
        self.name = name
        self.own_tokenizer = own_tokenizer
        self.tokenizer = (
            TokenizerRef(own_tokenizer.name, own_tokenizer.fingerprint)
            if own_tokenizer
            else TokenizerRef(options.tokenizer)
        )
        self.vocab_size: int | None = None
        self.max_position = found.max_position
        self.forks: Forks = "resend"
        self.cache_kinds: Mapping[str, str] = {}
        self.device = "remote"
        self.concurrency = options.concurrency
        self.max_prompt_tokens = options.max_prompt_tokens
        self.sends_prefixes = options.prefix == "warm"
        self.reuses_prefixes = options.prefix != "cold"
        self.steps = dialect.steps and not as_text
        scored = scores_gold(options, dialect, as_text)
        self.gold_scoring: GoldScoring = dialect.gold_scoring if scored else "none"
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
            turns_of(options.root, name),
            scored,
        )

    def session(self) -> ServerSession:
        return ServerSession(self._line)

    def describe(self) -> dict[str, object]:
        """`options` are those that tell two arms of one server apart."""
        said = self._described
        apart = {name: said[name] for name in ("prefix", "concurrency")}
        declared = said["declared"]
        assert isinstance(declared, Mapping)
        return {
            "description": f"served by {said['dialect']}",
            **said,
            "options": {**declared, **apart},
        }


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
    own = None
    if parsed.tokenizer == "server":
        asking = Client(
            parsed.root,
            parsed.key(),
            timeout=parsed.timeout,
            retries=parsed.retries,
            thread="tokenizers",  # answers are decoded in the thread of the requests
        )
        own = server_tokenizer(
            asking, found.dialect.name, name.removeprefix(SCHEME), found.vocabulary
        )
    return ServerModel(name, parsed, client, found, own)


def scores_gold(options: ServerOptions, dialect: OpenAI, as_text: bool) -> bool:
    """Whether the right answer is scored. Raises: ModelError where that is wanted in vain."""
    if not options.gold_logprob:
        return False
    why = None
    if dialect.gold_scoring == "none":
        why = f"dialect {dialect.name} tells no log-probability of given tokens"
    elif as_text:
        why = "the answer's tokens cannot be told in a prompt that is sent as text"
    elif options.prefix == "warm" and dialect.name == "vllm":
        why = "vLLM scores without its prefix cache, and so not what prefix = warm has read"
    if why:
        raise ModelError(f"options.gold_logprob: got true, expected false: {why}")
    return True


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
