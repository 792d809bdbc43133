"""The training path: what it computes equals inference, and who learns from which loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.deepseek_v4.attention import IndexerTraining
from models.deepseek_v4.indexer import indexer_loss
from models.deepseek_v4.model import DeepseekV4
from tests.models.small import GATHERED, random_ids, randomized, relative_difference

IDS = torch.stack([random_ids(140, seed) for seed in (0, 1)])
EVERYWHERE = torch.full(IDS.shape, 1 / IDS.numel())


def few_selected() -> DeepseekV4:
    return randomized(DeepseekV4(GATHERED), seed=2)


def all_selected() -> DeepseekV4:
    return randomized(DeepseekV4(replace(GATHERED, index_topk=512)), seed=2)


@pytest.mark.parametrize("sparse", [True, False])
def test_training_attends_as_inference_does(sparse: bool) -> None:
    """Sparse: the selected entries. Dense warm-up: all, as if k were unlimited."""
    expected = (few_selected() if sparse else all_selected()).hidden(IDS)
    training = IndexerTraining(sparse, EVERYWHERE)
    states = few_selected().hidden(IDS, training=training)
    assert relative_difference(states.detach(), expected.detach()) < 2e-6
    assert len(training.losses) == 2  # one a CSA layer
    assert all(float(loss.detach()) > 0 for loss in training.losses)


def gradients(model: DeepseekV4, loss: Tensor) -> dict[str, bool]:
    """Whether each parameter has a gradient that is not all zero."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad is not None and bool(p.grad.any()) for name, p in model.named_parameters()}


@pytest.mark.parametrize("sparse", [True, False])
def test_the_indexer_learns_from_its_own_loss_and_nothing_else_does(sparse: bool) -> None:
    model = few_selected()
    training = IndexerTraining(sparse, EVERYWHERE)
    states = model.hidden(IDS, training=training)
    index_loss = torch.stack(training.losses).sum()
    from_index = gradients(model, index_loss)
    assert {name for name, moved in from_index.items() if moved} == {
        name for name in from_index if ".indexer." in name
    }

    training = IndexerTraining(sparse, EVERYWHERE)
    states = model.hidden(IDS, training=training)
    from_text = gradients(model, model.lm_head(states).square().mean())
    assert {name for name, moved in from_text.items() if not moved} == {
        name for name in from_text if ".indexer." in name
    }


def test_the_loss_is_the_kl_divergence_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 3, 4, generator=generator)
    scores = torch.randn(1, 2, 4, generator=generator)
    mask = torch.tensor([[[True, True, False, True], [False] * 4]])  # the second sees nothing
    weights = torch.tensor([[0.25, 0.75]])
    seen = mask[0, 0]
    target = logits[0, 0][:, seen].softmax(-1).mean(0)
    predicted = scores[0, 0][seen].softmax(-1)
    expected = 0.25 * (target * (target / predicted).log()).sum()
    masked = logits.masked_fill(~mask[:, :, None], -torch.inf)
    torch.testing.assert_close(indexer_loss(masked, scores, mask, weights), expected)


def test_the_loss_vanishes_where_scores_are_the_attention() -> None:
    logits = torch.randn(1, 5, 1, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 5, 6, dtype=torch.bool)
    loss = indexer_loss(logits, logits[:, :, 0] + 3.0, mask, torch.full((1, 5), 0.2))
    assert abs(float(loss)) < 1e-6


def test_jumped_positions_move_the_rotation_and_not_the_visibility() -> None:
    """Positions that jump by whole windows after token 128: earlier states stay as they were."""
    model = few_selected()
    positions = torch.arange(140)
    positions[128:] += 128 * 5
    with torch.no_grad():
        plain = model.hidden(IDS)
        jumped = model.hidden(IDS, positions=positions)
    assert torch.equal(plain[:, :128], jumped[:, :128])
    assert relative_difference(jumped[:, 128:], plain[:, 128:]) > 1e-3
