"""The uncompressed twin: DeepSeek-V4's trunk, with every token's own entry kept.

Only the memory of the global layers differs from `deepseek_v4`: where that model holds
compressed entries, this one holds, and attends to, every token. A press (`models.presses`) keeps
or reads a share of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
from models.deepseek_v4.parts import shared_keys_part, softmax_with_sink
from models.devices import storage_bytes
from models.number_formats import rounded
from models.presses.contract import Past, kept
from models.presses.observed import Call, Observed
from models.presses.options import Pressing
from models.presses.quest import Pages, Quest


@dataclass
class FullCache(LayerCache):
    """Of full attention. `queries` is what presses have seen; nothing where no press needs it."""

    full: Rows = field(default_factory=Rows, metadata={KIND: "full"})  # every token's K = V
    queries: Observed = field(default_factory=Observed, metadata={KIND: "queries"})
    pages: Pages | None = None  # of a context whose queries read few of them

    def fork(self) -> FullCache:
        return replace(super().fork(), pages=self.pages)

    def num_bytes(self) -> dict[str, int]:
        """Without kinds of which nothing is held but that of the keys."""
        counted = super().num_bytes()
        bounds = [] if self.pages is None else [self.pages.lowest, self.pages.highest]
        counted["pages"] = storage_bytes(bounds)
        return {kind: size for kind, size in counted.items() if size or kind == "full"}

    def press(self, pressing: Pressing, layer: int, sinks: Tensor) -> None:
        """Keep the rows that the press chooses, or make the pages that queries choose from."""
        if len(self.full):
            keys = self.full.read(len(self.full))
            past = Past(layer, keys, keys, self.queries, sinks)
            if isinstance(pressing.press, Quest):
                self.pages = pressing.press.pages(past)
            else:
                chosen = kept(pressing.press, past)  # one KV head
                self.full = self.full.only(chosen[0])


class FullAttention(Attention[FullCache]):
    """All previous tokens, one softmax with the learned sink, rotary as in the layer replaced."""

    def new_cache(self) -> FullCache:
        return FullCache(Rows(format=self.cache_format.entry))

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
            kv = rounded(kv, self.cache_format.entry)
            near = causal_with_sink(q, kv.to(q.dtype), self.sinks)
            if step.training is None or step.training.distant is None:
                return near
            return step.training.distant.full(self, q, kv, near, step)
        seen = len(cache.full)
        kv = cache.full.append(kv)
        asking = q.shape[1]
        past = blocked.seen_by_all(cache.full.blocks(seen), kv, asking)
        kv = kv[:, -asking:]
        if cache.pages is not None:
            attended = self.attend_pages(q, tuple(past), kv, cache.pages)
        elif kernels.usable(q, kv):
            mixed = [attend(q, rows) for rows in past]
            attended = merge([*mixed, attend(q, kv, causal=True)], self.sinks)
        else:
            attended = blocked.attend(q, tuple(past), kv, self.sinks)
        if cache.queries.needs.queries:
            self.observe(q, cache)
        return attended

    def observe(self, q: Tensor, cache: FullCache) -> None:
        """Collect what presses need of the queries [1, S, H, C]."""
        held = len(cache.full)
        keys = q[:, :0, 0]  # enough to tell the number of heads
        if cache.queries.needs.attention:
            keys = cache.full.read(held)
        cache.queries.add(Call(q[0].transpose(0, 1), keys, held - q.shape[1], self.sinks))

    def attend_pages(self, q: Tensor, past: tuple[Tensor, ...], kv: Tensor, pages: Pages) -> Tensor:
        """Scaled queries [1, S, H, C] over pages of their own, later tokens and the sink."""
        keys = torch.cat((*past, kv), dim=1)
        held, tokens = keys.shape[1], q.shape[1]
        row = torch.arange(held - tokens, held, device=q.device)[:, None]
        allowed = torch.arange(held, device=q.device) <= row
        read = allowed.unsqueeze(1).repeat(1, q.shape[2], 1)  # [S, H, n]
        read[..., : pages.tokens] &= pages.chosen(q[0].transpose(0, 1)).transpose(0, 1)
        part = shared_keys_part(q, keys, allowed)
        hidden = part.logits.masked_fill(~read, -torch.inf)
        return softmax_with_sink([part._replace(logits=hidden)], self.sinks)


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
