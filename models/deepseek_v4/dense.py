"""The uncompressed twin: DeepSeek-V4's trunk, with every token's own entry kept.

Only the memory of the global layers differs from `deepseek_v4`: where that model holds
compressed entries, this one holds, and attends to, every token.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from models import kernels
from models.deepseek_v4 import blocked
from models.deepseek_v4.attention import Attention, SlidingAttention, Step
from models.deepseek_v4.cache import KIND, LayerCache, Rows
from models.deepseek_v4.config import FULL, SLIDING, DeepseekV4Config, uncompressed
from models.deepseek_v4.fused import attend, merge
from models.deepseek_v4.model import DeepseekV4


@dataclass
class FullCache(LayerCache):
    """Of full attention."""

    full: Rows = field(default_factory=Rows, metadata={KIND: "full"})  # every token's K = V


class FullAttention(Attention[FullCache]):
    """All previous tokens, one softmax with the learned sink, rotary as in the layer replaced."""

    def new_cache(self) -> FullCache:
        return FullCache()

    def attend(
        self,
        x: Tensor,
        latent: Tensor,
        q: Tensor,
        kv: Tensor,
        step: Step,
        cache: FullCache | None,
    ) -> Tensor:
        if cache is None:
            near = causal_with_sink(q, kv.to(q.dtype), self.sinks)
            if step.training is None or step.training.distant is None:
                return near
            return step.training.distant.full(self, q, kv, near, step)
        past = cache.full.segments
        if kernels.usable(q, kv):
            mixed = [attend(q, segment) for segment in past]
            attended = merge([*mixed, attend(q, kv, causal=True)], self.sinks)
        else:
            attended = blocked.attend(q, past, kv, self.sinks)
        cache.full.append(kv)
        return attended


def causal_with_sink(q: Tensor, kv: Tensor, sinks: Tensor) -> Tensor:
    """Differentiable causal attention whose softmax has a sink of value 0, [B, S, H, C].

    The fused kernel knows no sink and no gradient of its log total, so the sink becomes a
    null key before the first token, reached through one channel more than the others use.
    """
    channels = -q.shape[-1] % 16 or 16  # whole vectors
    dim = q.shape[-1]
    q = F.pad(q.transpose(1, 2), (0, channels, 1, 0))  # [B, H, 1 + S, C + x]
    sink = torch.zeros_like(q)
    sink[..., dim] = 1.0
    q = q + sink * sinks[:, None, None]
    null = F.pad(torch.zeros_like(kv[:, :1]), (0, channels))
    null[..., dim] = 1.0
    keys = torch.cat((null, F.pad(kv, (0, channels))), dim=1)
    shared = keys.unsqueeze(1).expand(-1, q.shape[1], -1, -1)
    mixed = F.scaled_dot_product_attention(q, shared, shared, is_causal=True, scale=1.0)
    return mixed[:, :, 1:, :dim].transpose(1, 2)


class DenseTwin(DeepseekV4):
    """The trunk with sliding and full layers."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__(
            uncompressed(config), attention={SLIDING: SlidingAttention, FULL: FullAttention}
        )
