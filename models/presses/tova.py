"""TOVA: the tokens that the last query of the context attends to.

Oren et al. 2024, "Transformers are Multi-State RNNs", arXiv:2401.06104, section 3.2: the attention
weights of the last query, averaged over all heads of a layer, decide for all its heads alike.
There one token is dropped at each step; here all are dropped at once when the context has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.presses.contract import Past, Press, newest_first
from models.presses.observed import Needs


@dataclass(frozen=True)
class Tova(Press):
    """The last token always stays."""

    name: ClassVar[str] = "tova"

    @property
    def needs(self) -> Needs:
        return Needs(window=1)

    def scores(self, past: Past) -> Tensor:
        scores = past.recent_attention(1)[:, 0].mean(0)  # [n]
        return newest_first(scores, 1).expand(past.keys.shape[0], -1)
