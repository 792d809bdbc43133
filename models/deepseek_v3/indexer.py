"""The lightning indexer of DSA (DeepSeek-V3.2, arXiv 2512.02556, section 2.1): a key per token.

It differs from DeepSeek-V4's: its keys are of single tokens and pass a LayerNorm with a bias, and
the rotary channels are the first ones, as two halves. The scores are the same:
I(p, i) = sum_h w_h H^-0.5 C^-0.5 ReLU(q_h . k_i). The Hadamard rotation that DeepSeek's code
applies before FP8 is orthogonal, hence without effect here, where nothing is quantised.

Weights have transformers' names. Shapes: B batch, S tokens, H indexer heads, C index width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.deepseek_v4.config import DeepseekV4Config
from models.layers import KeepsFloat32, Linear, Rotation, at_least_float32

EPS = 1e-6


class Float32LayerNorm(KeepsFloat32, nn.LayerNorm):
    """A LayerNorm whose weight and bias stay float32; its result is at least float32."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x.to(self.weight.dtype))
        return out


class TokenIndexer(nn.Module):
    """Queries, head weights and keys of tokens."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__()
        heads, width = config.index_n_heads, config.index_head_dim
        self.width, self.rotary = width, config.qk_rope_head_dim
        self.wq_b = Linear(config.q_lora_rank, heads * width)
        self.wk = Linear(config.hidden_size, width)
        self.k_norm = Float32LayerNorm(width, eps=EPS)
        self.weights_proj = Linear(config.hidden_size, heads)
        self.scale = (heads * width) ** -0.5

    def queries(self, x: Tensor, query_latent: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """x [B, S, D], latent [B, S, R] -> queries [B, S, H, C], head weights [B, S, H]."""
        q = at_least_float32(self.wq_b(query_latent)).unflatten(-1, (-1, self.width))
        weights = at_least_float32(self.weights_proj(x))
        return self._rotated(q, rotation), weights * self.scale

    def keys(self, x: Tensor, rotation: Rotation) -> Tensor:
        """x [B, S, D] -> keys [B, S, C]."""
        return self._rotated(self.k_norm(self.wk(x)), rotation)

    def _rotated(self, x: Tensor, rotation: Rotation) -> Tensor:
        """The first channels rotated: pair i is channels i and i + P / 2."""
        halves, plain = x.split((self.rotary, x.shape[-1] - self.rotary), dim=-1)
        pairs = torch.stack(halves.chunk(2, dim=-1), dim=-1).flatten(-2)  # interleaved
        turned = rotation.apply(pairs).unflatten(-1, (-1, 2))
        return torch.cat((turned[..., 0], turned[..., 1], plain), dim=-1)


def scores_of_rows(queries: Tensor, weights: Tensor, keys: Tensor) -> Tensor:
    """I(p, i) for keys of each query's own: [B, S, H, C], [B, S, H], [B, S, k, C] -> [B, S, k]."""
    dots = (queries @ keys.transpose(-1, -2)).relu()
    return (weights.unsqueeze(-2) @ dots).squeeze(-2)
