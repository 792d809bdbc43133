"""Distant rows in training: equal to a real past, at the right places, without gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from models.deepseek_v4 import weights
from models.deepseek_v4.attention import CompressedAttention, IndexerTraining, Step
from models.deepseek_v4.config import CSA, FULL, HCA, DeepseekV4Config
from models.deepseek_v4.dense import DenseTwin
from models.deepseek_v4.distant import Asked, DistantPast, Ring, wanted_entries
from models.deepseek_v4.model import DecoderLayer, DeepseekV4
from models.deepseek_v4.sharpen import sharpen
from models.layers import Rotation

HALF = 32  # tokens of the past, and of the batch that looks back
CONFIG = DeepseekV4Config(
    vocab_size=64,
    hidden_size=16,
    layer_types=(CSA,),
    num_attention_heads=2,
    head_dim=8,
    qk_rope_head_dim=4,
    q_lora_rank=8,
    o_groups=2,
    o_lora_rank=4,
    n_routed_experts=2,
    num_experts_per_tok=1,
    moe_intermediate_size=8,
    routed_scaling_factor=1.5,
    index_topk=6,
    index_n_heads=8,
    index_head_dim=8,
    num_hash_layers=1,
    sliding_window=8,
    hca_ratio=8,
    hc_sinkhorn_iters=2,
)


class RealPast(DistantPast):
    """Keeps all rows in order and in full precision, and puts them where they were."""

    dtype = torch.float32

    def _any_order(self, n: int) -> Tensor:
        return torch.arange(n)

    def _places(self, n: int, reach: int) -> Tensor:
        return torch.arange(n) * (HALF // n)


class Ahead(RealPast):
    """Puts rows behind every query."""

    def _places(self, n: int, reach: int) -> Tensor:
        return torch.full((n,), reach)


def attention_of(model: DeepseekV4) -> Any:
    """The attention of the one layer."""
    return cast(DecoderLayer, model.model.layers[0]).self_attn


def model_of(kind: str) -> DeepseekV4:
    config = replace(CONFIG, layer_types=(kind,))
    model = DenseTwin(config) if kind == FULL else DeepseekV4(config)
    weights.initialize(model, 0)
    attention = attention_of(model)
    torch.nn.init.normal_(attention.sinks, generator=torch.Generator().manual_seed(1))
    if kind == CSA:  # no share of the window before, so that the halves are apart
        for compressor in (attention.compressor, attention.indexer):
            bias = compressor.position_bias
            bias.data[:, : bias.shape[1] // 2] = -1e9
    return model


def past_of(model: DeepseekV4, kind: type[DistantPast] = RealPast, **fields: float) -> DistantPast:
    settings = {"seen": 8 * HALF, "kept": HALF, "added": HALF, "index_flow": 0.0, **fields}
    return kind(model, **settings)  # type: ignore[arg-type]


def step_of(model: DeepseekV4, start: int, length: int, distant: DistantPast | None) -> Step:
    """A training step at positions from `start` that counts its own tokens from 0."""
    even = torch.full((1, length), 1 / length)
    return model._step(
        torch.arange(length),
        torch.arange(start, start + length),
        IndexerTraining(True, even, distant=distant),
    )


def asked_of(queries: list[int], sources: list[int] | None = None) -> Asked:
    planted = torch.ones(1, HALF, dtype=torch.bool)
    sources = sources or [-1] * len(queries)
    return Asked(torch.tensor([queries]), torch.tensor([sources]), planted)


def look_back(model: DeepseekV4, distant: DistantPast, x: Tensor, asked: Asked) -> Tensor:
    """The first half of x [1, 2 * HALF, D] as the past, then the second half's output."""
    attention = attention_of(model)
    distant.begin(asked, 0)
    attention(x[:, :HALF], step_of(model, 0, HALF, distant), None)
    distant.begin(asked, 0)
    output: Tensor = attention(x[:, HALF:], step_of(model, HALF, HALF, distant), None)
    return output


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 2 * HALF, CONFIG.hidden_size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", [FULL, CSA, HCA])
def test_asked_queries_see_the_past_as_in_one_long_sequence(kind: str, x: Tensor) -> None:
    """Beyond the window, which does not reach into the past."""
    model = model_of(kind)
    attention = attention_of(model)
    whole = attention(x, step_of(model, 0, 2 * HALF, None), None)[:, HALF:]
    queries = [8, 13, 30, 31]
    looking = look_back(model, past_of(model), x, asked_of(queries))
    torch.testing.assert_close(looking[:, queries], whole[:, queries], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [FULL, CSA, HCA])
def test_other_queries_and_rows_to_come_change_nothing(kind: str, x: Tensor) -> None:
    model = model_of(kind)
    attention = attention_of(model)
    alone = attention(x[:, HALF:], step_of(model, HALF, HALF, None), None)
    queries = [8, 13, 30, 31]
    others = [i for i in range(HALF) if i not in queries]
    looking = look_back(model, past_of(model), x, asked_of(queries))
    torch.testing.assert_close(looking[:, others], alone[:, others], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(looking[:, queries], alone[:, queries], atol=1e-3)
    ahead = look_back(model, past_of(model, Ahead), x, asked_of(queries))
    torch.testing.assert_close(ahead, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [FULL, CSA, HCA])
def test_no_gradient_reaches_the_past(kind: str, x: Tensor) -> None:
    model = model_of(kind)
    x.requires_grad_()
    distant = past_of(model, index_flow=1.0)
    output = look_back(model, distant, x, asked_of([8, 31], [5, 20]))
    losses = [*distant.index_losses.values(), *distant.attention_losses.values()]
    (output.square().sum() + sum(losses)).backward()
    assert x.grad is not None
    assert not x.grad[:, :HALF].any()
    assert x.grad[:, HALF:].any()
    assert all(not ring.rows.requires_grad for ring in distant.rings.values())


def test_rows_of_text_stand_for_all_text_and_planted_rows_for_themselves() -> None:
    model = model_of(FULL)
    distant = past_of(model)
    planted = torch.arange(8) < 3
    distant.rings[0] = Ring(torch.cat((torch.randn(8, 8), planted[:, None]), dim=1).float(), 8)
    distant.begin(asked_of([31]), 0)
    attention = attention_of(model)
    rows = distant._draw(attention, step_of(model, 968, HALF, distant), 1, 8)
    weight = (968 / 5) * ~planted + 1.0 * planted
    torch.testing.assert_close(rows.bias.exp().flatten(), weight)


def test_rows_are_drawn_evenly_over_the_whole_past() -> None:
    distant = DistantPast(model_of(FULL), seen=1, kept=1, added=1, index_flow=0.0)
    distant.begin(asked_of([31]), 7)
    places = distant._places(20_000, 1_000_000)
    shares = torch.histc(places.float(), bins=4, min=0, max=1_000_000) / 20_000
    torch.testing.assert_close(shares, torch.full((4,), 0.25), rtol=0.1, atol=0)
    distant.begin(asked_of([31]), 7)
    assert torch.equal(places, distant._places(20_000, 1_000_000))


# --- finding what is asked for ---------------------------------------------------------------


def test_a_token_is_wanted_in_its_own_entry_and_the_next_once_they_are_closed() -> None:
    asked = asked_of([11, 14, 15, 31, 31], [9, 9, 9, 9, -1])
    bias = torch.zeros(1, 5, 12)
    closed = torch.tensor([3, 3, 4, 8, 8])
    for row, n in enumerate(closed.tolist()):
        bias[0, row, n:8] = -torch.inf  # own entries that are not closed; four distant ones behind
    found = wanted_entries(asked, 8, 4, bias)[0]
    assert [row.nonzero().flatten().tolist() for row in found] == [[2], [2], [2, 3], [2, 3], []]


@pytest.mark.parametrize("flow", [0.0, 0.5])
def test_the_indexer_learns_to_find_and_the_trunk_by_its_share(flow: float, x: Tensor) -> None:
    model = model_of(CSA)
    attention = attention_of(model)
    x.requires_grad_()
    distant = past_of(model, index_flow=flow)
    asked = asked_of([20, 31], [5, 20])
    look_back(model, distant, x, asked)
    before = distant.index_losses[0]
    before.backward()
    assert attention.indexer.q_b_proj.weight.grad.any()
    assert attention.indexer.kv_proj.weight.grad.any()
    assert attention.kv_proj.weight.grad is None
    assert (x.grad is not None and bool(x.grad.any())) == (flow > 0)
    optimizer = torch.optim.Adam(attention.indexer.parameters(), 3e-2)
    for _ in range(60):
        optimizer.zero_grad()
        distant.rings.clear()
        look_back(model, distant, x.detach(), asked)
        distant.index_losses[0].backward()
        optimizer.step()
    assert float(distant.index_losses[0].detach()) < 0.5 * float(before.detach())
    assert float(distant.ranks[0].max()) == 0


def test_finding_is_the_cross_entropy_over_own_and_distant_entries(x: Tensor) -> None:
    model = model_of(CSA)
    attention = attention_of(model)
    distant = past_of(model)
    look_back(model, distant, x, asked_of([30], [9]))
    latent = attention.q_a_norm(attention.q_a_proj(x))
    indexer, step = attention.indexer, step_of(model, 0, 2 * HALF, None)
    keys, _ = indexer.compress(x, step.positions, None, step.compressed_frequencies)
    queries, head_weights = indexer.queries(x, latent, step.compressed)
    scores = indexer.score(queries, head_weights, keys)[0, HALF + 30]
    shares = scores[: (HALF + 31) // 4].softmax(-1)
    first = HALF // 4 + 9 // 4
    expected = -(shares[first] + shares[first + 1]).log()
    torch.testing.assert_close(distant.index_losses[0], expected, rtol=1e-4, atol=1e-5)
    rank = (shares > torch.maximum(shares[first], shares[first + 1])).sum()
    assert float(distant.ranks[0]) == float(rank)


def test_looking_is_the_attention_on_the_wanted_token_and_three_before(x: Tensor) -> None:
    model = model_of(FULL)
    attention = attention_of(model)
    attention.sinks.data.fill_(-1e4)  # what the sink takes is left out of the loss
    distant = past_of(model)
    look_back(model, distant, x, asked_of([30], [20]))
    step = step_of(model, 0, 2 * HALF, None)
    latent = attention.q_a_norm(attention.q_a_proj(x))
    q = attention.q_b_proj(latent).unflatten(-1, (-1, CONFIG.head_dim))
    q = torch.nn.functional.rms_norm(q, q.shape[-1:], eps=CONFIG.rms_norm_eps)
    rotation: Rotation = step.compressed
    q = rotation.apply(q)[0, HALF + 30] * attention.scale
    k = rotation.apply(attention.kv_norm(attention.kv_proj(x)))[0, : HALF + 31]
    shares = (q @ k.T).softmax(-1)  # [H, keys]
    found = shares[:, HALF + 17 : HALF + 21].sum(-1).mean()
    torch.testing.assert_close(distant.attention_losses[0], -found.log(), rtol=1e-4, atol=1e-5)


# --- a temperature in the weights ------------------------------------------------------------


@pytest.mark.parametrize("kind", [CSA, HCA])
def test_sharpened_weights_equal_a_temperature(kind: str, x: Tensor) -> None:
    model, sharp = model_of(kind), model_of(kind)
    sharpen(sharp, 2.0)
    attention, sharpened = (attention_of(m) for m in (model, sharp))
    assert isinstance(attention, CompressedAttention)
    attention.scale *= 2.0
    step = step_of(model, 0, 2 * HALF, None)
    with torch.no_grad():
        expected, actual = attention(x, step, None), sharpened(x, step, None)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
