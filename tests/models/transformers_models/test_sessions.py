"""Sessions over a tiny Llama and a tiny DeepSeek-V4, built, not downloaded."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers", reason="the adapter needs transformers: install the dev extra")

from transformers import PreTrainedModel

from models.errors import ModelError
from models.protocols import Decoding
from models.transformers_models.loading import in_memory
from models.transformers_models.session import HuggingFaceSession
from tests.models.oracle import SPEC, oracle
from tests.models.small import random_ids
from tests.models.transformers_models.tiny import tiny_llama
from tests.sessions import greedy_ids, held, held_total, piece, spelled

IDS = random_ids(60)


def session_of(module: PreTrainedModel) -> HuggingFaceSession:
    return HuggingFaceSession(in_memory(module).network)


@pytest.fixture(scope="module", params=["llama", "deepseek_v4"])
def transformer(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_llama() if request.param == "llama" else oracle(SPEC, seed=0)


def greedy(model: PreTrainedModel, ids: torch.Tensor, count: int) -> list[int]:
    """By full passes without a cache."""
    for _ in range(count):
        with torch.no_grad():
            token = model(ids[None], use_cache=False).logits[0, -1].argmax()
        ids = torch.cat((ids, token[None]))
    return ids[-count:].tolist()


@pytest.mark.parametrize("sizes", [[60], [7, 30, *[1] * 23]], ids=["whole", "in pieces"])
def test_generation_equals_full_passes(transformer: PreTrainedModel, sizes: list[int]) -> None:
    session = session_of(transformer)
    for part in IDS.split(sizes):
        session.read(part.numpy())
    assert session.position == 60
    assert greedy_ids(session, 5) == greedy(transformer, IDS, 5)


def test_forks_are_independent(transformer: PreTrainedModel) -> None:
    parent = session_of(transformer)
    parent.read(IDS[:30].numpy())
    child = parent.fork()
    other = random_ids(30, seed=5)
    child.read(other.numpy())
    parent.read(IDS[30:].numpy())
    assert greedy_ids(child, 3) == greedy(transformer, torch.cat((IDS[:30], other)), 3)
    assert greedy_ids(parent, 3) == greedy(transformer, IDS, 3)


def test_bytes_of_a_plain_cache() -> None:
    session = session_of(tiny_llama())
    assert held_total(session) == 0
    session.read(IDS.numpy())
    row = 2 * 2 * 2 * 8 * 4  # layers, K and V, heads, width, bytes of a number
    assert held(session) == {"full": 60 * row, "reserve": 16 * row}
    session.step(1)
    assert held(session) == {"full": 61 * row, "reserve": 15 * row}


def test_a_window_does_not_hold_its_chunk() -> None:
    """The newest keys are no view of a storage that holds every key of the call."""
    session = session_of(oracle(SPEC, seed=0))
    session.read(random_ids(400).numpy())
    assert held(session)["window"] == 4 * (2 + 3) * SPEC.head_dim * (SPEC.sliding_window - 1)


@pytest.mark.parametrize("field", ["config", "generation_config"])
def test_an_end_of_sequence_ends_the_answer(field: str) -> None:
    module = tiny_llama()
    unstopped = session_of(module)
    unstopped.read(IDS.numpy())
    ids = greedy_ids(unstopped, 6)
    end = ids[3]
    getattr(module, field).eos_token_id = [96, end]
    session = session_of(module)
    session.read(IDS.numpy())
    reply = session.generate(Decoding(6, spelled))
    assert reply.ids == tuple(ids[: ids.index(end)])
    assert reply.finish == "eos"
    assert session.position == 60 + len(reply.ids)


def test_the_probability_of_the_right_answer(transformer: PreTrainedModel) -> None:
    session = session_of(transformer)
    session.read(IDS.numpy())
    gold = (5, 9, 2)
    with torch.no_grad():
        logits = transformer(torch.cat((IDS, torch.tensor(gold)))[None], use_cache=False).logits[0]
    expected = sum(float(logits[59 + i].log_softmax(-1)[g]) for i, g in enumerate(gold))
    reply = session.generate(Decoding(2, spelled, gold_ids=gold))
    assert reply.gold_logprob == pytest.approx(expected, rel=1e-4)
    assert session.position == 62


def test_what_is_no_number_breaks_the_session() -> None:
    module = tiny_llama()
    with torch.no_grad():
        module.model.norm.weight[0] = float("nan")
    session = session_of(module)
    with pytest.raises(
        ModelError, match=r"^logits: no number within the 60 tokens before token 60"
    ):
        session.extend(piece(IDS.numpy()))
    with pytest.raises(ValueError, match=r"^the session failed before and cannot go on: ModelErr"):
        session.extend(piece([1]))
    with pytest.raises(ValueError, match=r"^the session failed before"):
        session.fork()


def test_logits_beyond_the_type_break_the_session() -> None:
    """In float16 one logit may be infinite while none is NaN: it would be every answer."""
    module = tiny_llama()
    with torch.no_grad():
        final = module.model(IDS[None]).last_hidden_state[0, -1]
        module.lm_head.weight[7] = 3e38 * final.sign()
    session = session_of(module)
    with pytest.raises(ModelError, match=r"^logits: no number within the 60 tokens"):
        session.extend(piece(IDS.numpy()))


def test_refusals() -> None:
    session = session_of(tiny_llama())
    with pytest.raises(ValueError, match=r"^generate: the session is empty"):
        greedy_ids(session, 1)
    with pytest.raises(ValueError, match=r"0\.\.96$"):
        session.read([97])
    with pytest.raises(ValueError, match=r"exceed max_position 128$"):
        session.read([1] * 129)


def test_bytes_of_a_compressed_cache() -> None:
    session = session_of(oracle(SPEC, seed=0))
    session.read(IDS.numpy())
    bytes_by_kind = held(session)
    assert bytes_by_kind["csa"] == 4 * SPEC.head_dim * 2 * (60 // SPEC.csa_ratio)
    assert bytes_by_kind["hca"] == 4 * SPEC.head_dim * (60 // SPEC.hca_ratio)
    assert bytes_by_kind["index"] == 4 * SPEC.index_head_dim * 2 * (60 // SPEC.csa_ratio)
    # The sliding layer's K and V are two tensors in transformers, the others' are one.
    assert bytes_by_kind["window"] == 4 * (2 + 3) * SPEC.head_dim * (SPEC.sliding_window - 1)
    assert "full" not in bytes_by_kind
