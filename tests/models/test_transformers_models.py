"""transformers' models as sessions: a tiny Llama and a tiny DeepSeek-V4, built, not downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="the adapter needs transformers: install the dev extra")

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from models.errors import ModelError
from models.protocols import Model
from models.registry import load_model
from models.transformers_models import HuggingFaceModel, load
from tests.models.oracle import SPEC, oracle
from tests.models.small import random_ids

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
        session.extend(piece.numpy())
    assert session.position == 60
    assert session.generate(5) == greedy(transformer, IDS, 5)


def test_forks_are_independent(transformer: PreTrainedModel) -> None:
    parent = HuggingFaceModel("tiny", transformer, {}).session()
    parent.extend(IDS[:30].numpy())
    child = parent.fork()
    other = random_ids(30, seed=5)
    child.extend(other.numpy())
    parent.extend(IDS[30:].numpy())
    assert child.generate(3) == greedy(transformer, torch.cat((IDS[:30], other)), 3)
    assert parent.generate(3) == greedy(transformer, IDS, 3)


def test_bytes_of_a_plain_cache() -> None:
    session = HuggingFaceModel("tiny", tiny_llama(), {}).session()
    assert session.cache_bytes().total == 0
    session.extend(IDS.numpy())
    held = session.cache_bytes()
    assert held.full == held.total == 2 * 2 * 2 * 8 * 60 * 4  # layers, K and V, heads, width


def test_bytes_of_a_compressed_cache() -> None:
    session = HuggingFaceModel("tiny", oracle(SPEC, seed=0), {}).session()
    session.extend(IDS.numpy())
    held = session.cache_bytes()
    entries = 2 * (60 // SPEC.csa_ratio) + 60 // SPEC.hca_ratio
    assert held.compressed == 4 * SPEC.head_dim * entries
    assert held.index == 4 * SPEC.index_head_dim * 2 * (60 // SPEC.csa_ratio)
    # The sliding layer's K and V are two tensors in transformers, the others' are one.
    assert held.window == 4 * (2 + 3) * SPEC.head_dim * (SPEC.sliding_window - 1)
    assert held.full == 0


def test_loading_a_folder(tmp_path: Path) -> None:
    saved = tiny_llama()
    saved.save_pretrained(tmp_path)
    model: Model = load_model(f"hf:{tmp_path}", {"dtype": "float32"})
    assert (model.vocab_size, model.max_position) == (97, 128)
    assert model.tokenizer_name == f"hf:{tmp_path}"
    session = model.session()
    session.extend(IDS.numpy())
    assert session.generate(4) == greedy(saved, IDS, 4)
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
        session.generate(1)
    with pytest.raises(ValueError, match=r"0\.\.96$"):
        session.extend([97])
    with pytest.raises(ValueError, match=r"exceed max_position 128$"):
        session.extend([1] * 129)


def test_without_transformers_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ModelError, match=r"needs transformers: in a checkout, pip install '\.\[hf\]'$"
    ):
        load("hf:x", {})
