"""Answers that are decoded together are those of sessions alone; logits differ by rounding."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers.models.deepseek_v4", reason="an older transformers")

from models.errors import ModelError
from models.protocols import BatchingModel, Decoding, Reply
from models.transformers_models.loading import HuggingFaceModel, Weights, in_memory
from models.transformers_models.session import HuggingFaceSession
from models.transformers_models.together import OfAllMixin, can_go_together, step_together
from tests.models.architectures import SERVED, STEPWISE, build, load
from tests.models.small import random_ids, relative_difference
from tests.models.transformers_models.tiny import tiny_llama
from tests.sessions import spelled

ROUNDING = 1e-5
"""Of fp32 logits, relative. Equal answers need a lead of the first token that is larger: random
models have one, and a real model's near tie may be decided otherwise."""
CACHES: dict[str, dict[str, Any]] = {
    "full": {},
    "fp8": {"cache": "fp8"},
    "window": {"cache": "sliding:24"},
    "knorm": {"press": {"name": "knorm", "keep": 0.25}},
    "snapkv": {"press": {"name": "snapkv", "keep": 0.5, "window": 5}},
}
SLIDING = next(a for a in SERVED if a.model_type == "gemma3_text")
QUICK = ("llama", "gemma3_text", "gpt_oss", "deepseek_v3", "lfm2")
APART = (  # of others the questions are decoded one by one, which is always right
    # a query may not see all that is held, or a mask does more than hide
    *("llama4_text", "doge", "bloom", "mpt", "gemma3n_text"),
    # layers hold more than keys and values, or none: indexers, latents, states
    *("deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "glm_moe_dsa", "glm4_moe_lite"),
    *("longcat_flash", "minicpm3", "youtu", "kimi_linear", "qwen3_next", "qwen3_5_text"),
    *("qwen3_5_moe_text", "olmo_hybrid", "lfm2", "lfm2_moe", "bamba", "jamba", "mamba", "mamba2"),
    *("falcon_mamba", "falcon_h1", "granitemoehybrid", "nemotron_h", "zamba2"),
    # attention is not called through transformers' table, or not as `can_go_together` needs it
    *("afmoe", "codegen", "diffllama", "falcon", "gptj", "jetmoe", "xglm"),
)


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def weights(request: pytest.FixtureRequest) -> Weights:
    return in_memory(tiny_llama() if request.param == "llama" else build(SLIDING))


def asked(weights: Weights, options: dict[str, Any], length: int) -> HuggingFaceSession:
    """A session that has read a context and a question."""
    session = HuggingFaceModel("tiny", weights, options).session()
    session.read(random_ids(length, seed=length).numpy())
    session.context_ends()
    session.read(random_ids(5, seed=length + 1).numpy())
    session.question_ends()
    return session


def together(
    sessions: list[HuggingFaceSession], decodings: list[Decoding]
) -> list[Reply | Exception]:
    model = HuggingFaceModel("tiny", Weights(sessions[0].network, "same"), {})
    assert isinstance(model, BatchingModel)
    assert all(model.batches(session) for session in sessions)
    return model.generate_many(sessions, decodings)


def test_answers_together_are_those_alone(weights: Weights) -> None:
    """Caches of all kinds, of several lengths, with answers that end at different steps."""
    lengths = (31, 60, 17, 44, 90)
    sessions = [asked(weights, o, n) for o, n in zip(CACHES.values(), lengths, strict=True)]
    limits = (7, 3, 12, 1, 9)
    decodings = [Decoding(limit, spelled, gold_ids=(5, 9, limit)) for limit in limits]
    alone = [s.fork().generate(d) for s, d in zip(sessions, decodings, strict=True)]
    replies = together(sessions, decodings)
    for reply, expected, session, length in zip(replies, alone, sessions, lengths, strict=True):
        assert isinstance(reply, Reply)
        assert reply == expected
        assert session.position == length + 5 + len(reply.ids)
        usage = session.usage()
        assert (usage.decode_seconds, usage.requests_in_flight) == (None, 5)


@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 100), min_size=2, max_size=5))
def test_a_step_together_is_a_step_alone(weights: Weights, lengths: list[int]) -> None:
    sessions = [asked(weights, {}, length) for length in lengths]
    alone = torch.stack([session.fork().score([7])[0] for session in sessions])
    parents = [session.fork() for session in sessions]
    before = [parent.next_logits() for parent in parents]
    step_together(sessions, [7] * len(sessions))
    found = torch.stack([session.next_logits() for session in sessions])
    assert relative_difference(found, alone) < ROUNDING
    for parent, logits, expected in zip(parents, before, alone, strict=True):
        assert torch.equal(parent.next_logits(), logits)  # forks are independent still
        assert relative_difference(parent.score([7]), expected[None]) < ROUNDING


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(a, id=a.label, marks=() if a.model_type in QUICK else pytest.mark.slow)
        for a in (*SERVED, *STEPWISE)
    ],
)
def test_which_models_go_together(architecture: Any) -> None:
    assert can_go_together(load(architecture).network) == (architecture.model_type not in APART)


def test_what_is_no_number_fails_one_answer_only() -> None:
    module = tiny_llama()
    weights = in_memory(module)
    sessions = [asked(weights, {}, length) for length in (20, 30, 40)]
    expected = [session.fork().generate(Decoding(4, spelled)) for session in sessions]
    sessions[1].cache.layers[0].values[:] = float("nan")
    replies = together(sessions, [Decoding(4, spelled)] * 3)
    assert [replies[0], replies[2]] == [expected[0], expected[2]]
    assert isinstance(replies[1], ModelError)
    assert "no number within the 1 tokens before token 36" in str(replies[1])


def test_an_empty_session_fails_alone() -> None:
    weights = in_memory(tiny_llama())
    empty = HuggingFaceModel("tiny", weights).session()
    replies = together([empty, asked(weights, {}, 9)], [Decoding(2, spelled)] * 2)
    assert isinstance(replies[0], ValueError)
    assert isinstance(replies[1], Reply)


def test_keys_in_full_precision_are_held_for_one_layer_at_a_time() -> None:
    module = tiny_llama()
    weights, held = in_memory(module), list[tuple[int, int]]()
    sessions = [asked(weights, CACHES["fp8"], length) for length in (20, 30)]

    def count(*_: Any) -> None:
        layers = [each for each in gc.get_objects() if issubclass(type(each), OfAllMixin)]
        own = [each for each in layers if each.layers[0] in sessions[0].cache.layers]
        held.append((len(own), sum(bool(vars(each).get("held")) for each in own)))

    module.model.layers[-1].register_forward_hook(count)
    step_together(sessions, [7, 7])
    assert held == [(len(module.model.layers), 0)]


def test_a_session_at_the_last_position_fails_alone() -> None:
    network = replace(in_memory(tiny_llama()).network, max_position=32)
    sessions = [asked(Weights(network, "short"), {}, length) for length in (25, 9, 15)]
    decodings = [Decoding(6, spelled)] * 3
    expected = [session.fork().generate(Decoding(6, spelled)) for session in sessions[1:]]
    replies = together(sessions, decodings)
    assert replies[1:] == expected
    assert str(replies[0]) == "ids: 32 + 1 tokens exceed max_position 32"


def test_sessions_that_watch_or_page_are_decoded_alone() -> None:
    weights = in_memory(tiny_llama())
    quest = HuggingFaceModel(
        "tiny", weights, {"press": {"name": "quest", "keep": 0.5, "page": 4, "dense_layers": 0}}
    )
    assert not quest.batches(asked(weights, {"press": {**quest._options["press"]}}, 40))  # type: ignore[dict-item]
    pressed = HuggingFaceModel("tiny", weights, CACHES["snapkv"])
    waiting = pressed.session()
    waiting.read(random_ids(40).numpy())
    assert not pressed.batches(waiting)
    waiting.context_ends()
    assert pressed.batches(waiting)


def test_batch_1_decodes_alone() -> None:
    weights = in_memory(tiny_llama())
    assert HuggingFaceModel("tiny", weights).batch == 16
    one, many = (HuggingFaceModel("tiny", weights, {"batch": n}) for n in (1, 4))
    assert (one.batch, many.batch) == (1, 4)
    assert one.fingerprint == many.fingerprint  # it decides no answer, roundings apart
