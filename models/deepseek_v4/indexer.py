"""The lightning indexer: cheap scores over all compressed entries, and a causal top-k.

Report section 2.3.1, equations 13 to 17. Shapes: B batch, S queries, n entries, H indexer
heads, C index width, k selected. The Hadamard rotation that the report applies before FP4 is
orthogonal: it is left out where keys are not stored in FP4 (`models.number_formats`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.deepseek_v4.compressor import Compressor, visible_mask
from models.deepseek_v4.config import DeepseekV4Config
from models.layers import Linear, Rotation, at_least_float32


class Scorer(nn.Module):
    """Per-head weights of the scores; may be negative."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__()
        self.weights_proj = Linear(config.hidden_size, config.index_n_heads)


class Indexer(Compressor):
    """A compressor of its own for narrow keys, and queries that share the low-rank latent."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__(
            config.hidden_size,
            config.index_head_dim,
            config.csa_ratio,
            overlap=True,
            eps=config.rms_norm_eps,
        )
        heads = config.index_n_heads
        self.q_b_proj = Linear(config.q_lora_rank, heads * config.index_head_dim)
        self.scorer = Scorer(config)
        self.scale = (heads * config.index_head_dim) ** -0.5

    def queries(self, x: Tensor, q_latent: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """x [B, S, D], latent [B, S, R] -> queries [B, S, H, C], head weights [B, S, H]."""
        queries = at_least_float32(self.q_b_proj(q_latent)).unflatten(-1, (-1, self.entry_dim))
        weights = at_least_float32(self.scorer.weights_proj(x))
        return rotation.apply(queries), weights * self.scale

    @staticmethod
    def score(queries: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
        """I(p, i) = sum_h w_h ReLU(q_h . K_i), [B, S, n], one head at a time to stay small.

        Computed in the queries' type, whatever type the keys are held in.
        """
        transposed = keys.to(queries.dtype).transpose(-1, -2)
        total = queries.new_zeros(())
        for head in range(queries.shape[2]):
            dots = (queries[:, :, head] @ transposed).relu_()
            total = torch.addcmul(total, dots, weights[:, :, head, None])
        return total


def select(scores: Tensor, visible: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Causal top-k: of equal scores the earlier entry wins, so that any split agrees.

    Args:
        scores: [B, S, n].
        visible: [S], entries that each query may see.
        k: how many to take at most.

    Returns:
        Indices [B, S, min(k, n)] in ascending order, and whether each is a real pick
        (False where fewer than k entries are visible).
    """
    n = scores.shape[-1]
    scores = scores.masked_fill(~visible_mask(visible, n), -torch.inf)
    k = min(k, n)
    values, indices = scores.topk(k, dim=-1)
    threshold = values[..., -1:]
    tied = ((scores >= threshold).sum(-1) > k) & (threshold.squeeze(-1) > -torch.inf)
    if tied.any():
        order = scores[tied].sort(dim=-1, descending=True, stable=True).indices
        indices[tied] = order[:, :k]
    indices = indices.sort(dim=-1).values
    return indices, indices < visible[:, None]


def indexer_loss(logits: Tensor, scores: Tensor, mask: Tensor, query_weights: Tensor) -> Tensor:
    """KL(attention || softmax(I)) over the allowed entries, weighed over queries.

    The target is the attention of the heads over compressed entries, summed and renormalised,
    without gradient (V3.2's loss, arXiv 2512.02556; V4's is unpublished).

    Args:
        logits: [B, S, H, n], -inf where not allowed.
        scores: [B, S, n] indexer scores.
        mask: [B, S, n], True where allowed.
        query_weights: [B, S], summing to 1.
    """
    some = mask.any(-1)  # queries before the first entry have nothing to select
    allowed = torch.where(some[..., None], mask, True)
    attention = logits.detach().masked_fill(~some[..., None, None], 0.0).softmax(-1)
    target = attention.mean(2)
    predicted = scores.masked_fill(~allowed, -torch.inf).log_softmax(-1)
    log_target = target.clamp(min=1e-9).log()
    terms = torch.where(allowed, target * (log_target - predicted), 0.0)
    return (terms.sum(-1) * some * query_weights).sum()
