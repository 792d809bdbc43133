"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

A token is kept as one row: a latent c, and a rotary key that all heads share. A head's key is
[W_k c, rotary key] and its value W_v c. Two ways compute the same attention:

- expanded: keys and values are made of the rows;
- absorbed: the query takes W_k in, attends to the rows themselves, and W_v is applied to the
  mixed latent. All heads share the rows, so this is MQA with K = rows and V = their latents.

A long chunk is cheaper expanded, decoding is cheaper absorbed. Weights have the names of
transformers' DeepSeek-V3. Rotary pairs are interleaved and stand in the last channels.

Shapes: B batch, S queries, n keys, H heads, N channels of a key without the rotary ones, P rotary
channels, E value channels, R latent channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models import kernels
from models.deepseek_v3.cache import LatentCache
from models.deepseek_v4 import blocked, fused
from models.deepseek_v4.attention import AttentionLayer, C, Step
from models.deepseek_v4.cache import Rows
from models.deepseek_v4.config import DeepseekV4Config
from models.finite import require_finite
from models.layers import Linear, RMSNorm, at_least_float32
from models.number_formats import rounded


class LatentLayer(AttentionLayer[C]):
    """The projections of MLA; subclasses decide which rows a query reaches.

    Queries, logits and mixes are float32; rows are held in the model's type, or in `cache_format`.
    """

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__(config)
        shape = config.latent
        assert shape is not None, "the configuration checks it"
        d, h, rotary = config.hidden_size, config.num_attention_heads, config.qk_rope_head_dim
        self.rank, self.nope = shape.kv_lora_rank, shape.qk_nope_head_dim
        self.value_dim = shape.v_head_dim
        self.q_a_proj = Linear(d, config.q_lora_rank)
        self.q_a_layernorm = RMSNorm(config.q_lora_rank, config.rms_norm_eps)
        self.q_b_proj = Linear(config.q_lora_rank, h * (self.nope + rotary))
        self.kv_a_proj_with_mqa = Linear(d, self.rank + rotary)
        self.kv_a_layernorm = RMSNorm(self.rank, config.rms_norm_eps)
        self.kv_b_proj = Linear(self.rank, h * (self.nope + self.value_dim))
        self.o_proj = Linear(h * self.value_dim, d)
        growth = 1 + 0.1 * shape.mscale_all_dim * math.log(max(1.0, config.yarn_factor))
        self.scale = (self.nope + rotary) ** -0.5 * growth**2

    def forward(self, x: Tensor, step: Step, cache: C | None, asking: int | None = None) -> Tensor:
        asking = asking or x.shape[1]
        asked = step.last(asking)
        query_latent = self.q_a_layernorm(self.q_a_proj(x[:, -asking:]))
        q = at_least_float32(self.q_b_proj(query_latent))
        q = asked.compressed.apply(q.unflatten(-1, (self.config.num_attention_heads, -1)))
        q = self.tempered(q, asked) * self.scale
        rows = self.rows(x, step)
        if cache is not None:  # a format of few bits may have no NaN
            require_finite(rows[0], step.start)
        mixed = self.attend(x, query_latent, q, rows, step, cache)
        out: Tensor = self.o_proj(mixed.flatten(2))
        return out

    def attend(
        self,
        x: Tensor,
        query_latent: Tensor,
        q: Tensor,
        rows: Tensor,
        step: Step,
        cache: C | None,
    ) -> Tensor:
        """Scaled queries [B, A, H, N + P] and the chunk's own rows -> values [B, A, H, E].

        The queries and `query_latent` are those of the chunk's last A tokens.
        """
        raise NotImplementedError

    def rows(self, x: Tensor, step: Step) -> Tensor:
        """x [B, S, D] -> rows [B, S, R + P]."""
        joint = at_least_float32(self.kv_a_proj_with_mqa(x))
        latent, rotary = joint.split((self.rank, self.config.qk_rope_head_dim), dim=-1)
        row = torch.cat((self.kv_a_layernorm(latent), rotary), dim=-1)
        return step.compressed.apply(row).to(self.kv_a_proj_with_mqa.weight.dtype)

    def expand(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [B, n, R + P] -> keys [B, n, H, N + P], values [B, n, H, E]."""
        latents, rotary = rows.split((self.rank, self.config.qk_rope_head_dim), dim=-1)
        heads = self.config.num_attention_heads
        both = at_least_float32(self.kv_b_proj(latents)).unflatten(-1, (heads, -1))
        keys, values = both.split((self.nope, self.value_dim), dim=-1)
        shared = rotary.to(keys.dtype).unsqueeze(2).expand(-1, -1, heads, -1)
        return torch.cat((keys, shared), dim=-1), values

    def absorb(self, q: Tensor) -> Tensor:
        """Queries [B, S, H, N + P] -> queries over rows [B, S, H, R + P]."""
        plain, rotary = q.split((self.nope, self.config.qk_rope_head_dim), dim=-1)
        key_weight, _ = self._up_weights()
        return torch.cat((torch.einsum("bshn,hnr->bshr", plain, key_weight), rotary), dim=-1)

    def values(self, mixed: Tensor) -> Tensor:
        """Mixed rows [B, S, H, R + P] -> values [B, S, H, E]; rotary channels are no value."""
        _, value_weight = self._up_weights()
        return torch.einsum("bshr,her->bshe", mixed[..., : self.rank], value_weight)

    def no_sinks(self) -> Tensor:
        """Logits [H] of a sink that takes no weight: MLA has none."""
        weight = self.o_proj.weight
        return torch.full((self.config.num_attention_heads,), -torch.inf, device=weight.device)

    def _up_weights(self) -> tuple[Tensor, Tensor]:
        """W_k [H, N, R] and W_v [H, E, R], at least float32."""
        heads = self.config.num_attention_heads
        both = at_least_float32(self.kv_b_proj.weight).unflatten(0, (heads, -1))
        key_weight, value_weight = both.split((self.nope, self.value_dim), dim=1)
        return key_weight, value_weight

    def attend_to_all(self, q: Tensor, past: Sequence[Tensor], rows: Tensor) -> Tensor:
        """Queries over all rows of `past`, causally over their own `rows`; no gradient."""
        if not kernels.usable(q, rows):
            mixed = blocked.attend(self.absorb(q), past, rows, self.no_sinks())
        elif q.shape[1] < self.few_queries:
            absorbed = self.absorb(q)
            parts = [fused.attend(absorbed, segment) for segment in past]
            own = fused.attend(absorbed, rows, causal=True)
            mixed = fused.merge([*parts, own], self.no_sinks())
        else:
            width = self.nope + self.value_dim + self.config.qk_rope_head_dim
            size = max(blocked.MIN_ROWS, blocked.limit(q) // (q.shape[2] * width))
            blocks = (block for segment in past for block in segment.split(size, dim=1))
            parts = [fused.attend_heads(q, *self.expand(block)) for block in blocks]
            own = fused.attend_heads(q, *self.expand(rows), causal=True)
            return fused.merge([*parts, own], self.no_sinks())
        return self.values(mixed)

    @property
    def few_queries(self) -> float:
        """So many queries cost as much absorbed as expanded, the rows' expansion included."""
        made = self.nope + self.value_dim
        dearer = 2 * self.rank - made  # channels that absorbed attention multiplies more
        return self.rank * made / dearer if dearer > 0 else math.inf


class LatentAttention(LatentLayer[LatentCache]):
    """MLA: every token."""

    def new_cache(self) -> LatentCache:
        return LatentCache(Rows(format=self.cache_format.latent))

    def attend(
        self,
        x: Tensor,
        query_latent: Tensor,
        q: Tensor,
        rows: Tensor,
        step: Step,
        cache: LatentCache | None,
    ) -> Tensor:
        if cache is None:
            return causal(q, *self.expand(rounded(rows, self.cache_format.latent)))
        seen = len(cache.rows)
        rows = cache.rows.append(rows)
        asking = q.shape[1]
        past = blocked.seen_by_all(cache.rows.blocks(seen), rows, asking)
        return self.attend_to_all(q, tuple(past), rows[:, -asking:])


def causal(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Differentiable causal attention: scaled q and keys [B, S, H, C], values [B, S, H, E]."""
    width = values.shape[-1]
    q, keys, values = fused.of_one_width(q, keys, values)
    mixed = F.scaled_dot_product_attention(q, keys, values, is_causal=True, scale=1.0)
    return mixed.transpose(1, 2)[..., :width]
