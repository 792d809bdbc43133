"""Random eviction: the control that every press has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.presses.contract import Past, Press


@dataclass(frozen=True)
class Random(Press):
    """Each layer and KV head draws its own tokens, by `seed` and the length of the context."""

    seed: int = 0

    name: ClassVar[str] = "random"

    def scores(self, past: Past) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + past.layer)
        heads, tokens = past.keys.shape[:2]
        drawn = [torch.randperm(tokens, generator=generator) for _ in range(heads)]
        return torch.stack(drawn).to(past.keys.device)
