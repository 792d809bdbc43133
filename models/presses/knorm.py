"""KNorm: the tokens whose keys are short.

Devoto et al. 2024, "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression",
arXiv:2406.11430, section 3: keys of a small norm draw much attention. Needs no query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.presses.contract import Past, Press


@dataclass(frozen=True)
class KNorm(Press):
    """The norm of the whole key, in float32."""

    name: ClassVar[str] = "knorm"

    def scores(self, past: Past) -> Tensor:
        norms: Tensor = past.keys.float().norm(dim=-1)
        return -norms
