"""StreamingLLM: the first tokens and the newest ones.

Xiao et al. 2023, "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453,
section 3.2. There the kept keys get new positions within the cache; here they keep their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.presses.contract import Past, Press
from models.presses.observed import SINKS


@dataclass(frozen=True)
class StreamingLLM(Press):
    """`sinks`: how many first tokens stay."""

    sinks: int = SINKS

    name: ClassVar[str] = "streaming_llm"

    def scores(self, past: Past) -> Tensor:
        tokens = past.tokens
        ranks = torch.arange(tokens, device=past.keys.device)
        ranks[: self.sinks] = 2 * tokens - ranks[: self.sinks]
        return ranks.expand(past.keys.shape[0], -1)
