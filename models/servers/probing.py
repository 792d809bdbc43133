"""Finds out which server answers at an address, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from models.errors import ModelError, ServerError
from models.servers.client import Client, PassingError, RefusedError, UnreachableError
from models.servers.dialects import DIALECTS, OpenAI

VOLATILE = ("created", "permission", "object", "modified_at")  # new at every start
TOLD = ("version", "kv_cache_dtype", "build_info", "model_ftype")
DENIED, FORBIDDEN = 401, 403
MODELS = "/v1/models"


class Vocabulary(NamedTuple):
    """What a server says of its tokenizer: how many ids it has, and which texts end a sequence."""

    size: int | None = None
    ends: tuple[str, ...] = ()


class Found(NamedTuple):
    """`facts`: what the server says of its model and version. `max_position`: None if unknown."""

    dialect: OpenAI
    facts: dict[str, Any]
    max_position: int | None
    vocabulary: Vocabulary = Vocabulary()


async def probe(client: Client, model: str, wanted: str) -> Found:
    """Raises: ModelError where nothing answers, the key is refused, or the model is not there."""
    listed = await _page(client, MODELS)
    page: dict[str, Any] = {}
    for name, path in PAGES.items():
        if wanted not in ("auto", name):
            continue
        page = await _page(client, path)
        if KNOWN_BY[name](page):
            wanted = name
            break
        page = {}
    dialect = DIALECTS["openai" if wanted == "auto" else wanted]
    entry = _entry(listed, model, dialect.name)
    facts = {name: page[name] for name in TOLD if name in page}
    if entry:
        facts["served"] = {k: v for k, v in entry.items() if k not in VOLATILE}
    return Found(
        dialect, _without_paths(facts), _max_position(entry, page), _vocabulary(entry, page)
    )


PAGES = {
    "llamacpp": "/props",
    "sglang": "/get_server_info",
    "vllm": "/version",
    "transformers": "/openapi.json",
}
KNOWN_BY: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "llamacpp": lambda page: "default_generation_settings" in page,
    "sglang": lambda page: "version" in page,
    "vllm": lambda page: "version" in page,
    "transformers": lambda page: "/load_model" in page.get("paths", ()),
}
"""The page by which a server is known, and how; SGLang has a page /version, too."""


async def _page(client: Client, path: str) -> dict[str, Any]:
    """A page's JSON, empty where there is none.

    Raises: ModelError where nothing answers, or not now: a server that is still loading looks like
    one that has no such page.
    """
    try:
        return await client.get(path)
    except UnreachableError as error:
        raise ModelError(f"options.base_url: {error}") from None
    except PassingError as error:
        if not error.not_ready:  # `transformers serve` without a network, of its list of models
            return {}
        raise ModelError(
            f"options.base_url: the server is not ready, its page {path} cannot be read: {error}"
        ) from None
    except RefusedError as error:
        # A gateway forbids pages that it does not know.
        if error.status == DENIED or (error.status == FORBIDDEN and path == MODELS):
            raise ModelError(f"options.key_env: {error}") from None
        return {}
    except ServerError:
        return {}


def _entry(listed: Mapping[str, Any], model: str, dialect: str) -> dict[str, Any]:
    """What /v1/models says of `model`. Raises: ModelError where the server has others only."""
    data = listed.get("data")
    entries = [e for e in data if isinstance(e, dict)] if isinstance(data, list) else []
    for entry in entries:
        if entry.get("id") == model:
            return entry
    if dialect == "llamacpp" and len(entries) == 1:  # it answers to any name
        return entries[0]
    if dialect in ("vllm", "sglang") and entries:
        served = ", ".join(str(entry.get("id")) for entry in entries)
        raise ModelError(f"model: got {model!r}, expected one that is served: {served}")
    return {}


def _vocabulary(entry: Mapping[str, Any], page: Mapping[str, Any]) -> Vocabulary:
    meta, end = entry.get("meta"), page.get("eos_token")
    size = meta.get("n_vocab") if isinstance(meta, Mapping) else None
    known = isinstance(size, int) and not isinstance(size, bool)
    return Vocabulary(size if known else None, (end,) if isinstance(end, str) and end else ())


def _max_position(entry: Mapping[str, Any], page: Mapping[str, Any]) -> int | None:
    settings = page.get("default_generation_settings")
    found = (
        settings.get("n_ctx") if isinstance(settings, dict) else None,
        entry.get("max_model_len"),
        page.get("context_length"),
    )
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), None)


def _without_paths(value: Any) -> Any:
    """Names in place of paths: where a server's files lie decides no answer."""
    if isinstance(value, dict):
        return {name: _without_paths(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_paths(inner) for inner in value]
    if isinstance(value, str) and value.startswith("/"):
        return PurePosixPath(value).name
    return value
