"""A server on the loopback that answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Json = dict[str, Any]


class Request(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: Json


class Answer(NamedTuple):
    """`drip`: seconds before each byte; `cut`: the connection ends in the middle of the body."""

    body: bytes | Json = b""
    status: int = 200
    headers: Mapping[str, str] = {}
    drip: float = 0.0
    cut: bool = False


@dataclass
class FakeServer:
    """`answers` maps a POST to an answer; `pages` are what a GET finds."""

    answers: Callable[[Request], Answer]
    pages: dict[str, Json | Answer] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    base_url: str = ""

    def answer(self, request: Request) -> Answer:
        with self.lock:
            self.asked.append(request)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return self.answers(request)
        finally:
            with self.lock:
                self.in_flight -= 1


def completion(
    text: str = " 48213.",
    prompt_tokens: int | None = 4,
    cached_tokens: int | None = None,
    **choice: Any,
) -> Json:
    """What /v1/completions answers."""
    usage: Json = {} if prompt_tokens is None else {"prompt_tokens": prompt_tokens}
    if cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    filled = {"index": 0, "text": text, "finish_reason": "stop"} | choice
    return {"choices": [filled], "usage": usage}


@contextmanager
def serve(
    answers: Callable[[Request], Answer] | Json, pages: Mapping[str, Json | Answer] = {}
) -> Iterator[FakeServer]:
    """A running server; a mapping is the answer to every POST."""
    reply = answers if callable(answers) else lambda _: Answer(dict(answers))
    fake = FakeServer(reply, dict(pages))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            page = fake.pages.get(self.path, Answer(b"", 404))
            self.send(page if isinstance(page, Answer) else Answer(page))

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length))
            self.send(fake.answer(Request(self.path, dict(self.headers), body)))

        def send(self, answer: Answer) -> None:
            body = answer.body if isinstance(answer.body, bytes) else encoded(answer.body)
            self.send_response(answer.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
            for name, value in (headers | dict(answer.headers)).items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.write(body, answer)
            except OSError:  # the client has gone
                self.close_connection = True

        def write(self, body: bytes, answer: Answer) -> None:
            if answer.cut:
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif answer.drip:
                for at in range(len(body)):
                    time.sleep(answer.drip)
                    self.wfile.write(body[at : at + 1])
            else:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    fake.base_url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def encoded(data: Json) -> bytes:
    return json.dumps(data).encode()
