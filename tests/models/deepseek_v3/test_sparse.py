"""DSA: what it selects, traces and learns; the indexer against a loop written after V3.2's text."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import kernels
from models.deepseek_v3 import sparse
from models.deepseek_v3.indexer import TokenIndexer, scores_of_rows
from models.deepseek_v3.model import LatentTwin
from models.deepseek_v3.sparse import IndexedAttention
from models.deepseek_v4.attention import IndexerTraining
from models.deepseek_v4.config import DSA, SLIDING
from models.deepseek_v4.indexer import Indexer, indexer_loss
from models.deepseek_v4.model import DeepseekV4
from models.layers import Rotation, rope_frequencies
from niah.execution.needle_loss import lost_by
from tests.models.naive import top_k
from tests.models.small import (
    LATENT,
    full_logits,
    random_ids,
    randomize,
    randomized,
    relative_difference,
    score_in_pieces,
    session_of,
)

IDS = random_ids(400)
K = 8
LONE = replace(LATENT, layer_types=(DSA,), index_topk=K, num_hash_layers=0)
"""One layer, so that only what it selects carries anything."""


@pytest.fixture(scope="module")
def lone() -> DeepseekV4:
    return randomized(LatentTwin(LONE), seed=3)


def attention_of(model: DeepseekV4) -> IndexedAttention:
    attention = model.model.layers[0].self_attn
    assert isinstance(attention, IndexedAttention)
    return attention


@torch.no_grad()
def inputs_of(model: DeepseekV4, ids: Tensor) -> tuple[Tensor, Tensor]:
    """x [1, S, D] and the query latent [1, S, R] of the first layer."""
    layer, attention = model.model.layers[0], attention_of(model)
    streams = model.model.embed_tokens(ids[None]).unsqueeze(2).expand(-1, -1, 4, -1)
    x = layer.input_layernorm(layer.attn_hc(streams)[0])
    return x, attention.q_a_layernorm(attention.q_a_proj(x))


@torch.no_grad()
def scores_by_loops(model: DeepseekV4, ids: Tensor) -> Tensor:
    """I(p, i) [S, S] of the first layer, by V3.2's text: LayerNorm with a bias, halves rotated."""
    attention = attention_of(model)
    indexer, config = attention.indexer, model.config
    x, latent = (t[0].double() for t in inputs_of(model, ids))
    weight = {name: p.detach().double() for name, p in indexer.named_parameters()}
    heads, width, rotary = config.index_n_heads, config.index_head_dim, config.qk_rope_head_dim
    half = rotary // 2

    def rotated(vector: Tensor, position: int) -> Tensor:
        out = vector.clone()
        for i in range(half):
            angle = position * float(model.compressed_frequencies[i])
            a, b = float(vector[i]), float(vector[half + i])
            out[i] = a * math.cos(angle) - b * math.sin(angle)
            out[half + i] = a * math.sin(angle) + b * math.cos(angle)
        return out

    keys = []
    for p in range(len(ids)):
        key = weight["wk.weight"] @ x[p]
        key = (key - key.mean()) / (key.var(correction=0) + 1e-6).sqrt()
        keys.append(rotated(key * weight["k_norm.weight"] + weight["k_norm.bias"], p))
    table = torch.stack(keys)
    scores = torch.zeros(len(ids), len(ids), dtype=torch.float64)
    for p in range(len(ids)):
        share = weight["weights_proj.weight"] @ x[p] * heads**-0.5
        for h in range(heads):
            rows = weight["wq_b.weight"][h * width : (h + 1) * width]
            query = rotated(rows @ latent[p], p)
            dots = table[: p + 1] @ query * width**-0.5
            scores[p, : p + 1] += share[h] * dots.clamp(min=0.0)
    return scores.float()


def selected(model: DeepseekV4, ids: Tensor) -> list[list[int]]:
    """The tokens that each query of the first layer selects."""
    scores = scores_by_loops(model, ids).tolist()
    return [top_k(row, p + 1, K) for p, row in enumerate(scores)]


def test_scores_are_those_of_the_text(lone: DeepseekV4) -> None:
    ids = IDS[:40]
    expected = scores_by_loops(lone, ids)
    x, latent = inputs_of(lone, ids)
    indexer, rotation = attention_of(lone).indexer, lone._step(*[torch.arange(40)] * 2, None)
    with torch.no_grad():
        queries, weights = indexer.queries(x, latent, rotation.compressed)
        found = Indexer.score(queries, weights, indexer.keys(x, rotation.compressed))[0]
        own = scores_of_rows(queries, weights, indexer.keys(x, rotation.compressed)[:, None])
    assert relative_difference(found.tril(), expected) < 1e-5
    assert relative_difference(own[0].tril(), expected) < 1e-5


def test_the_hadamard_rotation_is_without_effect(lone: DeepseekV4) -> None:
    """DeepSeek's code rotates queries and keys before FP8."""
    x, latent = inputs_of(lone, IDS[:40])
    indexer, rotation = attention_of(lone).indexer, lone._step(*[torch.arange(40)] * 2, None)
    hadamard = torch.ones(1, 1)
    while len(hadamard) < lone.config.index_head_dim:
        hadamard = torch.cat(
            (torch.cat((hadamard, hadamard), 1), torch.cat((hadamard, -hadamard), 1))
        )
    hadamard = hadamard * len(hadamard) ** -0.5
    with torch.no_grad():
        queries, weights = indexer.queries(x, latent, rotation.compressed)
        keys = indexer.keys(x, rotation.compressed)
        plain = Indexer.score(queries, weights, keys)
        rotated = Indexer.score(queries @ hadamard, weights, keys @ hadamard)
    assert relative_difference(rotated, plain) < 1e-5


def test_the_first_channels_are_rotated_and_the_others_are_not() -> None:
    indexer = TokenIndexer(LONE)
    randomize(indexer, LONE, 0)
    x = torch.randn(1, 1, LONE.hidden_size, generator=torch.Generator().manual_seed(0))
    frequencies = rope_frequencies(LONE.qk_rope_head_dim, 1e4)
    with torch.no_grad():
        here, there = (indexer.keys(x, Rotation(torch.tensor([p]), frequencies)) for p in (0, 9))
    changed = (here != there)[0, 0]
    assert changed[: LONE.qk_rope_head_dim].all()
    assert not changed[LONE.qk_rope_head_dim :].any()


@pytest.mark.parametrize("switch", ["1", "0"], ids=["kernels", "plain torch"])
def test_a_needle_in_chunk_1_is_reached_from_chunk_3_by_selection_alone(
    lone: DeepseekV4, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly the queries that select the needle see it change: there is no window."""
    monkeypatch.setenv(kernels.SWITCH, switch)
    ids, needle = IDS[:160], 20
    other = ids.clone()
    other[needle] = (other[needle] + 1) % LATENT.vocab_size
    before, after = (score_in_pieces(lone, each, [50, 50]) for each in (ids, other))
    reached = (before != after).any(-1)
    picks = zip(selected(lone, ids), selected(lone, other), strict=True)
    selecting = torch.tensor([needle in (*one, *two) for one, two in picks])
    assert torch.equal(reached[needle + 1 :], selecting[needle + 1 :])
    far = selecting[100:]
    assert far.any()
    assert not far.all()


def test_ranks_are_those_of_the_wanted_token(lone: DeepseekV4) -> None:
    at = 119
    session = session_of(lone)
    session.read(IDS[:at].numpy())
    row = scores_by_loops(lone, IDS[: at + 1])[at].tolist()
    order = sorted(range(at + 1), key=lambda i: (-row[i], i))
    for wanted in (0, 5, 100, at - 1, order[0], order[K - 1], order[K]):
        trace = session.fork().extend_traced(int(IDS[at]), wanted)
        (selection,) = trace.selections
        assert (selection.layer, selection.entries) == (0, at + 1)
        assert selection.rank == order.index(wanted)
        assert selection.selected == (order.index(wanted) < K)
        assert not trace.in_window  # DSA has no exact window
        assert lost_by(trace) == ("compression" if selection.selected else "selection")


def test_tracing_changes_nothing(lone: DeepseekV4) -> None:
    traced, plain = session_of(lone), session_of(lone)
    for session in (traced, plain):
        session.read(IDS[:99].numpy())
    traced.extend_traced(int(IDS[99]), 12)
    plain.read(IDS[99:100].numpy())
    assert torch.equal(traced.next_logits(), plain.next_logits())


BATCH = torch.stack([random_ids(140, seed) for seed in (0, 1)])
EVERYWHERE = torch.full(BATCH.shape, 1 / BATCH.numel())
FEW = replace(LATENT, layer_types=(SLIDING, DSA, DSA), index_topk=K)


@pytest.mark.parametrize("at_once", [1024, 32], ids=["one block", "blocks"])
@pytest.mark.parametrize("sparse_stage", [True, False])
def test_training_attends_as_inference_does(
    sparse_stage: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sparse: the selected tokens. Dense warm-up: all, as if k were unlimited."""
    monkeypatch.setattr(sparse, "TRAINED_AT_ONCE", at_once)
    model = randomized(LatentTwin(FEW), seed=2)
    everything = randomized(LatentTwin(replace(FEW, index_topk=512)), seed=2)
    with torch.no_grad():
        expected = (model if sparse_stage else everything).hidden(BATCH)
    training = IndexerTraining(sparse_stage, EVERYWHERE)
    states = model.hidden(BATCH, training=training)
    assert relative_difference(states.detach(), expected) < 1e-5
    assert len(training.losses) == 2
    assert all(float(loss.detach()) > 0 for loss in training.losses)


@pytest.mark.parametrize("sparse_stage", [True, False])
def test_the_indexer_learns_from_its_own_loss_and_nothing_else_does(sparse_stage: bool) -> None:
    model = randomized(LatentTwin(FEW), seed=2)

    def moved(loss: Tensor) -> set[str]:
        model.zero_grad()
        loss.backward()
        return {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}

    def trained() -> tuple[Tensor, IndexerTraining]:
        training = IndexerTraining(sparse_stage, EVERYWHERE)
        return model.hidden(BATCH, training=training), training

    names = {name for name, _ in model.named_parameters()}
    indexers = {name for name in names if ".indexer." in name}
    assert moved(torch.stack(trained()[1].losses).sum()) == indexers
    assert moved(model.lm_head(trained()[0]).square().mean()) == names - indexers


def test_the_sparse_loss_and_its_gradient_are_those_of_a_mask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gathered rows against all logits with what is not selected masked out."""
    monkeypatch.setattr(sparse, "TRAINED_AT_ONCE", 32)
    attention = attention_of(randomized(LatentTwin(LONE), seed=3))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 50, LONE.hidden_size, generator=generator)
    direction = torch.randn(x.shape, generator=generator)
    weights = torch.rand(2, 50, generator=generator)
    model = LatentTwin(LONE)
    step = model._step(*[torch.arange(50)] * 2, IndexerTraining(True, weights))

    def results(output: Tensor, loss: Tensor) -> list[Tensor]:
        attention.zero_grad()
        ((output * direction).sum() + loss).backward()
        grads = [p.grad.clone() for p in attention.parameters() if p.grad is not None]
        return [output.detach(), loss.detach(), *grads]

    assert step.training is not None
    output = attention(x, step, None)
    found = results(output, step.training.losses[0])

    latent = attention.q_a_layernorm(attention.q_a_proj(x))
    q = step.compressed.apply(attention.q_b_proj(latent).unflatten(-1, (2, -1))) * attention.scale
    keys, values = attention.expand(attention.rows(x, step))
    index = attention.indexer
    queries, shares = index.queries(x.detach(), latent.detach(), step.compressed)
    index_keys = index.keys(x.detach(), step.compressed)
    dots = torch.einsum("bshc,bnc->bshn", queries, index_keys).relu()
    scores = torch.einsum("bsh,bshn->bsn", shares, dots)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for b, rows in enumerate(scores.tolist()):
        for p, row in enumerate(rows):
            mask[b, p, top_k(row, p + 1, K)] = True
    logits = torch.einsum("bshc,bnhc->bshn", q, keys)
    logits = logits.masked_fill(~mask[:, :, None], -torch.inf)
    mixed = torch.einsum("bshn,bnhe->bshe", logits.softmax(-1), values)
    plain = results(attention.o_proj(mixed.flatten(2)), indexer_loss(logits, scores, mask, weights))
    for ours, expected in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_plain_torch_and_kernels_choose_alike(
    lone: DeepseekV4, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = full_logits(lone, IDS)
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert relative_difference(full_logits(lone, IDS), before) < 2e-5
