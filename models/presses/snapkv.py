"""SnapKV: the tokens that the last queries of the context attend to.

Li et al. 2024, "SnapKV: LLM Knows What You are Looking for Before Generation", arXiv:2404.14469,
section 4: attention of an observation window at the end of the prompt, pooled over neighbours so
that a detail is kept with what surrounds it. The window itself stays.
Query heads that share a KV head vote by their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from models.presses.contract import Past, Press, newest_first
from models.presses.observed import Needs


@dataclass(frozen=True)
class SnapKV(Press):
    """`window`: queries that are asked. `kernel`: tokens that are averaged, an odd number."""

    window: int = 64
    kernel: int = 5

    name: ClassVar[str] = "snapkv"

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window)

    def scores(self, past: Past) -> Tensor:
        votes = past.recent_attention(self.window).mean(1)  # [H, n]
        before = max(0, past.tokens - self.window)
        scores = votes.new_zeros(votes.shape)
        if before:
            pooled = F.avg_pool1d(votes[:, :before], self.kernel, 1, self.kernel // 2)
            scores[:, :before] = pooled
        return newest_first(past.per_kv_head(scores), self.window)
