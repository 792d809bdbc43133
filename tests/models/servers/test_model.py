"""`openai:MODEL` against fake servers: what is sent, what is believed, what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from models.errors import ModelError, ServerError
from models.protocols import Decoding, Piece, RemoteModel, Reply, StartingSession, TokenIds
from models.registry import load_model
from tests.models.servers.fake_server import Answer, FakeServer, Json, Request, completion, serve

VLLM: Mapping[str, Json | Answer] = {
    "/version": {"version": "0.32.0"},
    "/v1/models": {"data": [{"id": "tiny", "created": 5, "max_model_len": 4096}]},
}
LLAMA: Mapping[str, Json | Answer] = {
    "/props": {"default_generation_settings": {"n_ctx": 2048}, "build_info": "b1"},
    "/v1/models": {"data": [{"id": "/weights/tiny.gguf", "meta": {"n_params": 7}}]},
}
WORDS = ["<eos>", " 48213", ".", "\n", "```", " more"]


def spell(ids: TokenIds) -> str:
    return "".join(WORDS[int(i)] for i in ids)


def load(fake: FakeServer, **options: object) -> RemoteModel:
    model = load_model(
        "openai:tiny", {"base_url": f"{fake.base_url}/v1", "tokenizer": "hf:tiny"} | options
    )
    assert isinstance(model, RemoteModel)
    return model


def answered(model: RemoteModel, *stop: str, shared: int = 2) -> tuple[Reply, StartingSession]:
    """The reply to the ids 1 1 2 3, of which `shared` were read before the fork."""
    ids = [1, 1, 2, 3]
    trunk = model.session()
    trunk.extend(Piece(ids[:shared], spell))
    fork = trunk.fork()
    fork.extend(Piece(ids[shared:], spell))
    assert isinstance(fork, StartingSession)
    assert fork.position == 4
    return fork.generate(Decoding(6, spell, stop)), fork


def llama(text: str = " 48213", **fields: Any) -> Json:
    """What /completion answers."""
    return {
        "content": text,
        "tokens": [1, 2],
        "stop_type": "word",
        "truncated": False,
        "tokens_evaluated": 4,
        "tokens_predicted": 2,
        "tokens_cached": 6,
        "timings": {"cache_n": 0, "prompt_ms": 250.0, "predicted_ms": 500.0},
    } | fields


def test_ids_are_sent_with_everything_that_servers_differ_in() -> None:
    with serve(completion()) as fake:
        model = load(fake, extra={"provider": {"only": ["one"]}})
        reply, session = answered(model, "\n", ".")
        assert [request.path for request in fake.asked] == ["/v1/completions"]
        assert fake.asked[0].body == {
            "model": "tiny",
            "prompt": [1, 1, 2, 3],
            "max_tokens": 6,
            "temperature": 0,
            "seed": 0,
            "stop": ["\n", "."],
            "frequency_penalty": 0,
            "presence_penalty": 0,
            "provider": {"only": ["one"]},
        }
        assert reply == Reply(" 48213", (), "stop"), "cut where the server went on"
        usage = session.usage()
        assert (usage.prompt_tokens, usage.cached_tokens, usage.cache_bytes) == (4, None, None)
        assert (usage.prefill_seconds, usage.decode_seconds) == (None, None)
        assert usage.request_seconds
        assert (model.forks, model.device, model.max_position) == ("resend", "remote", None)


def test_vllm_is_known_and_tells_ids() -> None:
    told = completion(
        " 48213.\n more", cached_tokens=3, token_ids=[1, 2, 3, 5, 0], stop_reason=None,
        prompt_token_ids=[1, 1, 2, 3],
    )  # fmt: skip
    with serve(told, VLLM) as fake:
        model = load(fake)
        assert model.max_position == 4096
        assert model.describe()["dialect"] == "vllm"
        assert answered(model)[0] == Reply(" 48213.\n more", (1, 2, 3, 5), "eos")
        reply, session = answered(model, ".")
        assert reply == Reply(" 48213", (1,), "stop")
        assert session.usage().cached_tokens == 3
        assert fake.asked[0].body["return_token_ids"] is True
        assert "cache_salt" not in fake.asked[0].body


def test_llama_cpp_is_known_and_tells_what_it_took() -> None:
    with serve(
        llama(timings={"cache_n": 3, "prompt_ms": 250.0, "predicted_ms": 500.0}), LLAMA
    ) as f:
        model = load(f)
        assert model.max_position == 2048
        assert "/weights" not in json.dumps(model.describe())
        reply, session = answered(model, ".")
        usage = session.usage()
        assert reply == Reply(" 48213", (1,), "stop")
        assert (usage.cached_tokens, usage.prefill_seconds, usage.decode_seconds) == (3, 0.25, 0.5)
        assert f.asked[0].path == "/completion"
        assert f.asked[0].body == {
            "model": "tiny",
            "prompt": [1, 1, 2, 3],
            "n_predict": 6,
            "temperature": 0,
            "repeat_penalty": 1,
            "frequency_penalty": 0,
            "presence_penalty": 0,
            "dry_multiplier": 0,
            "seed": 0,
            "stop": ["."],
            "return_tokens": True,
        }


SERVES: Mapping[str, Json | Answer] = {"/openapi.json": {"paths": {"/load_model": {}}}}


@pytest.mark.parametrize(
    ("pages", "own"),
    [
        ({}, {"frequency_penalty": 0, "presence_penalty": 0}),
        (VLLM, {"frequency_penalty": 0, "presence_penalty": 0, "repetition_penalty": 1}),
        (SERVES, {"frequency_penalty": 0}),
    ],
    ids=["openai", "vllm", "transformers"],
)
def test_no_penalty_keeps_an_answer_from_repeating_the_prompt(
    pages: Mapping[str, Json | Answer], own: dict[str, float]
) -> None:
    """vLLM takes one from a model's generation_config.json where a request sets none."""
    with serve(completion(), pages) as fake:
        answered(load(fake))
        answered(load(fake, extra={"frequency_penalty": 0.5}))
    sent = [{k: v for k, v in r.body.items() if "penalty" in k} for r in fake.asked]
    assert sent == [own, own | {"frequency_penalty": 0.5}], "a user's own comes first"


def test_transformers_serve_is_sent_text() -> None:
    pages = {"/openapi.json": {"paths": {"/load_model": {}}}}
    with serve(completion(), pages) as fake:
        model = load(fake)
        answered(model)
        assert model.describe()["dialect"] == "transformers"
        assert fake.asked[0].body["prompt"] == " 48213 48213.\n"
        with pytest.raises(ModelError, match=r"^options.prompt: got 'ids', expected text: dialect"):
            load(fake, prompt="ids")


def test_a_character_cut_by_a_fork_is_whole_in_the_text() -> None:
    halves = bytes("é", "utf-8")
    with serve(completion(prompt_tokens=2)) as fake:
        session = load(fake, prompt="text").session()

        def read(ids: TokenIds) -> str:
            return bytes(halves[int(i)] for i in ids).decode("utf-8", "replace")

        for half in (0, 1):
            session.extend(Piece([half], read))
        session.generate(Decoding(6, read))
        assert fake.asked[0].body["prompt"] == "é"


@pytest.mark.parametrize(("first", "asked"), [("", 2), ("```", 2), (" ", 2), ("x", 1)])
def test_a_stop_met_before_the_answer_is_no_answer(first: str, asked: int) -> None:
    """A server cuts at the newline that a model begins with; in process that is its lead."""

    def reply(request: Request) -> Answer:
        return Answer(completion(first if "stop" in request.body else "\n 48213\n more"))

    with serve(reply) as fake:
        text = answered(load(fake), "\n")[0].text
        assert len(fake.asked) == asked
        assert text == ("\n 48213" if asked == 2 else first)


WRONG: list[tuple[Json, str]] = [
    ({"choices": []}, r"^choices: got \[\], expected one answer$"),
    ({}, r"^choices: got None, expected one answer$"),
    (completion(text=None), r"^choices\[0\].text: got None, expected a text$"),  # type: ignore[arg-type]
    (completion(finish_reason="content_filter"), r"^finish_reason: got 'content_filter', expected"),
    (completion(finish_reason=None), r"^finish_reason: got None, expected stop or length$"),
    (completion(prompt_tokens=3), r"^the prompt was shortened: the server read 3 tokens of 4$"),
    (completion(prompt_tokens=5), r"^the prompt was lengthened: the server read 5 tokens of 4$"),
    (completion(prompt_tokens=-1), r"^usage.prompt_tokens: got -1, expected a count$"),
    (completion(prompt_tokens=4.0), r"^usage.prompt_tokens: got 4.0, expected a count$"),  # type: ignore[arg-type]
    (completion(cached_tokens=9), r"^the server says that 9 of 4 were cached$"),
    (completion() | {"usage": [1]}, r"^usage: got \[1\], expected a mapping$"),
    (completion(token_ids=[1] * 9), r"^the answer has 9 tokens where 6 were allowed$"),
    (completion(token_ids=[1, "2"]), r"^choices\[0\].token_ids: got \[1, '2'\], expected token"),
    (completion(prompt_token_ids=[1, 1, 2, 9]), r"^prompt_token_ids: the server read other ids"),
]


@pytest.mark.parametrize(("answer", "message"), WRONG)
def test_an_answer_that_does_not_fit_is_an_error(answer: Json, message: str) -> None:
    with serve(answer, VLLM) as fake, pytest.raises(ServerError, match=message):
        answered(load(fake))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"truncated": True}, r"^truncated: the server has shortened"),
        ({"tokens_evaluated": 2}, r"^the prompt was shortened: the server read 2 tokens of 4$"),
        ({"stop_type": "none"}, r"^stop_type: got 'none', expected one of limit, word, eos$"),
        ({"timings": {"prompt_ms": -1}}, r"^timings.prompt_ms: got -1, expected a number from 0$"),
        ({"tokens_predicted": 60}, r"^the answer has 60 tokens where 6 were allowed$"),
    ],
)
def test_an_answer_of_llama_cpp_that_does_not_fit_is_an_error(fields: Json, message: str) -> None:
    with serve(llama(**fields), LLAMA) as fake, pytest.raises(ServerError, match=message):
        answered(load(fake))


def test_a_text_may_be_encoded_a_little_differently() -> None:
    with serve(completion(prompt_tokens=5)) as fake:
        assert answered(load(fake, prompt="text"))[1].usage().prompt_tokens == 5
    with (
        serve(completion(prompt_tokens=400)) as fake,
        pytest.raises(ServerError, match=r"^the prompt was lengthened"),
    ):
        answered(load(fake, prompt="text"))


def test_cold_prompts_have_a_salt_of_their_own() -> None:
    with serve(completion(cached_tokens=0), VLLM) as fake:
        model = load(fake, prefix="cold")
        for _ in range(2):
            answered(model)
        salts = [request.body["cache_salt"] for request in fake.asked]
        assert len(set(salts)) == 2


@pytest.mark.parametrize(("cached", "is_error"), [(0, False), (2, True)])
def test_a_cold_prompt_that_was_cached_is_an_error(cached: int, is_error: bool) -> None:
    with serve(llama(timings={"cache_n": cached}), LLAMA) as fake:
        model = load(fake, prefix="cold")
        if is_error:
            with pytest.raises(ServerError, match=r"^prefix: cold: 2 prompt tokens came from"):
                answered(model)
        else:
            answered(model)
        assert fake.asked[0].body["cache_prompt"] is False


def warm_llama(cached: int | None) -> Any:
    def reply(request: Request) -> Answer:
        prompt = request.body["prompt"]
        return Answer(llama(timings={"cache_n": cached}, tokens_evaluated=len(prompt)))

    return reply


def test_a_warm_prompt_is_sent_behind_its_prefix() -> None:
    with serve(warm_llama(2), LLAMA) as fake:
        model = load(fake, prefix="warm")
        assert model.sends_prefixes
        _, session = answered(model)
        assert [request.body["prompt"] for request in fake.asked] == [[1, 1], [1, 1, 2, 3]]
        assert all(request.body["cache_prompt"] for request in fake.asked)
        assert session.usage().cached_tokens == 2
        with pytest.raises(ServerError, match=r"^prefix: warm: the question shares no prefix"):
            answered(model, shared=0)


def test_a_warm_prompt_that_was_not_cached_is_an_error() -> None:
    with (
        serve(warm_llama(0), LLAMA) as fake,
        pytest.raises(ServerError, match=r"^prefix: warm: no prompt token came from"),
    ):
        answered(load(fake, prefix="warm"))


@pytest.mark.parametrize(("lost", "tries"), [(1, 2), (2, 3), (3, 3)])
def test_a_warm_prefix_that_another_request_displaced_is_sent_again(lost: int, tries: int) -> None:
    """llama.cpp gives a slot to whoever fits it: requests at once take it from each other."""
    left = [lost]

    def reply(request: Request) -> Answer:
        prompt = request.body["prompt"]
        cached = 2 if left[0] <= 0 else 0
        left[0] -= len(prompt) == 4
        return Answer(llama(timings={"cache_n": cached}, tokens_evaluated=len(prompt)))

    with serve(reply, LLAMA) as fake:
        model = load(fake, prefix="warm", concurrency=2)
        if lost < 3:
            assert answered(model)[1].usage().cached_tokens == 2
        else:
            with pytest.raises(ServerError, match=r"^prefix: warm: no prompt token came from"):
                answered(model)
        sent = [request.body["prompt"] for request in fake.asked]
        assert sent == [[1, 1], [1, 1, 2, 3]] * tries


def test_what_a_server_does_not_count_stays_unknown() -> None:
    with serve(warm_llama(None), LLAMA) as fake:
        assert answered(load(fake, prefix="warm"))[1].usage().cached_tokens is None


SGLANG: Mapping[str, Json | Answer] = {"/get_server_info": {"version": "0.5.23"}}
GOLD = (1, 2)  # after the ids 1 1 2 3


def scored(model: RemoteModel) -> float | None:
    session = model.session()
    session.extend(Piece([1, 1], spell))
    fork = session.fork()
    fork.extend(Piece([2, 3], spell))
    return fork.generate(Decoding(6, spell, (), GOLD)).gold_logprob


def vllm_scoring(request: Request) -> Answer:
    if "prompt_logprobs" not in request.body:
        return Answer(completion())
    assert request.body["prompt_logprobs"] == 0
    prompt = request.body["prompt"]
    listed: list[Any] = [None]
    listed += [
        {str(token): {"logprob": -0.25 * at, "rank": 1}, "9": {"logprob": -9.0, "rank": 2}}
        for at, token in enumerate(prompt[1:], start=1)
    ]
    return Answer(completion(prompt_tokens=len(prompt), prompt_logprobs=listed))


def sglang_scoring(request: Request) -> Answer:
    if request.path != "/generate":
        return Answer(completion())
    body = request.body
    assert body["return_logprob"] is True
    start = body["logprob_start_len"]
    listed = [[None if at == start else -0.25 * at, token, None]
              for at, token in enumerate(body["input_ids"]) if at >= start]  # fmt: skip
    return Answer({"text": "x", "meta_info": {"input_token_logprobs": listed}})


def llama_scoring(request: Request) -> Answer:
    body = request.body
    tokens = len(body["prompt"])
    if "logit_bias" not in body:
        return Answer(llama())
    ((forced, bias),) = body["logit_bias"]
    assert bias >= 1000
    assert (body["n_predict"], body["n_probs"], body["cache_prompt"]) == (1, 1, True)
    entry = {"id": forced, "logprob": -0.25 * tokens, "top_logprobs": [{"id": 9, "logprob": -0.1}]}
    return Answer(llama(tokens_evaluated=tokens, completion_probabilities=[entry]))


@pytest.mark.parametrize(
    ("answers", "pages", "prompts"),
    [
        (vllm_scoring, VLLM, [[1, 1, 2, 3, 1, 2]]),
        (sglang_scoring, SGLANG, [[1, 1, 2, 3, 1, 2]]),
        (llama_scoring, LLAMA, [[1, 1, 2, 3], [1, 1, 2, 3, 1]]),
    ],
    ids=["vllm", "sglang", "llamacpp"],
)
def test_the_right_answer_is_scored(
    answers: Any, pages: Mapping[str, Json | Answer], prompts: list[list[int]]
) -> None:
    """Each fake gives the token at position p the logarithm -p / 4: positions 4 and 5."""
    with serve(answers, pages) as fake:
        model = load(fake, gold_logprob=True)
        assert scored(model) == -0.25 * (4 + 5)
        asked = [request.body for request in fake.asked[1:]]
        assert [body.get("prompt", body.get("input_ids")) for body in asked] == prompts
        assert model.gold_scoring == ("whole" if len(prompts) == 1 else "by token")
        assert scored(load(fake)) is None, "not asked for"
        assert load(fake).gold_scoring == "none"


def choosing(request: Request, choices: list[Any]) -> Answer:
    """Nothing that could be scored."""
    asked = "prompt_logprobs" not in request.body
    return Answer(completion() if asked else {"choices": choices})


def test_the_scores_of_a_long_prompt_fit() -> None:
    """vLLM tells those of all tokens, about 80 bytes each: more than the prompt itself."""
    length = 98_304
    entry = {"logprob": -0.0002169502549804747, "rank": 1, "decoded_token": " server"}

    def reply(request: Request) -> Answer:
        if "prompt_logprobs" not in request.body:
            return Answer(completion(prompt_tokens=length))
        listed = [None, *({"100000": entry} for _ in range(length - 1)), {"1": {"logprob": -0.5}}]
        return Answer({"choices": [{"prompt_logprobs": listed}]})

    pages = {**VLLM, "/v1/models": {"data": [{"id": "tiny", "max_model_len": 2 * length}]}}
    with serve(reply, pages) as fake:
        session = load(fake, gold_logprob=True).session()
        session.extend(Piece([1] * length, spell))
        assert session.generate(Decoding(6, spell, (), (1,))).gold_logprob == -0.5


@pytest.mark.parametrize(
    ("answers", "pages"),
    [
        (lambda _: Answer(completion(prompt_tokens=None)), VLLM),
        (lambda r: choosing(r, []), VLLM),
        (lambda r: choosing(r, [None]), VLLM),
        (lambda _: Answer(completion(prompt_tokens=None) | {"meta_info": {}}), SGLANG),
        (lambda _: Answer(llama(tokens_evaluated=None)), LLAMA),
        (
            lambda r: Answer(llama(
                tokens_evaluated=len(r.body["prompt"]),
                completion_probabilities=[{"id": 9, "logprob": -1.0}],
            )),
            LLAMA,
        ),
    ],
    ids=["vllm", "no choice", "null", "sglang", "llamacpp", "another token"],
)  # fmt: skip
def test_a_score_that_a_server_does_not_tell_is_unknown(
    answers: Any, pages: Mapping[str, Json | Answer]
) -> None:
    with serve(answers, pages) as fake:
        assert scored(load(fake, gold_logprob=True)) is None


def test_a_score_above_0_is_an_error() -> None:
    def reply(request: Request) -> Answer:
        entry = {"id": 1, "logprob": 3.0}
        return Answer(llama(completion_probabilities=[entry]))

    with (
        serve(reply, LLAMA) as fake,
        pytest.raises(ServerError, match=r"^completion_probabilities: got 3.0, expected a number"),
    ):
        scored(load(fake, gold_logprob=True))


def test_scores_that_cannot_be_had_are_refused() -> None:
    told = "options.gold_logprob: got true, expected false: "
    with serve(completion(), VLLM) as fake:
        with refusal(rf"^{told}dialect openai tells no log-probability of given tokens$"):
            load(fake, gold_logprob=True, dialect="openai")
        with refusal(
            rf"^{told}the answer's tokens cannot be told in a prompt that is sent as text"
        ):
            load(fake, gold_logprob=True, prompt="text")
        with refusal(rf"^{told}vLLM scores without its prefix cache"):
            load(fake, gold_logprob=True, prefix="warm")


def test_a_thought_that_a_server_tells_apart_is_no_part_of_the_answer() -> None:
    with serve(completion(" 48213", reasoning_content="it was 7")) as fake:
        reply = answered(load(fake))[0]
        assert (reply.text, reply.thought) == (" 48213", "it was 7")
    with serve(completion(" 48213")) as fake:
        assert answered(load(fake))[0].thought is None


def test_a_fingerprint_covers_what_decides_answers() -> None:
    with serve(completion(), VLLM) as fake:
        plain = load(fake).fingerprint
        same: list[dict[str, Any]] = [{"timeout": 5}, {"retries": 0}, {"gold_logprob": True}]
        assert {load(fake, **options).fingerprint for options in same} == {plain}
        other: list[dict[str, Any]] = [
            {"declared": {"cache": "fp8"}}, {"extra": {"top_k": 1}}, {"prefix": "cold"},
            {"prompt": "text"}, {"dialect": "openai"}, {"concurrency": 4},
        ]  # fmt: skip
        prints = {load(fake, **options).fingerprint for options in other}
        assert len(prints) == len(other)
        assert plain not in prints
        fake.pages["/version"] = {"version": "0.33.0"}
        assert load(fake).fingerprint != plain
    with serve(completion(), VLLM) as moved:
        assert load(moved).fingerprint == plain, "another port is the same server"


@contextmanager
def refusal(message: str) -> Iterator[None]:
    with pytest.raises(ModelError, match=message) as caught:
        yield
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": None}, r"^options.base_url: got None, expected the server's address, such"),
        ({"base_url": "127.0.0.1:80"}, r"^options.base_url: got '127.0.0.1:80', expected the se"),
        ({"base_url": "ftp://host/v1"}, r"^options.base_url: got 'ftp://host/v1', expected"),
        ({"base_url": "http://host:x/v1"}, r"^options.base_url: got 'http://host:x/v1', expected"),
        ({"tokenizer": ""}, r"^options.tokenizer: got '', expected the name of the server's tok"),
        ({"prompt": "chat"}, r"^options.prompt: got 'chat', expected ids or text: the sweep's pr"),
        ({"prompt": "audio"}, r"^options.prompt: got 'audio', expected one of ids, text$"),
        ({"prefix": "hot"}, r"^options.prefix: got 'hot', expected one of as_is, cold, warm$"),
        ({"dialect": "tgi"}, r"^options.dialect: got 'tgi', expected one of auto, openai, vllm"),
        ({"concurrency": 0}, r"^options.concurrency: got 0, expected a whole number from 1$"),
        ({"gold_logprob": 1}, r"^options.gold_logprob: got 1, expected true or false$"),
        ({"retries": True}, r"^options.retries: got True, expected a whole number from 0$"),
        ({"timeout": 0}, r"^options.timeout: got 0, expected seconds above 0$"),
        ({"timeout": float("inf")}, r"^options.timeout: got inf, expected seconds above 0$"),
        ({"extra": [1]}, r"^options.extra: got \[1\], expected a mapping$"),
        ({"extra": {"seed": 1}}, r"^options.extra: got 'seed', which the harness sends itself$"),
        ({"url": "x"}, r"^options: got 'url', expected one of base_url, tokenizer, key_env"),
        ({"key_env": "NO_SUCH_KEY"}, r"^options.key_env: the variable NO_SUCH_KEY is not set$"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    right: dict[str, object] = {"base_url": "http://127.0.0.1:9/v1", "tokenizer": "hf:tiny"}
    with refusal(message):
        load_model("openai:tiny", right | options)


@pytest.mark.parametrize(
    "options",
    [
        {"key_env": "sk-secret-0123456789"},
        {"base_url": "https://me:sk-secret-0123456789@host/v1"},
        {"base_url": "https://host/v1?key=sk-secret-0123456789"},
        {"key_env": "ODD_KEY"},
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD_KEY", "sk-secret-0123456789\nX: y")
    with pytest.raises(ModelError, match=r"^options.(key_env|base_url): ") as caught:
        load_model("openai:tiny", {"base_url": "http://h/v1", "tokenizer": "hf:tiny"} | options)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("path", ["/props", "/v1/models"])
def test_a_server_that_is_not_ready_is_not_taken_for_another(path: str, status: int) -> None:
    busy = Answer({"error": {"code": status, "message": "Loading model"}}, status)
    with (
        serve(llama(), {**LLAMA, path: busy}) as fake,
        refusal(
            r"^options.base_url: the server is not ready, its page \S+ cannot be read: "
            rf"HTTP {status}: Loading model$"
        ),
    ):
        load(fake, retries=0)


def test_a_page_that_cannot_be_read_now_is_asked_for_again() -> None:
    busy = Answer(b"", 503, {"Retry-After": "1"})
    with serve(llama(), {**LLAMA, "/props": busy}) as fake:
        threading.Timer(0.5, lambda: fake.pages.update(LLAMA)).start()
        assert load(fake).describe()["dialect"] == "llamacpp"


@pytest.mark.parametrize("status", [403, 404, 405, 500, 501])
def test_a_page_that_is_refused_is_none_of_the_server(status: int) -> None:
    refused = Answer({"message": "Missing Authentication Token"}, status)
    with serve(completion(), {**VLLM, "/props": refused}) as fake:
        assert load(fake).describe()["dialect"] == "vllm"


def test_servers_that_cannot_serve_are_refused_on_loading() -> None:
    with serve(completion(), VLLM) as fake:
        with refusal(r"^model: got 'tiny2', expected one that is served: tiny$"):
            load_model("openai:tiny2", {"base_url": fake.base_url, "tokenizer": "hf:tiny"})
        with refusal(r"^options.prefix: got 'cold', which dialect openai has no request for"):
            load(fake, prefix="cold", dialect="openai")
        fake.pages["/v1/models"] = Answer({"error": "who are you?"}, 401)
        with refusal(r"^options.key_env: HTTP 401: who are you\?$"):
            load(fake)
    with refusal(r"^options.base_url: http://\S+ cannot be reached: "):
        load(fake)
