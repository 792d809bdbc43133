"""A server's own tokenizer, against fakes that hold the bundled one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystacks.tokenizer import BUNDLED_NAME, Tokenizer, TokenizerError, load_tokenizer
from models.errors import ModelError
from models.registry import load_model
from tests.models.servers.fake_server import Answer, FakeServer, Json, Request, serve

BUNDLED = load_tokenizer(BUNDLED_NAME)
START = 7  # what the fake puts before a text
PAGES: dict[str, dict[str, Json | Answer]] = {
    "llamacpp": {
        "/props": {"default_generation_settings": {"n_ctx": 4096}, "eos_token": "."},
        "/v1/models": {"data": [{"id": "tiny", "meta": {"n_vocab": 2048}}]},
    },
    "vllm": {
        "/version": {"version": "0.32.0"},
        "/v1/models": {"data": [{"id": "tiny"}]},
    },
}


def llama(request: Request) -> Answer:
    body = request.body
    if request.path == "/detokenize":
        return Answer({"content": BUNDLED.decode(body["tokens"])})
    assert request.path == "/tokenize"
    assert {"add_special", "parse_special"} <= set(body)
    start = [START] if body["add_special"] else []
    return Answer({"tokens": start + BUNDLED.encode(body["content"])})


def vllm(request: Request) -> Answer:
    body = request.body
    assert body["model"] == "tiny"
    if request.path == "/detokenize":
        known = [i for i in body["tokens"] if i < 2048]
        return Answer({"prompt": BUNDLED.decode(known)})
    start = [START] if body["add_special_tokens"] else []
    return Answer({"tokens": start + BUNDLED.encode(body["prompt"])})


SERVERS: dict[str, Callable[[Request], Answer]] = {"llamacpp": llama, "vllm": vllm}


@contextmanager
def asked(kind: str, **options: object) -> Iterator[tuple[FakeServer, Any]]:
    """A server, and the model behind it."""
    with serve(SERVERS[kind], PAGES[kind]) as fake:
        given = {"base_url": fake.base_url, "tokenizer": "server"} | options
        yield fake, load_model("openai:tiny", given)


@pytest.mark.parametrize("kind", sorted(SERVERS))
def test_a_servers_tokenizer_reads_and_writes_as_its_own_does(kind: str) -> None:
    with asked(kind) as (fake, model):
        own: Tokenizer = model.own_tokenizer
        assert model.tokenizer == ("server:tiny", own.fingerprint)
        assert own.vocab_size == BUNDLED.vocab_size
        assert (own.start_ids, own.bos_id) == ((START,), START)
        assert own.eos_ids == (tuple(BUNDLED.encode(".")) if kind == "llamacpp" else ())
        text = "The magic number of Oslo is 48213.\n\nÆther, 漢字 🙂"
        ids = own.encode(text)
        assert ids == BUNDLED.encode(text)
        assert own.decode(np.asarray(ids)) == text
        assert own.encode_template(text) == ids
        assert (own.encode(""), own.chat_texts("", "a", "")) == ([], None)
        whole = np.array(["\ufffd" not in BUNDLED.decode([i]) for i in range(2048)])
        assert np.array_equal(own.starts_character[whole], BUNDLED.starts_character[whole])
        assert not (own.starts_character & ~BUNDLED.starts_character).any()
        before = len(fake.asked)
        assert own.decode(BUNDLED.encode("plain words")) == "plain words"
        assert len(fake.asked) == before, "whole characters are decoded here"


@given(ids=st.lists(st.integers(0, 2047), max_size=30))
def test_any_ids_are_decoded_as_the_server_does(ids: list[int], own: Tokenizer) -> None:
    assert own.decode(ids) == BUNDLED.decode(ids)


@pytest.fixture(scope="module")
def own() -> Iterator[Tokenizer]:
    with asked("llamacpp") as (_, model):
        yield model.own_tokenizer


def test_another_tokenizer_has_another_fingerprint() -> None:
    def shifted(request: Request) -> Answer:
        answer = llama(request)
        assert isinstance(answer.body, dict)
        if request.path == "/tokenize" and "31415" in request.body["content"]:
            answer.body["tokens"].append(1)
        return answer

    prints = []
    for answers in (llama, llama, shifted):
        with serve(answers, PAGES["llamacpp"]) as fake:
            given = {"base_url": fake.base_url, "tokenizer": "server"}
            prints.append(load_model("openai:tiny", given).tokenizer)
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Answer({"error": "no"}, 404), r"^options.tokenizer: got 'server', which failed: HTTP 404"),
        (Answer({"tokens": [-1]}), r"which failed: /tokenize: tokens should be a list of token id"),
        (Answer({"ids": []}), r"which failed: /tokenize: the server's answer holds no 'tokens'$"),
    ],
)
def test_a_tokenizer_that_cannot_be_asked_is_refused(reply: Answer, told: str) -> None:
    with serve(lambda _: reply, PAGES["llamacpp"]) as fake, pytest.raises(ModelError, match=told):
        load_model("openai:tiny", {"base_url": fake.base_url, "tokenizer": "server"})


def test_servers_without_a_tokenizers_page_are_refused() -> None:
    with (
        serve(llama) as fake,
        pytest.raises(
            ModelError,
            match=r"^options.tokenizer: got 'server', which dialect openai cannot be asked for; "
            r"expected hf:NAME, or a server of llamacpp or vllm$",
        ),
    ):
        load_model("openai:tiny", {"base_url": fake.base_url, "tokenizer": "server"})


def test_its_name_says_that_only_a_run_asks_it() -> None:
    with pytest.raises(TokenizerError, match=r"'server:tiny' is a server's own, which only a run"):
        load_tokenizer("server:tiny")
