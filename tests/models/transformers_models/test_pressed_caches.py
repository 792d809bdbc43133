"""A press and a cache of few bits together: what the press keeps is quantized at that moment."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")

from models.protocols import Decoding, Reply
from models.transformers_models import caches
from models.transformers_models.caches import cache_kind
from models.transformers_models.loading import HuggingFaceModel, Weights, in_memory
from models.transformers_models.session import HuggingFaceSession
from tests.models.architectures import SERVED, build, reachable_bytes
from tests.models.small import random_ids, relative_difference
from tests.models.transformers_models.tiny import tiny_llama
from tests.sessions import held, spelled

CONTEXT, QUESTION, LATER = random_ids(200), random_ids(9, seed=4), random_ids(150, seed=5)
KEPT = 50
ROW = 2 * 2 * 64  # layers, K and V, the width of one head
PRESSES: dict[str, dict[str, Any]] = {
    "snapkv": {"name": "snapkv", "keep": 0.25, "window": 11},
    "knorm": {"name": "knorm", "keep": 0.25},
}
ERRORS = {"int8": 0.05, "int4": 0.5, "int2": 1.5}
"""Relative differences of logits that so many bits explain, at most."""


@pytest.fixture(scope="module")
def llama() -> Weights:
    wide = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64}
    return in_memory(tiny_llama(max_position_embeddings=600, **wide))


@pytest.fixture(autouse=True, params=["hqq", "quanto"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    package = {"hqq": "hqq.core.quantize", "quanto": "optimum.quanto"}[request.param]
    pytest.importorskip(package, reason=f"needs {request.param}")
    monkeypatch.setattr(caches, "_is_installed", lambda name: name == request.param)
    return str(request.param)


@pytest.fixture(params=ERRORS)
def bits(request: pytest.FixtureRequest, backend: str) -> str:
    if int(request.param.removeprefix("int")) not in caches.BACKENDS[backend]:
        pytest.skip(f"{backend} has no {request.param}")
    return str(request.param)


def model(weights: Weights, press: str | None, cache: str, **more: Any) -> HuggingFaceModel:
    chosen = {"press": PRESSES[press] | more} if press else {}
    return HuggingFaceModel("tiny", weights, {"cache": cache, **chosen})


def read(session: HuggingFaceSession, *sizes: int) -> HuggingFaceSession:
    for part in CONTEXT.split([*sizes, len(CONTEXT) - sum(sizes)]):
        session.read(part.numpy())
    return session


def pressed(session: HuggingFaceSession) -> HuggingFaceSession:
    session.context_ends()
    return session


def answer_to(session: HuggingFaceSession, question: Tensor = QUESTION) -> Tensor:
    return session.score(question.numpy())


def few_bits_states(layer: Any) -> list[Tensor]:
    """Keys and values that a quantized layer answers from, all of them quantized ones."""
    found = [layer._dequantize(layer._quantized_keys), layer._dequantize(layer._quantized_values)]
    return [states.clone() for states in found]


@pytest.mark.parametrize("name", PRESSES)
def test_what_is_kept_has_gone_through_the_format(llama: Weights, bits: str, name: str) -> None:
    """As if the rows that a press keeps of a full cache were rounded there, positions included."""
    few, full = (pressed(read(model(llama, name, each).session())) for each in (bits, "full"))
    kind = cache_kind(bits, llama.network.module.config)
    assert kind.few_bits is not None
    for layer, quantized in zip(full.cache.layers, few.cache.layers, strict=True):
        alone = kind.few_bits()
        alone.update(layer.keys.clone(), layer.values.clone())
        states = few_bits_states(quantized)
        for found, expected, exact in zip(
            states, few_bits_states(alone), (layer.keys, layer.values), strict=True
        ):
            assert torch.equal(found, expected)
            assert 1e-5 < relative_difference(found, exact) < ERRORS[bits]
            exact.copy_(expected)
    assert relative_difference(answer_to(few), answer_to(full)) < 1e-5
    assert few.position == len(CONTEXT) + len(QUESTION)
    assert few.cache.get_seq_length() == few.position  # for models that ask the cache


def test_bytes_are_those_of_the_kept_rows(llama: Weights, bits: str) -> None:
    session = pressed(read(model(llama, "snapkv", bits).session(), 70))
    width = int(bits.removeprefix("int"))
    numbers = ROW * KEPT
    assert set(held(session)) == {"quantized"}
    assert numbers * width / 8 < held(session)["quantized"] < numbers * (width / 8 + 0.3)
    assert sum(held(session).values()) == reachable_bytes(session.cache.layers)
    quantized = held(session)["quantized"]
    answer_to(session)
    assert held(session) == {"quantized": quantized, "residual": ROW * len(QUESTION) * 4}
    assert sum(held(session).values()) == reachable_bytes(session.cache.layers)


def test_pieces_change_nothing(llama: Weights, bits: str) -> None:
    """The text is read in full precision: the split decides rounding, and that few numbers of a
    format at most."""
    whole = answer_to(pressed(read(model(llama, "snapkv", bits).session())))
    parts = answer_to(pressed(read(model(llama, "snapkv", bits).session(), 3, 50, 1, 1, 130)))
    assert relative_difference(parts, whole) < 1e-3


def test_forks_of_one_trunk(llama: Weights, bits: str) -> None:
    """Of a trunk that reads on, before and after the press."""
    chosen = model(llama, "snapkv", bits)
    trunk = chosen.session()
    trunk.read(CONTEXT[:90].numpy())
    early = trunk.fork()
    trunk.read(CONTEXT[90:].numpy())
    fork = pressed(trunk.fork())
    again, another = fork.fork(), fork.fork()
    expected = answer_to(pressed(read(chosen.session())))
    assert relative_difference(answer_to(fork), expected) < 1e-3
    answer_to(again, LATER)  # more than the residual has room for
    assert relative_difference(answer_to(another), expected) < 1e-3
    fresh = chosen.session()
    fresh.read(CONTEXT[:90].numpy())
    assert relative_difference(answer_to(pressed(early)), answer_to(pressed(fresh))) < 1e-3
    assert held(trunk)["full"] == ROW * len(CONTEXT) * 4


def test_one_reading_serves_all_formats(llama: Weights, backend: str) -> None:
    """A trunk of the model with a full cache and no press, and arms of several formats."""
    widths = [f"int{width}" for width in caches.BACKENDS[backend]]
    arms = [model(llama, name, cache) for name in PRESSES for cache in ("full", *widths)]
    leader = model(llama, None, "full")
    trunk = leader.session()
    leader.share(trunk, [leader, *arms])
    read(trunk, 60)
    for arm in arms:
        fork = trunk.fork()
        arm.adopt(fork)
        alone = answer_to(pressed(read(arm.session())))
        assert relative_difference(answer_to(pressed(fork)), alone) < 1e-3
    assert len({arm.trunk for arm in arms}) == 1
    assert len({arm.fingerprint for arm in arms}) == len(arms)


def test_a_long_question_behind_the_press(llama: Weights, bits: str) -> None:
    """More tokens than the residual takes, in two calls: all that is held is quantized again."""
    few, full = (pressed(read(model(llama, "knorm", each).session())) for each in (bits, "full"))
    for part in (LATER[:120], LATER[120:], QUESTION):
        found, expected = answer_to(few, part), answer_to(full, part)
        assert relative_difference(found, expected) < ERRORS[bits]
    assert few.position == full.position == len(CONTEXT) + len(LATER) + len(QUESTION)
    assert held(few)["residual"] == ROW * len(QUESTION) * 4
    numbers, width = ROW * (KEPT + len(LATER)), int(bits.removeprefix("int"))
    assert numbers * width / 8 < held(few)["quantized"] < numbers * (width / 8 + 0.3)


def test_a_press_that_sees_the_question(llama: Weights, bits: str) -> None:
    """The first token comes from the whole cache in full precision, the next from few bits."""
    session = read(model(llama, "snapkv", bits, sees_question=True).session(), 30)
    plain = read(model(llama, None, "full").session())
    pressed(session)
    assert relative_difference(answer_to(session), answer_to(plain)) < 1e-5
    session.question_ends()
    assert set(held(session)) == {"quantized"}
    found = answer_to(session, LATER[:1])
    assert relative_difference(found, answer_to(plain, LATER[:1])) > 1e-3


def test_windows_stay_and_full_layers_are_pressed_and_quantized(bits: str) -> None:
    gemma = in_memory(build(next(a for a in SERVED if a.model_type == "gemma3_text")))
    session, full = (
        pressed(read(model(gemma, "snapkv", each).session(), 33)) for each in (bits, "full")
    )
    assert held(session)["window"] == held(full)["window"]
    assert set(held(session)) == {"window", "quantized"}
    assert held(session)["quantized"] < held(full)["full"]
    assert relative_difference(answer_to(session), answer_to(full)) < ERRORS[bits]


def test_questions_of_several_formats_are_decoded_together(llama: Weights, backend: str) -> None:
    widths = [f"int{width}" for width in caches.BACKENDS[backend]]
    arms = [model(llama, "snapkv", cache) for cache in ("full", *widths)]

    def sessions() -> list[HuggingFaceSession]:
        found = [pressed(read(arm.session())) for arm in arms]
        for session, size in zip(found, (3, 9, 5, 7), strict=False):
            answer_to(session, QUESTION[:size])
        return found

    asked = sessions()
    assert all(arm.batches(session) for arm, session in zip(arms, asked, strict=True))
    decoding = Decoding(6, spelled)
    together = arms[0].generate_many(asked, [decoding] * len(asked))
    for reply, session in zip(together, sessions(), strict=True):
        assert isinstance(reply, Reply)
        assert reply.ids == session.generate(decoding).ids
