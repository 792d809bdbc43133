"""A request's JSON: what a server reads of it, and what it takes in memory."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.protocols import Decoding, Piece
from models.servers import bodies
from models.servers.bodies import Body
from tests.models.servers.fake_server import Answer, Request, completion, serve
from tests.models.servers.test_model import load, spell

LONG = 1 << 18


@given(
    parts=st.lists(st.lists(st.integers(0, 200_000), max_size=40), max_size=8),
    piece=st.integers(1, 9),
)
def test_ids_are_one_list_whatever_their_parts(parts: list[list[int]], piece: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bodies, "PIECE", piece)
        body = Body({"model": "ä", "seed": 0}, "prompt", parts)
        read = json.loads(bytes(body))
    assert read == {"model": "ä", "seed": 0, "prompt": [i for part in parts for i in part]}
    assert body.length == len(bytes(body))


@given(text=st.text(max_size=80), piece=st.integers(1, 9))
def test_a_text_is_the_same_text_whatever_its_pieces(text: str, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bodies, "PIECE", piece)
        assert json.loads(bytes(Body({"n": 1}, "prompt", text))) == {"n": 1, "prompt": text}


@pytest.mark.parametrize("as_text", [False, True])
def test_a_long_prompt_arrives_whole_with_its_length(as_text: bool) -> None:
    """It is sent in pieces, as any other: with Content-Length."""
    ids = np.arange(bodies.LONG + 5) % 6

    def reply(request: Request) -> Answer:
        assert "Transfer-Encoding" not in request.headers
        assert int(request.headers["Content-Length"]) > bodies.LONG
        return Answer(completion(prompt_tokens=len(ids)))

    with serve(reply) as fake:
        session = load(fake, prompt="text" if as_text else "ids").session()
        for at in range(0, len(ids), 10_000):
            session.extend(Piece(ids[at : at + 10_000], spell))
        session.generate(Decoding(4, spell))
        sent = fake.asked[0].body["prompt"]
        assert sent == (spell(ids) if as_text else ids.tolist())


def test_a_long_prompt_is_not_copied() -> None:
    """At no time is more than a piece of its JSON in memory."""
    ids = np.arange(LONG) % 100_000 + 10_000
    parts = [ids[at : at + 2048] for at in range(0, LONG, 2048)]
    tracemalloc.start()
    try:
        body = Body({"model": "m"}, "prompt", parts)
        length = body.length
        sent = sum(map(len, body.pieces()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sent == length > 6 * LONG
    assert peak < length / 3
