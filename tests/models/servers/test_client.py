"""Faults of the wire: what is tried again, what is an error at once, what ends the run."""

from __future__ import annotations

import gzip
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from email.utils import formatdate
from importlib.util import find_spec

import pytest

from models.errors import ModelError, ServerError, StopRunError
from models.servers import client as wire
from models.servers.bodies import Body
from models.servers.client import Client, Json
from tests.models.servers.fake_server import Answer, FakeServer, Request, completion, serve

KEY = "sk-a-long-secret-0123456789"
GOOD = Answer({"fine": 1})


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "BACKOFF", lambda _: 0.01)


def ask(client: Client, tokens: int = 4) -> Json:
    future: Future[tuple[Json, float]] = client.run(
        client.post("/v1/completions", lambda: Body({"n": 1}, "prompt", [[1]]), tokens)
    )
    return future.result(30)[0]


def in_turn(*answers: Answer) -> Callable[[Request], Answer]:
    """One answer after the other, the last one for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(status: int) -> None:
    with serve(in_turn(Answer(b"busy", status), Answer(b"", status), GOOD)) as fake:
        assert ask(Client(fake.base_url, retries=2)) == GOOD.body
        assert len(fake.asked) == 3


def test_a_broken_connection_is_tried_again() -> None:
    with serve(in_turn(Answer({"fine": 0}, cut=True), GOOD)) as fake:
        assert ask(Client(fake.base_url)) == GOOD.body
        assert len(fake.asked) == 2


def test_tries_come_to_an_end() -> None:
    with (
        serve(lambda _: Answer(b"busy", 503)) as fake,
        pytest.raises(ServerError, match=r"^HTTP 503: busy$"),
    ):
        ask(Client(fake.base_url, retries=2))
    assert len(fake.asked) == 3


@pytest.mark.parametrize("after", ["0", "Thu, 01 Jan 2026 00:00:00 GMT"])
def test_a_server_that_asks_for_no_wait_is_given_one(
    after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "BACKOFF", lambda _: 0.3)
    with serve(in_turn(Answer(b"", 429, {"Retry-After": after}), GOOD)) as fake:
        began = time.monotonic()
        ask(Client(fake.base_url))
        assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("dated", [False, True])
def test_the_server_says_when_to_come_again(dated: bool) -> None:
    after = formatdate(time.time() + 2, usegmt=True) if dated else "1"
    with serve(in_turn(Answer(b"", 429, {"Retry-After": after}), GOOD)) as fake:
        began = time.monotonic()
        ask(Client(fake.base_url))
        assert time.monotonic() - began >= 0.9


def test_a_wait_beyond_the_timeout_is_an_error() -> None:
    with (
        serve(lambda _: Answer(b"", 429, {"Retry-After": "3600"})) as fake,
        pytest.raises(ServerError, match=r"asks to wait 3600 s, more than options.timeout$"),
    ):
        ask(Client(fake.base_url, timeout=5))
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer({"error": {"message": "no such\nmodel"}}, 404), r"^HTTP 404: no such model$"),
        (Answer({"detail": "prompt must be a string"}, 400), r"^HTTP 400: prompt must be a str"),
        (Answer(b"<html>login</html>"), r"answered application/json, expected JSON: <html>login"),
        (Answer(b""), r"expected JSON: an empty body$"),
        (Answer(b"[1]"), r"^the server answered a JSON list, not an object$"),
        (Answer(b'{"logprob": NaN}'), r"^the server's JSON holds NaN$"),
        (Answer(b'{"logprob": -Infinity}'), r"^the server's JSON holds -Infinity$"),
        (Answer(b'{"a":' * 100_000), r"expected JSON"),
        (Answer(b"\xff\xfe{}"), r"expected JSON"),
        (Answer({"error": {"message": "out of memory"}}), r"^the server says: out of memory$"),
        (Answer(b"x" * (2**21)), r"^the server's answer is longer than 1,049,600 bytes$"),
        (
            Answer(gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}),
            r"^the server's answer is compressed, which was not asked for$",
        ),
    ],
)
def test_what_cannot_mend_is_an_error_at_once(answer: Answer, message: str) -> None:
    with (
        serve(lambda _: answer) as fake,
        pytest.raises(ServerError, match=message) as caught,
    ):
        ask(Client(fake.base_url))
    assert "\n" not in str(caught.value)
    assert len(fake.asked) == 1


def test_a_drip_ends_at_the_deadline() -> None:
    with serve(lambda _: Answer(b"x" * 1000, drip=0.02)) as fake:
        began = time.monotonic()
        with pytest.raises(ServerError, match=r"^no whole answer within options.timeout = 0.5 s$"):
            ask(Client(fake.base_url, timeout=0.5))
        assert time.monotonic() - began < 5


def test_a_key_goes_to_its_server_only() -> None:
    with serve({"fine": 1}) as other:
        answer = Answer(b"", 307, {"Location": f"{other.base_url}/v1/completions"})
        with (
            serve(lambda _: answer) as fake,
            pytest.raises(ServerError, match=r"^HTTP 307: the server redirects to 127.0.0.1:\d+"),
        ):
            ask(Client(fake.base_url, KEY))
        assert fake.asked[0].headers["Authorization"] == f"Bearer {KEY}"
        assert other.asked == []


@pytest.mark.parametrize("status", [200, 401, 503])
def test_a_key_that_a_server_repeats_is_not_kept(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = completion(f"your key is {KEY}") if status == 200 else {"error": f"bad key {KEY}"}
    with (
        serve(lambda _: Answer(echo, status)) as fake,
        pytest.raises(ServerError) as caught,
    ):
        ask(Client(fake.base_url, KEY))
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text


@pytest.mark.parametrize("before", range(160, 240, 7))
@pytest.mark.parametrize("is_json", [True, False])
def test_no_part_of_a_key_is_kept_where_a_message_is_cut(before: int, is_json: bool) -> None:
    told = f"{'x' * before}{KEY}"
    echo = Answer({"error": told} if is_json else told.encode(), 400)
    with serve(lambda _: echo) as fake, pytest.raises(ServerError) as caught:
        ask(Client(fake.base_url, KEY))
    assert KEY[:4] not in str(caught.value)


def test_a_redirect_to_no_address_is_refused() -> None:
    with (
        serve(lambda _: Answer(b"", 302, {"Location": "http://[bad"})) as fake,
        pytest.raises(ServerError, match=r"^HTTP 302: the server redirects to another path"),
    ):
        ask(Client(fake.base_url))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080"),
        ("HTTPS_PROXY", "ftp://127.0.0.1:1080"),
        ("SSL_CERT_FILE", __file__),  # holds no certificate
    ],
)
def test_an_environment_that_allows_no_connection_is_one_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "ALL_PROXY" and find_spec("socksio"):
        pytest.skip("socks proxies work here")
    monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match=r"^options.base_url: no connection can be made .*\S$"):
        Client("http://127.0.0.1:9")


@pytest.mark.parametrize("root", ["http://xn--", "http://127.0.0.1:9/\x01"])
def test_an_address_that_is_none_is_one_line(root: str) -> None:
    with pytest.raises(ModelError, match=r"^options.base_url: \w+: .*\S$"):
        Client(root)


def refused(client: Client) -> None:
    with pytest.raises(ServerError, match=r"^HTTP 401"):
        ask(client)


def test_five_refusals_in_a_row_end_the_run() -> None:
    with serve(lambda _: Answer({"error": "wrong key"}, 401)) as fake:
        client = Client(fake.base_url)
        for _ in range(4):
            refused(client)
        for _ in range(2):
            with pytest.raises(StopRunError, match=r"^5 requests in a row failed .* wrong key$"):
                ask(client)
        assert len(fake.asked) == 5, "nothing is sent after that"


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "86400"}])
def test_what_does_not_pass_ends_the_run(headers: dict[str, str]) -> None:
    with serve(lambda _: Answer(b"busy", 429, headers)) as fake:
        client = Client(fake.base_url, retries=1)
        for _ in range(4):
            with pytest.raises(ServerError, match=r"^HTTP 429: busy"):
                ask(client)
        with pytest.raises(StopRunError, match=r"^5 requests in a row failed .* HTTP 429: busy"):
            ask(client)
        assert len(fake.asked) == 5 * (1 if headers else 2)


def test_an_answer_between_refusals_begins_the_count_anew() -> None:
    no = Answer({"error": "too long"}, 401)
    with serve(in_turn(no, no, no, no, GOOD, no)) as fake:
        client = Client(fake.base_url)
        for _ in range(4):
            refused(client)
        ask(client)
        for _ in range(4):
            refused(client)


def gone() -> FakeServer:
    with serve(GOOD.body if isinstance(GOOD.body, dict) else {}) as fake:
        return fake


def test_a_server_that_has_gone_ends_the_run() -> None:
    client = Client(gone().base_url, retries=0)
    for _ in range(4):
        with pytest.raises(
            ServerError, match=r"^http://127.0.0.1:\d+ cannot be reached: ConnectError"
        ):
            ask(client)
    with pytest.raises(StopRunError, match=r"^5 requests in a row failed"):
        ask(client)


def test_a_ceiling_of_tokens_counts_every_try() -> None:
    with serve(in_turn(Answer(b"", 503), GOOD)) as fake:
        client = Client(fake.base_url, max_tokens=300)
        ask(client, tokens=100)
        ask(client, tokens=100)
        with pytest.raises(
            StopRunError,
            match=r"^options.max_prompt_tokens = 300: 300 tokens were sent and the next prompt "
            r"has 100; raise it and run again$",
        ):
            ask(client, tokens=100)
        assert len(fake.asked) == 3
