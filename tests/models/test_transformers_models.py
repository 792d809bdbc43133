"""transformers' models as sessions: a tiny Llama and a tiny DeepSeek-V4, built, not downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="the adapter needs transformers: install the dev extra")

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from models.errors import ModelError
from models.protocols import Model, TokenizerRef
from models.registry import load_model
from models.transformers_models import HuggingFaceModel, load
from tests.models.oracle import SPEC, oracle
from tests.models.small import random_ids
from tests.sessions import greedy_ids, held, held_total

IDS = random_ids(60)


def tiny_llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    return LlamaForCausalLM(config).float()


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
    session = HuggingFaceModel("tiny", transformer, {}).session()
    for piece in IDS.split(sizes):
        session.read(piece.numpy())
    assert session.position == 60
    assert greedy_ids(session, 5) == greedy(transformer, IDS, 5)


def test_forks_are_independent(transformer: PreTrainedModel) -> None:
    parent = HuggingFaceModel("tiny", transformer, {}).session()
    parent.read(IDS[:30].numpy())
    child = parent.fork()
    other = random_ids(30, seed=5)
    child.read(other.numpy())
    parent.read(IDS[30:].numpy())
    assert greedy_ids(child, 3) == greedy(transformer, torch.cat((IDS[:30], other)), 3)
    assert greedy_ids(parent, 3) == greedy(transformer, IDS, 3)


def test_bytes_of_a_plain_cache() -> None:
    session = HuggingFaceModel("tiny", tiny_llama(), {}).session()
    assert held_total(session) == 0
    session.read(IDS.numpy())
    bytes_by_kind = held(session)
    assert bytes_by_kind == {"full": 2 * 2 * 2 * 8 * 60 * 4}  # layers, K and V, heads, width


def test_bytes_of_a_compressed_cache() -> None:
    session = HuggingFaceModel("tiny", oracle(SPEC, seed=0), {}).session()
    session.read(IDS.numpy())
    bytes_by_kind = held(session)
    entries = 2 * (60 // SPEC.csa_ratio) + 60 // SPEC.hca_ratio
    assert bytes_by_kind["compressed"] == 4 * SPEC.head_dim * entries
    assert bytes_by_kind["index"] == 4 * SPEC.index_head_dim * 2 * (60 // SPEC.csa_ratio)
    # The sliding layer's K and V are two tensors in transformers, the others' are one.
    assert bytes_by_kind["window"] == 4 * (2 + 3) * SPEC.head_dim * (SPEC.sliding_window - 1)
    assert "full" not in bytes_by_kind


def test_loading_a_folder(tmp_path: Path) -> None:
    saved = tiny_llama()
    saved.save_pretrained(tmp_path)
    model: Model = load_model(f"hf:{tmp_path}", {"dtype": "float32"})
    assert (model.vocab_size, model.max_position) == (97, 128)
    assert model.tokenizer == TokenizerRef(f"hf:{tmp_path}")
    at_main = load_model(f"hf:{tmp_path}", {"revision": "main"})
    assert at_main.tokenizer == TokenizerRef(f"hf:{tmp_path}@main")
    session = model.session()
    session.read(IDS.numpy())
    assert greedy_ids(session, 4) == greedy(saved, IDS, 4)
    assert model.fingerprint == load_model(f"hf:{tmp_path}").fingerprint
    assert load_model(f"hf:{tmp_path}", {"dtype": "bfloat16"}).fingerprint != model.fingerprint


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^options: got 'index_topk', expected one of dtype"):
        load("hf:x", {"index_topk": 4})
    with pytest.raises(ModelError, match=r"^options.dtype: got 'fp4', expected one of float32"):
        load("hf:x", {"dtype": "fp4"})
    with pytest.raises(ModelError, match=r"^model: 'hf:.*' cannot be loaded: ") as caught:
        load(f"hf:{tmp_path}", {})
    assert "\n" not in str(caught.value)
    session = HuggingFaceModel("tiny", tiny_llama(), {}).session()
    with pytest.raises(ValueError, match=r"^generate: the session is empty"):
        greedy_ids(session, 1)
    with pytest.raises(ValueError, match=r"0\.\.96$"):
        session.read([97])
    with pytest.raises(ValueError, match=r"exceed max_position 128$"):
        session.read([1] * 129)


def test_without_transformers_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ModelError, match=r"needs transformers: in a checkout, pip install '\.\[hf\]'$"
    ):
        load("hf:x", {})
