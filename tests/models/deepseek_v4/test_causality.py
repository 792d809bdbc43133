"""What a query can and cannot reach: nothing later, and far back through selected entries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.deepseek_v4.attention import CompressedSparseAttention
from models.deepseek_v4.compressor import visible_entries
from models.deepseek_v4.config import CSA, HCA
from models.deepseek_v4.indexer import select
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from models.layers import Rotation
from tests.models.small import (
    GATHERED,
    full_logits,
    random_ids,
    randomized,
    score_in_pieces,
)
from tests.sessions import held_total

IDS = random_ids(390)


def changed_at(ids: Tensor, position: int) -> Tensor:
    other = ids.clone()
    other[position] = (other[position] + 1) % GATHERED.vocab_size
    return other


@pytest.mark.parametrize("position", [1, 3, 4, 7, 126, 127, 128, 131, 255, 256, 389])
@pytest.mark.parametrize("sizes", [None, [100, 28, 130]], ids=["uncached", "in pieces"])
def test_a_changed_token_leaves_earlier_logits_bit_equal(
    small: DeepseekV4, position: int, sizes: list[int] | None
) -> None:
    def logits(ids: Tensor) -> Tensor:
        return full_logits(small, ids) if sizes is None else score_in_pieces(small, ids, sizes)

    before, after = logits(IDS), logits(changed_at(IDS, position))
    assert torch.equal(before[:position], after[:position])
    assert not torch.equal(before[position], after[position])


LONE_CSA = randomized(
    DeepseekV4(replace(GATHERED, layer_types=(CSA,), sliding_window=8, num_hash_layers=0)), seed=4
)
"""One layer, so that only its own window (8 tokens) and selected entries carry anything."""


@torch.no_grad()
def selected_by(model: DeepseekV4, ids: Tensor) -> list[set[int]]:
    """The entries that each query of the first layer selects, [S]."""
    layer = model.model.layers[0]
    attention = layer.self_attn
    assert isinstance(attention, CompressedSparseAttention)
    streams = model.model.embed_tokens(ids[None]).unsqueeze(2).expand(-1, -1, 4, -1)
    x = layer.input_layernorm(layer.attn_hc(streams)[0])
    latent = attention.q_a_norm(attention.q_a_proj(x))
    positions = torch.arange(len(ids))
    frequencies = model.compressed_frequencies
    keys, _ = attention.indexer.compress(x, positions, None, frequencies)
    queries = attention.indexer.queries(x, latent, Rotation(positions, frequencies))
    visible = visible_entries(positions, model.config.csa_ratio)
    chosen, real = select(attention.indexer.score(*queries, keys), visible, model.config.index_topk)
    return [set(picks[valid].tolist()) for picks, valid in zip(chosen[0], real[0], strict=True)]


def test_a_needle_in_chunk_1_is_reached_from_chunk_3_by_selected_entries_alone() -> None:
    """Exactly the queries that select an entry holding the needle see it change."""
    needle, chunks = 50, [128, 128, 134]
    holders = {needle // 4, needle // 4 + 1}  # its own entry, and the next, which overlaps
    other = changed_at(IDS, needle)
    before = score_in_pieces(LONE_CSA, IDS, chunks)
    after = score_in_pieces(LONE_CSA, other, chunks)
    reached = (before != after).any(-1)
    picks = zip(selected_by(LONE_CSA, IDS), selected_by(LONE_CSA, other), strict=True)
    selecting = torch.tensor([bool(holders & (one | two)) for one, two in picks])
    far = slice(256, None)
    assert selecting[far].any()
    assert not selecting[far].all()
    assert torch.equal(reached[far], selecting[far])


def test_hca_reaches_a_far_token_without_any_selection() -> None:
    config = replace(GATHERED, layer_types=(HCA,), sliding_window=8, num_hash_layers=0)
    model = randomized(DeepseekV4(config), seed=4)
    before, after = (score_in_pieces(model, ids, [128]) for ids in (IDS, changed_at(IDS, 50)))
    reached = (before != after).any(-1)
    assert not reached[58:127].any()  # out of the window, its entry still open
    assert reached[127:].all()


def test_dense_attention_reaches_every_far_token() -> None:
    from models.deepseek_v4.dense import DenseTwin

    config = replace(GATHERED, layer_types=(CSA,), num_hash_layers=0)
    model = randomized(DenseTwin(config), seed=4)
    before, after = (score_in_pieces(model, ids, [128]) for ids in (IDS, changed_at(IDS, 50)))
    assert (before != after).any(-1)[50:].all()


def test_sessions_of_one_model_share_nothing() -> None:
    one, two = DeepseekV4Session(LONE_CSA), DeepseekV4Session(LONE_CSA)
    one.read(IDS[:200].numpy())
    assert two.position == 0
    assert held_total(two) == 0
