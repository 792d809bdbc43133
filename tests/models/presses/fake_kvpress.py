"""Stands for the package kvpress: the parts of it that are looked at, and a few presses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "BasePress",
    "BudgetPress",
    "KnormPress",
    "MaskPress",
    "ObservedAttentionPress",
    "RandomPress",
    "ScorerPress",
    "WindowPress",
]


class BasePress:
    """What a press of kvpress does while a text is read."""

    def post_init_from_model(self, model: Any) -> None:
        raise AssertionError("not called here")

    def compress(self, *_: Any) -> Any:
        raise AssertionError("not called here")

    def forward_hook(self, *_: Any) -> Any:
        raise AssertionError("not called here")

    def __call__(self, model: Any) -> Any:
        raise AssertionError("not called here")


@dataclass
class ScorerPress(BasePress):
    """Drops the tokens of the lowest scores."""

    compression_ratio: float = 0.0

    def score(
        self, module: Any, hidden: Tensor, keys: Tensor, values: Tensor, weights: Any, given: Any
    ) -> Tensor:
        raise NotImplementedError


@dataclass
class KnormPress(ScorerPress):
    """The shortest keys."""

    def score(
        self, module: Any, hidden: Tensor, keys: Tensor, values: Tensor, weights: Any, given: Any
    ) -> Tensor:
        assert weights is None
        return -keys.norm(dim=-1)


@dataclass
class WindowPress(ScorerPress):
    """What the last queries attend to; they are computed from hidden states, and turned."""

    window_size: int = 11
    scale: float = 1.0
    loud: bool = False

    def __post_init__(self) -> None:
        assert self.window_size < 500, "a window below 500"

    def score(
        self, module: Any, hidden: Tensor, keys: Tensor, values: Tensor, weights: Any, given: Any
    ) -> Tensor:
        tokens, size = keys.shape[2], self.window_size
        assert hidden.shape[1] == tokens
        assert tokens > size, f"more than {size} tokens"
        assert module.rotary_emb is not None
        cos, sin = (part[:, None, -size:] for part in given["position_embeddings"])
        queries = module.q_proj(hidden[:, -size:]).unflatten(-1, (-1, module.head_dim))
        queries = queries.transpose(1, 2)  # [1, H, w, C]
        first, second = queries.chunk(2, dim=-1)
        queries = queries * cos + torch.cat((-second, first), dim=-1) * sin
        shared = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
        logits = queries @ shared.transpose(-1, -2) * module.scaling * self.scale
        later = torch.arange(tokens) > torch.arange(tokens - size, tokens)[:, None]
        votes = logits.masked_fill(later, -torch.inf).softmax(-1).mean(2)
        scores = votes.unflatten(1, (keys.shape[1], -1)).mean(2)
        scores[..., -size:] = 2.0
        return scores


@dataclass
class RandomPress(ScorerPress):
    """Draws from the generator of the process."""

    seed: int | None = None

    def score(
        self, module: Any, hidden: Tensor, keys: Tensor, values: Tensor, weights: Any, given: Any
    ) -> Tensor:
        return torch.rand(keys.shape[:-1])


@dataclass
class ObservedAttentionPress(KnormPress):
    """Named as the class that wants attention weights."""


@dataclass
class BudgetPress(KnormPress):
    """Has a budget of its own for each layer."""

    def compress(self, *_: Any) -> Any:
        return None


@dataclass
class MaskPress(BasePress):
    """Another press within it."""

    press: ScorerPress
