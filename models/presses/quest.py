"""Quest: everything is kept, and each query reads a share of the pages.

Tang et al. 2024, "Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference",
arXiv:2406.10774, section 3.3: a page holds the smallest and the largest value of each channel of
its keys. A query's upper bound on a page is the sum over channels of the larger product of the
two; the pages of the highest bounds are read. The first layers read everything (section 4.1).
Tokens behind the context are always read. Each query head chooses its own pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.presses.contract import Past, Press, kept_tokens


class Pages(NamedTuple):
    """Bounds [G, m, C] of the keys of each page; `tokens` of the context, `read` pages a query."""

    lowest: Tensor
    highest: Tensor
    size: int
    tokens: int
    read: int

    def chosen(self, queries: Tensor) -> Tensor:
        """Which tokens of the context each query reads: queries [H, S, C] -> bool [H, S, n]."""
        groups = self.lowest.shape[0]
        asked = queries.float().unflatten(0, (groups, -1))  # [G, H/G, S, C]
        positive, negative = asked.clamp(min=0), asked.clamp(max=0)
        lowest, highest = (
            bound[:, None].transpose(-1, -2) for bound in (self.lowest, self.highest)
        )
        bounds = (positive @ highest + negative @ lowest).flatten(0, 1)  # [H, S, m]
        best = bounds.topk(self.read, dim=-1).indices
        pages = torch.zeros_like(bounds, dtype=torch.bool).scatter(-1, best, True)
        return pages.repeat_interleave(self.size, dim=-1)[..., : self.tokens]


@dataclass(frozen=True)
class Quest(Press):
    """`page`: tokens of a page. `dense_layers`: how many first layers read everything."""

    page: int = 16
    dense_layers: int = 2

    name: ClassVar[str] = "quest"
    evicts: ClassVar[bool] = False

    def scores(self, past: Past) -> Tensor:
        """Everything stays."""
        return past.keys.new_zeros(past.keys.shape[:2])

    def pages(self, past: Past) -> Pages | None:
        """The pages of a layer's context; None where it reads everything."""
        if past.layer < self.dense_layers:
            return None
        keys = past.keys.float()
        fill = -past.tokens % self.page
        count = (past.tokens + fill) // self.page
        blocks = F.pad(keys, (0, 0, 0, fill)).unflatten(1, (count, self.page))
        if fill:  # a page that is not full repeats its last key
            blocks = blocks.clone()
            blocks[:, -1, self.page - fill :] = keys[:, -1:]
        read = kept_tokens(count, self.keep)
        return Pages(blocks.amin(2), blocks.amax(2), self.page, past.tokens, read)
