"""H2O: half of the room for the tokens that drew the most attention, half for the newest.

Zhang et al. 2023, "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language
Models", arXiv:2306.14048, section 4: attention weights summed over all queries. There one token is
dropped at each step; here all are dropped at once when the context has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.presses.contract import Past, Press, kept_tokens, newest_first
from models.presses.observed import Needs


@dataclass(frozen=True)
class H2O(Press):
    """Query heads that share a KV head are averaged."""

    name: ClassVar[str] = "h2o"

    @property
    def needs(self) -> Needs:
        return Needs(attention=True)

    def scores(self, past: Past) -> Tensor:
        room = kept_tokens(past.tokens, self.keep)
        return newest_first(past.per_kv_head(past.observed.held["attention"]), room - room // 2)
