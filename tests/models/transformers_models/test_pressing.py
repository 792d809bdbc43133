"""Presses in models of transformers: answers as if evicted tokens were hidden, bytes, forks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")

from models.errors import ModelError
from models.presses.contract import Past, kept
from models.presses.observed import Call, Observed
from models.presses.options import PRESSES, pressing
from models.registry import load_model
from models.transformers_models import attention_calls
from models.transformers_models.attention_calls import AttentionCall
from models.transformers_models.caches import fp8_layer
from models.transformers_models.loading import HuggingFaceModel, Weights, in_memory
from models.transformers_models.session import HuggingFaceSession
from tests.models.architectures import SERVED, STEPWISE, build, reachable_bytes
from tests.models.small import random_ids, relative_difference
from tests.models.transformers_models.tiny import tiny_llama
from tests.sessions import held

CONTEXT, QUESTION = random_ids(100), random_ids(9, seed=4)
KEEP = 0.25
OPTIONS: dict[str, dict[str, Any]] = {
    name: {"name": name, "keep": KEEP} for name in (*PRESSES, "seen")
}
OPTIONS["snapkv"] |= {"window": 11}
OPTIONS["quest"] |= {"page": 8, "dense_layers": 1}
OPTIONS["seen"] |= {"name": "snapkv", "window": 5, "sees_question": True}
EVICTING = [name for name in PRESSES if name != "quest"]


@pytest.fixture(scope="module")
def llama() -> Weights:
    return in_memory(tiny_llama())


def session_of(weights: Weights, **press: Any) -> HuggingFaceSession:
    return HuggingFaceModel("tiny", weights, {"press": press} if press else {}).session()


def answer_to(session: HuggingFaceSession, question: Tensor = QUESTION) -> Tensor:
    """Logits after each token of the question."""
    session.context_ends()
    logits = session.score(question.numpy())
    session.question_ends()
    return logits


def read(session: HuggingFaceSession, *sizes: int) -> HuggingFaceSession:
    for part in CONTEXT.split([*sizes, len(CONTEXT) - sum(sizes)]):
        session.read(part.numpy())
    return session


class Hiding:
    """A session whose cache stays whole: what a press would evict is hidden from attention.

    Every KV head reads its own tokens, gathered anew at each call.
    """

    def __init__(self, weights: Weights, press: dict[str, Any]) -> None:
        self.network = weights.network
        self.session = session_of(weights)
        self.press = pressing(press)
        assert self.press is not None
        self.rotaries = HuggingFaceModel("tiny", weights, {"press": press})._layout
        self.rows: dict[int, Tensor] = {}

    def read_context(self) -> None:
        """In one piece; the queries of all tokens are seen at once."""
        assert self.press is not None
        calls: dict[int, AttentionCall] = {}

        def collect(layer: int, call: AttentionCall) -> AttentionCall:
            calls[layer] = call
            return call

        with attention_calls.watched(self.network.module, self.network.attention_tables, collect):
            self.session.read(CONTEXT.numpy())
        for layer, rotary in self.rotaries.items():
            call = calls[layer]
            seen = Observed(self.press.needs, rotary)
            seen.add(Call(call.query[0] * call.scaling, call.key[0], 0))
            past = Past(layer, call.key[0], call.value[0], seen)
            self.rows[layer] = kept(self.press.press, past)

    def answer(self) -> Tensor:
        def hide(layer: int, call: AttentionCall) -> AttentionCall:
            if layer not in self.rows:
                return call
            added = torch.arange(len(CONTEXT), call.key.shape[2])
            rows = torch.cat((self.rows[layer], added.expand(len(self.rows[layer]), -1)), dim=1)
            index = rows[None, :, :, None].expand(-1, -1, -1, call.key.shape[-1])
            mask = None if call.mask is None else call.mask[..., : rows.shape[1]]
            if call.mask is not None:  # of what every head sees, and of the question's own
                mask = call.mask[..., -rows.shape[1] :]
            return call._replace(
                key=call.key.gather(2, index), value=call.value.gather(2, index), mask=mask
            )

        with attention_calls.watched(self.network.module, self.network.attention_tables, hide):
            return self.session.score(QUESTION.numpy())


@pytest.mark.parametrize("name", EVICTING)
def test_answers_are_those_of_a_whole_cache_whose_evicted_tokens_are_hidden(
    llama: Weights, name: str
) -> None:
    hiding = Hiding(llama, OPTIONS[name])
    hiding.read_context()
    expected = hiding.answer()
    found = answer_to(read(session_of(llama, **OPTIONS[name])))
    assert relative_difference(found, expected) < 1e-5
    assert relative_difference(found, answer_to(read(session_of(llama)))) > 1e-3


@pytest.mark.parametrize("name", OPTIONS)
def test_pieces_and_forks_change_nothing(llama: Weights, name: str) -> None:
    """Whole, in pieces, and in a fork of a trunk that has been forked before and reads on."""
    press = OPTIONS[name]
    whole = answer_to(read(session_of(llama, **press)))
    parts = answer_to(read(session_of(llama, **press), 3, 50, 1, 1, 20))
    assert relative_difference(parts, whole) < 1e-5
    trunk = session_of(llama, **press)
    trunk.read(CONTEXT[:40].numpy())
    early = answer_to(trunk.fork())
    fresh = session_of(llama, **press)
    fresh.read(CONTEXT[:40].numpy())
    assert relative_difference(early, answer_to(fresh)) < 1e-5
    trunk.read(CONTEXT[40:].numpy())
    forked, again = trunk.fork(), trunk.fork()
    assert relative_difference(answer_to(forked), whole) < 1e-5
    assert relative_difference(answer_to(again), whole) < 1e-5
    assert held(trunk)["full"] == 2 * 2 * 2 * 8 * 4 * 100  # layers, K and V, heads, width, bytes


@pytest.mark.parametrize("name", EVICTING)
def test_bytes_fall_to_the_share_that_is_kept(llama: Weights, name: str) -> None:
    trunk = read(session_of(llama, **OPTIONS[name]))
    fork = trunk.fork()
    fork.context_ends()
    row = 2 * 2 * 2 * 8 * 4  # layers, K and V, KV heads, width, bytes
    found = held(fork)
    assert found["full"] == row * 25
    assert found["reserve"] == row * 16
    assert set(found) == {"full", "reserve"}
    assert sum(found.values()) == reachable_bytes(fork.cache.layers)
    fork.read(QUESTION.numpy())
    assert held(fork)["full"] == row * (25 + len(QUESTION))
    assert held(trunk)["full"] == row * 100  # the trunk keeps everything


def test_the_question_is_not_seen_unless_the_option_says_so(llama: Weights) -> None:
    """What is kept depends on the context alone, and with `sees_question` on the question, too."""

    def keys_after(question: Tensor, **more: Any) -> Tensor:
        session = read(session_of(llama, **OPTIONS["snapkv"], **more))
        answer_to(session, question)
        first: Tensor = session.cache.layers[0].keys[:, :, :20]
        return first

    other = random_ids(9, seed=7)
    assert torch.equal(keys_after(QUESTION), keys_after(other))
    seen = keys_after(QUESTION, sees_question=True)
    assert not torch.equal(seen, keys_after(other, sees_question=True))


def test_a_press_that_sees_the_question_waits_for_it(llama: Weights) -> None:
    session = read(session_of(llama, **OPTIONS["seen"]))
    full = answer_to(read(session_of(llama)))
    assert relative_difference(answer_to(session), full) < 1e-6
    assert held(session)["full"] == 2 * 2 * 2 * 8 * 4 * 27  # a quarter of 109


def test_quest_keeps_everything_and_reads_less(llama: Weights) -> None:
    session = read(session_of(llama, **OPTIONS["quest"]))
    found = answer_to(session)
    full = read(session_of(llama))
    assert relative_difference(found, answer_to(full)) > 1e-3
    assert held(session)["full"] == held(full)["full"]
    assert held(session)["pages"] == 1 * 2 * 2 * 13 * 8 * 4  # a layer, bounds, heads, pages
    steps = read(session_of(llama, **OPTIONS["quest"]))
    steps.context_ends()
    one_by_one = torch.cat([steps.score([token]) for token in QUESTION.tolist()])
    assert relative_difference(one_by_one, found) < 1e-5
    everything = read(session_of(llama, name="quest", keep=1))
    assert relative_difference(answer_to(everything), answer_to(read(session_of(llama)))) < 1e-5


def test_keeping_everything_changes_nothing(llama: Weights) -> None:
    full = answer_to(read(session_of(llama)))
    for name in EVICTING:
        found = answer_to(read(session_of(llama, name=name, keep=1)))
        assert relative_difference(found, full) < 1e-5, name


def test_an_empty_context_and_one_token(llama: Weights) -> None:
    for name in PRESSES:
        empty = session_of(llama, **OPTIONS[name])
        assert torch.isfinite(answer_to(empty)).all()
        one = session_of(llama, **OPTIONS[name])
        one.read(CONTEXT[:1].numpy())
        plain = session_of(llama)
        plain.read(CONTEXT[:1].numpy())
        assert relative_difference(answer_to(one), answer_to(plain)) < 1e-5


def tiny(model_type: str) -> Weights:
    return in_memory(build(next(a for a in (*SERVED, *STEPWISE) if a.model_type == model_type)))


@pytest.mark.parametrize("model_type", ["gemma3_text", "gemma2", "gemma3n_text"])
def test_windows_stay_and_full_layers_are_pressed(model_type: str) -> None:
    """Gemma 2 caps its logits, and layers of Gemma 3n share the keys of another."""
    weights = tiny(model_type)
    plain = read(session_of(weights))
    answer_to(plain)
    for name in ("snapkv", "expected_attention", "quest"):
        session = read(session_of(weights, **OPTIONS[name]), 30, 1)
        assert torch.isfinite(answer_to(session)).all()
        assert held(session)["window"] == held(plain)["window"]
        full = held(plain)["full"]
        kept_share = 1 if name == "quest" else (25 + len(QUESTION)) / (100 + len(QUESTION))
        assert held(session)["full"] == pytest.approx(full * kept_share)


def test_a_gemma_answers_as_if_evicted_tokens_were_hidden() -> None:
    weights = tiny("gemma3_text")
    hiding = Hiding(weights, OPTIONS["expected_attention"])
    hiding.read_context()
    expected = hiding.answer()
    found = answer_to(read(session_of(weights, **OPTIONS["expected_attention"]), 60))
    assert relative_difference(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("model_type", "press", "told"),
    [
        ("deepseek_v3", "knorm", "keeps one latent for all heads (MLA), not keys"),
        ("deepseek_v4", "knorm", "has no layer that keeps every token's keys"),
        ("mistral", "knorm", "has no layer that keeps every token's keys"),
        ("bloom", "knorm", "does not call its attention where queries could be seen"),
        ("gpt2", "expected_attention", "cannot tell how GPT2LMHeadModel turns its queries"),
        pytest.param("mamba2", "knorm", "has no layer that keeps every", marks=pytest.mark.slow),
    ],
)
def test_models_that_a_press_cannot_serve(model_type: str, press: str, told: str) -> None:
    with pytest.raises(ModelError, match=r"^options\.press: [^\n]*$") as caught:
        HuggingFaceModel("tiny", tiny(model_type), {"press": OPTIONS[press]})
    assert told in str(caught.value)


def test_a_model_that_goes_on_at_other_positions_is_refused(llama: Weights) -> None:
    """The check at load compares with hidden tokens, and would see shifted positions."""
    from models.transformers_models import pressing as room

    class Shifted(room.PressedMixin):
        def get_seq_length(self) -> int:
            return vars(self)["keys"].length  # type: ignore[no-any-return]

    class ByLength(torch.nn.Module):
        """A model that takes its positions from the cache."""

        def __init__(self, module: Any) -> None:
            super().__init__()
            self.module, self.config = module, module.config

        def forward(self, input_ids: Tensor, past_key_values: Any, use_cache: bool) -> Any:
            return self.module(
                input_ids=input_ids, past_key_values=past_key_values, use_cache=use_cache
            )

        def get_input_embeddings(self) -> Any:
            return self.module.get_input_embeddings()

        def get_output_embeddings(self) -> Any:
            return self.module.get_output_embeddings()

        @property
        def dtype(self) -> torch.dtype:
            found: torch.dtype = self.module.dtype
            return found

    def load() -> None:
        weights = in_memory(ByLength(llama.network.module))
        HuggingFaceModel("tiny", weights, {"press": OPTIONS["knorm"]})

    load()  # the length that a pressed layer tells is the true one
    growing = next(iter(room.PRESSED))
    before = room.PRESSED[growing]
    room.PRESSED[growing] = type("Wrong", (Shifted, growing), {})
    try:
        with pytest.raises(ModelError, match=r"answers otherwise than if evicted tokens"):
            load()
    finally:
        room.PRESSED[growing] = before


def test_quest_needs_an_attention_that_takes_masks() -> None:
    network = tiny_llama()
    network.config._attn_implementation = "flash_attention_2"
    told = r"^options\.attn_implementation: got 'flash_attention_2', expected sdpa or eager"
    with pytest.raises(ModelError, match=told):
        HuggingFaceModel("tiny", in_memory(network), {"press": OPTIONS["quest"]})


def test_eager_attention_is_seen_too(llama: Weights) -> None:
    eager = tiny_llama()
    eager.set_attn_implementation("eager")
    for name in ("snapkv", "expected_attention", "quest"):
        found = answer_to(read(session_of(in_memory(eager), **OPTIONS[name])))
        expected = answer_to(read(session_of(llama, **OPTIONS[name])))
        assert relative_difference(found, expected) < 1e-4


def test_the_attention_table_is_as_before(llama: Weights) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    read(session_of(llama, **OPTIONS["snapkv"]))
    assert not ALL_ATTENTION_FUNCTIONS._local_mapping


def test_the_fingerprint_knows_the_press(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)

    def model(**options: object) -> Any:
        return load_model(f"hf:{tmp_path}", {"device": "cpu", **options})

    presses = [
        {"name": "snapkv", "keep": 0.25},
        {"name": "snapkv", "keep": 0.5},
        {"name": "snapkv", "keep": 0.25, "window": 32},
        {"name": "snapkv", "keep": 0.25, "sees_question": True},
        {"name": "knorm", "keep": 0.25},
    ]
    found = {model(press=press).fingerprint for press in presses}
    assert len(found | {model().fingerprint}) == 6
    same = model(press={"name": "snapkv", "keep": 0.25, "window": 64}).fingerprint
    assert same == model(press=presses[0]).fingerprint
    assert model(press=presses[0]).describe()["press"] == {
        "name": "snapkv", "keep": 0.25, "window": 64, "kernel": 5,
    }  # fmt: skip
    few = {model(press=presses[0], cache=cache).fingerprint for cache in ("full", "fp8")}
    assert len(few | found) == 6
    assert model(press=presses[0], cache="fp8").trunk == model(press=presses[4]).trunk


@pytest.mark.parametrize("name", ["snapkv", "seen"])
def test_what_is_kept_is_quantized(llama: Weights, name: str) -> None:
    """As if the kept rows of a pressed full cache had gone through the format; alone, and as a fork
    of a trunk that another model's session has read."""
    model = HuggingFaceModel("tiny", llama, {"press": OPTIONS[name], "cache": "fp8"})
    expected = read(session_of(llama, **OPTIONS[name]))
    full, other = read(session_of(llama)), HuggingFaceModel("tiny", llama, {})
    trunk = other.session()
    other.share(trunk, [model])
    fork = read(trunk).fork()
    model.adopt(fork)
    own = read(model.session())
    for session in (own, fork, expected, full):
        if name == "snapkv":
            session.context_ends()
        else:
            session.read(QUESTION[:1].numpy())
            session.question_ends()
    for layer in expected.cache.layers:
        for states in (layer.keys, layer.values):
            fp8 = fp8_layer()
            states.copy_(fp8.update(states.clone(), states.clone())[0])
    answers = [each.score(QUESTION[1:].numpy()) for each in (own, fork, expected, full)]
    assert relative_difference(answers[0], answers[1]) < 1e-5
    # The tokens that follow are quantized by the same scales, too.
    assert relative_difference(answers[0][:1], answers[2][:1]) < 0.02
    assert relative_difference(answers[0], answers[3]) > 0.05
    assert set(held(own)) == {"quantized"}
    assert 3.5 < held(expected)["full"] / held(own)["quantized"] < 4.5
    assert own.position == len(CONTEXT) + len(QUESTION) - (name == "snapkv")


@pytest.mark.parametrize(
    ("press", "cache", "message"),
    [
        ("snapkv", "sliding:32", r"^options.cache: got 'sliding:32', but with press it is full, "),
        ("quest", "fp8", r"^options.cache: got 'fp8', but quest reads pages of full keys: leave"),
    ],
)
def test_caches_that_do_not_go_with_a_press(
    llama: Weights, press: str, cache: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        HuggingFaceModel("tiny", llama, {"press": OPTIONS[press], "cache": cache})


def test_fp8_sessions_make_no_class_each(llama: Weights) -> None:
    """Classes made from a layer's are kept as long as the process runs."""
    model = HuggingFaceModel("tiny", llama, {"press": OPTIONS["snapkv"], "cache": "fp8"})
    sessions = [read(model.session()) for _ in range(2)]
    for session in sessions:
        session.context_ends()
    assert len({type(layer) for session in sessions for layer in session.cache.layers}) == 1
