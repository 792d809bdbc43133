"""Sends requests to one server: deadlines, retries, bounded bodies, and a key that stays secret.

All requests run on one event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, Never, TypeVar
from urllib.parse import urlsplit

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
)
from tenacity.wait import wait_exponential, wait_random

from models.errors import ModelError, ServerError, StopRunError
from models.servers.bodies import Body

for _name in ("httpx", "httpcore"):  # at DEBUG they would write headers
    logging.getLogger(_name).setLevel(logging.WARNING)

Json = dict[str, Any]
Result = TypeVar("Result")

PASSING = frozenset({408, 409, 425, 429})  # and every 5xx but 501
INTERNAL_ERROR, NOT_IMPLEMENTED = 500, 501
IN_A_ROW = 5  # requests refused one after the other end the run
CONNECT_SECONDS = 10.0
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 30.0
BACKOFF = wait_exponential(multiplier=FIRST_WAIT_SECONDS, max=MAX_WAIT_SECONDS) + wait_random(
    0, FIRST_WAIT_SECONDS
)
MAX_BODY_BYTES = 2**20
BODY_BYTES_PER_TOKEN = 256
"""Of the prompt, which servers repeat: as ids, as escaped text, or with what each token scored."""
SECRET_CHARACTERS = 8  # shorter keys, as EMPTY, may stand in a text by chance
SNIPPET = 200


class PassingError(ServerError):
    """What may go well when it is tried again, after `retry_after` seconds where they are told.

    `status`: of HTTP, None where the connection broke.
    """

    def __init__(
        self, message: str, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after

    @property
    def not_ready(self) -> bool:
        """Whether the server says that it does not serve now. 500 may be all that it ever says."""
        return self.status != INTERNAL_ERROR


class UnreachableError(PassingError):
    """No connection."""


class RefusedError(ServerError):
    """A request that is not sent again: the server would refuse it, or not take it for long.

    `status`: of HTTP.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Connections:
    """Connections to one server, each used by one request at a time and kept for the next.

    Each has a client of its own: the pool of one client looks at all its connections for every
    request, which at 64 takes as long as everything else.
    """

    def __init__(self, key: str | None, connect_seconds: float) -> None:
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout = httpx.Timeout(None, connect=connect_seconds)
        self._trusted = httpx.create_ssl_context()
        self._idle = [self._new()]

    @asynccontextmanager
    async def one(self) -> AsyncIterator[httpx.AsyncClient]:
        """A connection that nobody uses."""
        http = self._idle.pop() if self._idle else self._new()
        try:
            yield http
        finally:
            self._idle.append(http)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().aclose()

    def _new(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=self._headers,
            timeout=self._timeout,
            limits=httpx.Limits(max_connections=1),
            verify=self._trusted,
            follow_redirects=False,
        )


class Client:
    """Sends requests to one server.

    Args:
        root: the server's address without a path of its API.
        key: sent as a bearer token, to `root` only; never written anywhere.
        timeout: seconds for a whole answer, from the connection to its last byte.
        retries: further tries of what may pass.
        max_tokens: the most prompt tokens to send, tries that failed included.
        thread: the name of the thread that its requests run in. Who waits there for a request
            needs another.

    Raises:
        ModelError: the address, or what the environment says of proxies and certificates, is none.
    """

    def __init__(
        self,
        root: str,
        key: str | None = None,
        *,
        timeout: float = 600.0,
        retries: int = 3,
        max_tokens: int | None = None,
        thread: str = "servers",
    ) -> None:
        self._loop = _loop(thread)
        self._root, self._key, self._timeout = root, key, timeout
        self._max_tokens, self._sent_tokens, self._refusals = max_tokens, 0, 0
        self._stopped: str | None = None
        self._retries = retries
        try:
            httpx.URL(root).host  # noqa: B018  # is decoded here
            self._connections = Connections(key, min(CONNECT_SECONDS, timeout))
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ModelError(self._said(f"options.base_url: {_named(error)}")) from None
        except (ImportError, ValueError, OSError) as error:
            raise ModelError(
                self._said(
                    "options.base_url: no connection can be made with what variables such as "
                    f"ALL_PROXY, HTTPS_PROXY and SSL_CERT_FILE say: {_named(error)}"
                )
            ) from None
        weakref.finalize(self, _close, self._connections, self._loop)

    def run(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Begin `work` on the loop that all requests share."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def get(self, path: str) -> Json:
        """The JSON of a page. Raises: ServerError; at once where there is no connection."""
        trying = self._retrying.copy(retry=retry_if_exception(_may_pass_soon))
        found: Json = await trying(self._once, "GET", path, None, MAX_BODY_BYTES)
        return found

    async def post(self, path: str, body: Callable[[], Body], tokens: int) -> tuple[Json, float]:
        """A reply, and the seconds of the try that brought it.

        Args:
            body: makes the request's JSON, anew for every try.
            tokens: of the prompt.

        Raises:
            ServerError: no usable reply; not to be tried again.
            StopRunError: the ceiling of tokens is reached, or five requests in a row were refused
                or failed in every try.
        """
        found: tuple[Json, float]
        try:
            found = await self._retrying(self._timed, path, body, tokens)
        except (RefusedError, PassingError) as error:
            self._count_refusal(error)
        except ServerError:
            self._refusals = 0
            raise
        self._refusals = 0
        return found

    async def call(self, path: str, fields: Mapping[str, object]) -> Json:
        """A reply to a request that is no prompt. Raises: ServerError."""
        body = json.dumps(fields, ensure_ascii=False).encode()
        limit = MAX_BODY_BYTES + BODY_BYTES_PER_TOKEN * len(body)
        found: Json = await self._retrying(self._once, "POST", path, body, limit)
        return found

    @property
    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(PassingError),
            stop=stop_after_attempt(self._retries + 1),
            wait=_wait,
            reraise=True,
        )

    async def _timed(self, path: str, body: Callable[[], Body], tokens: int) -> tuple[Json, float]:
        self._count_tokens(tokens)
        limit = MAX_BODY_BYTES + BODY_BYTES_PER_TOKEN * tokens
        began = time.perf_counter()
        data = await self._once("POST", path, body(), limit)
        return data, time.perf_counter() - began

    async def _once(self, method: str, path: str, body: Body | bytes | None, limit: int) -> Json:
        """One try. Raises: ServerError."""
        headers = {"Content-Type": "application/json"} if body else {}
        content: bytes | AsyncIterator[bytes] | None
        if isinstance(body, Body) and body.is_long:
            headers["Content-Length"] = str(body.length)
            content = body.stream()
        else:
            content = None if body is None else bytes(body)
        url = self._root + path
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._connections.one() as http,
                http.stream(method, url, content=content, headers=headers) as response,
            ):
                raw = await _bounded(response, limit)
        except TimeoutError:
            raise ServerError(
                f"no whole answer within options.timeout = {self._timeout:g} s"
            ) from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            told = f"{self._root} cannot be reached: {_named(error)}"
            raise UnreachableError(self._said(told)) from None
        except httpx.TransportError as error:
            raise PassingError(self._said(f"the connection broke: {_named(error)}")) from None
        except httpx.HTTPError as error:
            raise ServerError(self._said(_named(error))) from None
        return self._checked(response, raw)

    def _checked(self, response: httpx.Response, raw: bytes) -> Json:
        status = response.status_code
        if 300 <= status < 400:
            host = _host(response.headers.get("location", "")) or "another path"
            raise RefusedError(
                self._said(
                    f"HTTP {status}: the server redirects to {host}, where nothing is sent; set "
                    "options.base_url to the address that answers"
                ),
                status,
            )
        if not 200 <= status < 300:
            self._refuse(status, response, raw)
        if self._key and len(self._key) >= SECRET_CHARACTERS and self._key.encode() in raw:
            raise ServerError("the server's answer repeats the key: it is not kept")
        data = self._parsed(response, raw)
        if data.get("error"):
            raise ServerError(self._said(f"the server says: {self._complaint(raw)}"))
        return data

    def _refuse(self, status: int, response: httpx.Response, raw: bytes) -> Never:
        told = self._said(f"HTTP {status}: {self._complaint(raw)}")
        if (status not in PASSING and status < 500) or status == NOT_IMPLEMENTED:
            raise RefusedError(told, status)
        after = _retry_after(response)
        if after is not None and after > max(self._timeout, MAX_WAIT_SECONDS):
            long = f"{told}; it asks to wait {after:.0f} s, more than options.timeout"
            raise RefusedError(long, status)
        raise PassingError(told, status, after)

    def _parsed(self, response: httpx.Response, raw: bytes) -> Json:
        kind = response.headers.get("content-type", "no content type")
        try:
            data = json.loads(raw, parse_constant=_no_constant)
        except NotANumberError as error:
            raise ServerError(f"the server's JSON holds {error}") from None
        except (ValueError, RecursionError):
            raise ServerError(
                self._said(f"the server answered {kind}, expected JSON: {self._complaint(raw)}")
            ) from None
        if not isinstance(data, dict):
            raise ServerError(f"the server answered a JSON {type(data).__name__}, not an object")
        return data

    def _complaint(self, raw: bytes) -> str:
        """What an answer says is wrong, or how it begins; the key is taken out before the cut."""
        return self._without_key(_complaint(raw))[:SNIPPET] or "an empty body"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _said(self, message: str) -> str:
        """A message on one line, without the key."""
        message = self._without_key(message)
        return " ".join("".join(c if c.isprintable() else " " for c in message).split())

    def _count_tokens(self, tokens: int) -> None:
        if self._stopped:
            raise StopRunError(self._stopped)
        if self._max_tokens is not None and self._sent_tokens + tokens > self._max_tokens:
            self._stop(
                f"options.max_prompt_tokens = {self._max_tokens}: {self._sent_tokens} tokens were "
                f"sent and the next prompt has {tokens}; raise it and run again"
            )
        self._sent_tokens += tokens

    def _count_refusal(self, error: ServerError) -> Never:
        self._refusals += 1
        if self._refusals >= IN_A_ROW:
            self._stop(f"{IN_A_ROW} requests in a row failed at {self._root}, the last: {error}")
        raise error

    def _stop(self, reason: str) -> Never:
        self._stopped = reason
        raise StopRunError(reason)


@cache
def _loop(thread: str) -> asyncio.AbstractEventLoop:
    """An event loop in a daemon thread of a name, which ends with the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=thread, daemon=True).start()
    return loop


def _close(connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
    """Close the connections on the loop that they belong to."""
    asyncio.run_coroutine_threadsafe(connections.close(), loop)


async def _bounded(response: httpx.Response, limit: int) -> bytes:
    """The body as it came. Raises: ServerError where it is too long or compressed."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ServerError("the server's answer is compressed, which was not asked for")
    raw = bytearray()
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > limit:
            raise ServerError(f"the server's answer is longer than {limit:,} bytes")
    return bytes(raw)


class NotANumberError(ValueError):
    """NaN or an infinity in JSON."""


def _no_constant(name: str) -> Never:
    raise NotANumberError(name)


def _complaint(raw: bytes) -> str:
    """What an answer says is wrong, or all of it."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        if isinstance(data, dict) and data.get(name):
            data = data[name]
    return str(data)


def _host(address: str) -> str:
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, from a count or a date; None without a header that can be read."""
    value = response.headers.get("retry-after", "")
    try:
        if value.isdigit():
            return float(value)
        at = parsedate_to_datetime(value)
        return max(0.0, (at - datetime.now(at.tzinfo or UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _may_pass_soon(error: BaseException) -> bool:
    unreachable = isinstance(error, UnreachableError)
    return isinstance(error, PassingError) and error.not_ready and not unreachable


def _wait(retry_state: RetryCallState) -> float:
    """Seconds before the next try: ever more, and at least what the server asks for.

    A server may ask for none, and a date lies in the past where two clocks differ.
    """
    error = retry_state.outcome.exception() if retry_state.outcome else None
    asked = error.retry_after if isinstance(error, PassingError) else None
    return max(asked or 0.0, BACKOFF(retry_state))


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
