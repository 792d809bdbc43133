"""Presses of kvpress in sessions of models of transformers: a fake package stands for it."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")

from models.errors import ModelError
from models.registry import load_model
from models.transformers_models.loading import HuggingFaceModel, Weights, in_memory
from models.transformers_models.session import HuggingFaceSession
from tests.models.architectures import SERVED, build
from tests.models.presses import fake_kvpress
from tests.models.small import random_ids, relative_difference
from tests.models.transformers_models.tiny import tiny_llama
from tests.sessions import held

CONTEXT, QUESTION = random_ids(100), random_ids(9, seed=4)
KNORM = {"name": "kvpress.KnormPress", "keep": 0.25}
WINDOW = {"name": "kvpress.WindowPress", "keep": 0.25}
DICE = {"name": "kvpress.RandomPress", "keep": 0.25}
SNAP = {"name": "snapkv", "keep": 0.25, "window": 11, "kernel": 1}


@pytest.fixture(autouse=True)
def kvpress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kvpress", fake_kvpress)


@pytest.fixture(scope="module")
def llama() -> Weights:
    return in_memory(tiny_llama())


def model(weights: Weights, press: dict[str, Any] | None, **more: Any) -> HuggingFaceModel:
    return HuggingFaceModel("tiny", weights, {"press": press, **more})


def read(session: HuggingFaceSession, *sizes: int) -> HuggingFaceSession:
    for part in CONTEXT.split([*sizes, len(CONTEXT) - sum(sizes)]):
        session.read(part.numpy())
    return session


def answer_to(session: HuggingFaceSession) -> torch.Tensor:
    session.context_ends()
    logits = session.score(QUESTION.numpy())
    session.question_ends()
    return logits


@pytest.mark.parametrize(
    ("theirs", "ours"), [(KNORM, {"name": "knorm", "keep": 0.25}), (WINDOW, SNAP)]
)
def test_a_class_answers_as_the_press_of_the_same_rule(
    llama: Weights, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    expected = answer_to(read(model(llama, ours).session()))
    found = answer_to(read(model(llama, theirs).session()))
    assert relative_difference(found, expected) < 1e-5
    seen = [answer_to(read(model(llama, p | {"sees_question": True}).session(), 70))
            for p in (theirs, ours)]  # fmt: skip
    assert relative_difference(*seen) < 1e-5


@pytest.mark.parametrize("press", [WINDOW, DICE])
def test_pieces_and_forks_change_nothing(llama: Weights, press: dict[str, Any]) -> None:
    """Whole, in pieces, and in forks of a trunk that reads on behind an earlier fork."""
    whole = answer_to(read(model(llama, press).session()))
    parts = answer_to(read(model(llama, press).session(), 3, 50, 1, 1, 20))
    assert relative_difference(parts, whole) < 1e-5
    trunk = model(llama, press).session()
    trunk.read(CONTEXT[:40].numpy())
    early = trunk.fork()
    trunk.read(CONTEXT[40:].numpy())
    torch.rand(3)  # a class that draws numbers does not depend on what others draw
    forks = [trunk.fork(), trunk.fork()]
    fresh = model(llama, press).session()
    fresh.read(CONTEXT[:40].numpy())
    for fork in forks:
        assert relative_difference(answer_to(fork), whole) < 1e-5
    assert relative_difference(answer_to(early), answer_to(fresh)) < 1e-5
    assert relative_difference(whole, answer_to(read(model(llama, None).session()))) > 1e-3


def test_bytes_of_what_is_collected_and_of_what_is_kept(llama: Weights) -> None:
    trunk = read(model(llama, WINDOW).session(), 37)
    row = 2 * 2 * 2 * 8 * 4  # layers, K and V, KV heads, width, bytes
    # Two layers have hidden states of 32 numbers; cosines and sines of 8 serve both.
    assert held(trunk)["inputs"] == 100 * (2 * 32 + 2 * 8) * 4
    fork = trunk.fork()
    fork.context_ends()
    assert held(fork)["full"] == row * 25
    assert set(held(fork)) == {"full", "reserve"}
    assert held(trunk)["full"] == row * 100


def test_one_reading_serves_classes_of_kvpress_and_other_presses(llama: Weights) -> None:
    models = [model(llama, p) for p in (WINDOW, SNAP, KNORM, {"name": "expected_attention",
                                                               "keep": 0.25})]  # fmt: skip
    trunk = model(llama, None).session()
    models[0].share(trunk, models)
    read(trunk, 60)
    for each in models:
        fork = trunk.fork()
        assert isinstance(fork, HuggingFaceSession)
        each.adopt(fork)
        alone = answer_to(read(each.session()))
        assert relative_difference(answer_to(fork), alone) < 1e-5


def test_what_is_kept_is_quantized(llama: Weights) -> None:
    few, full = model(llama, WINDOW, cache="fp8"), model(llama, WINDOW)
    found, expected = (answer_to(read(each.session(), 60)) for each in (few, full))
    assert 1e-5 < relative_difference(found, expected) < 0.2
    session = read(few.session())
    session.context_ends()
    assert set(held(session)) == {"quantized"}


def test_no_hook_stays_behind(llama: Weights) -> None:
    answer_to(read(model(llama, WINDOW).session()))
    assert not any(part._forward_pre_hooks for part in llama.network.module.modules())


def test_the_model_is_saved_as_before(llama: Weights) -> None:
    model(llama, WINDOW)
    assert not any("self_attn.rotary" in name for name, _ in llama.network.module.named_modules())


def test_windows_stay_and_full_layers_are_pressed() -> None:
    gemma = in_memory(build(next(a for a in SERVED if a.model_type == "gemma3_text")))
    session, plain = (read(model(gemma, press).session(), 30) for press in (KNORM, None))
    for each in (session, plain):
        answer_to(each)
    assert held(session)["window"] == held(plain)["window"]
    share = (25 + len(QUESTION)) / (100 + len(QUESTION))
    assert held(session)["full"] == pytest.approx(held(plain)["full"] * share)


def test_a_class_is_tried_on_a_longer_text_where_it_needs_one() -> None:
    longer = in_memory(tiny_llama(max_position_embeddings=2048))
    model(longer, WINDOW | {"window_size": 300})
    told = (
        r"^options\.press: kvpress\.WindowPress cannot score 128 tokens from hidden states, keys, "
        r"values and positions \(AssertionError: more than 300 tokens\)$"
    )
    with pytest.raises(ModelError, match=told):
        model(in_memory(tiny_llama()), WINDOW | {"window_size": 300})


def test_a_context_that_is_too_short_for_a_class(llama: Weights) -> None:
    session = model(llama, WINDOW).session()
    session.read(CONTEXT[:5].numpy())
    with pytest.raises(ModelError, match=r"^press: kvpress\.WindowPress cannot score 5 tokens"):
        session.context_ends()


def test_models_that_kvpress_does_not_know() -> None:
    gpt2 = in_memory(build(next(a for a in SERVED if a.model_type == "gpt2")))
    told = r"^options\.press: GPT2.* cannot be pressed: it has its attention layers where kvpress "
    with pytest.raises(ModelError, match=told):
        model(gpt2, KNORM)
    told = r"^options\.press\.name: got 'kvpress\.KnormPress', but .* is no model of transformers; "
    with pytest.raises(ModelError, match=told):
        load_model("random-dense", {"press": KNORM})


def test_the_fingerprint_knows_the_class_and_its_options(llama: Weights) -> None:
    presses = [
        KNORM,
        WINDOW,
        WINDOW | {"keep": 0.5},
        WINDOW | {"window_size": 3},
        WINDOW | {"sees_question": True},
        {"name": "knorm", "keep": 0.25},
        None,
    ]
    assert len({model(llama, press).fingerprint for press in presses}) == len(presses)
    same = model(llama, WINDOW | {"window_size": 11}).fingerprint
    assert same == model(llama, WINDOW).fingerprint
