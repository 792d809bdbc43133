"""What a press is given of one layer's past, and what it gives back.

H query heads share G KV heads, n tokens are held, C is the width of keys.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from models.presses.observed import NOTHING, Call, Needs, Observed, attention


class Inputs(NamedTuple):
    """What an attention layer was given: `layer` is the module itself, `hidden` [1, n, D], and
    `cos` and `sin` [1, n, C] turn queries and keys at their positions."""

    layer: Any
    hidden: Tensor
    cos: Tensor
    sin: Tensor


class Past(NamedTuple):
    """A layer's context when it has ended: row i belongs to the token at position i.

    `keys` [G, n, C] as they are held, rotated; `values` [G, n, D]; `observed` and `inputs` have
    what the press said that it needs. `sinks` and `softcap` are those of `Call`.
    """

    layer: int
    keys: Tensor
    values: Tensor
    observed: Observed
    sinks: Tensor | None = None
    softcap: float | None = None
    inputs: Inputs | None = None

    @property
    def tokens(self) -> int:
        return int(self.keys.shape[1])

    def recent_attention(self, window: int) -> Tensor:
        """Attention weights [H, w, n] of the last w = min(window, n) queries, causal."""
        queries = self.observed.held["queries"][:, -window:]
        start = self.tokens - queries.shape[1]
        return attention(Call(queries, self.keys, start, self.sinks, self.softcap))

    def per_kv_head(self, scores: Tensor) -> Tensor:
        """Scores [H, n] averaged over the query heads that share a KV head: [G, n]."""
        groups = self.keys.shape[0]
        shared: Tensor = scores.unflatten(0, (groups, -1)).mean(1)
        return shared


@dataclass(frozen=True)
class Press(ABC):
    """Chooses a share `keep` of the tokens, for each layer and KV head on its own."""

    keep: float

    name: ClassVar[str]
    evicts: ClassVar[bool] = True
    """False: everything is kept, and fewer tokens are read."""

    @property
    def needs(self) -> Needs:
        return NOTHING

    @abstractmethod
    def scores(self, past: Past) -> Tensor:
        """[G, n]: the tokens of the highest scores stay."""

    def settings(self) -> dict[str, object]:
        """The press and its options: all that decides what it keeps."""
        return {"name": self.name, **vars(self)}


def kept_tokens(tokens: int, keep: float) -> int:
    """How many of so many tokens are kept: the share rounded down, at least one of any."""
    return min(tokens, max(1, math.floor(tokens * keep + 1e-9)))  # 1e-9: 0.29 * 100 is below 29


def kept(press: Press, past: Past) -> Tensor:
    """Rows to keep, [G, k], ascending. They depend on the context alone."""
    count = kept_tokens(past.tokens, press.keep)
    return press.scores(past).topk(count, dim=-1).indices.sort(dim=-1).values


def newest_first(scores: Tensor, window: int) -> Tensor:
    """Scores [..., n] with the last `window` above all others, the newest highest."""
    tokens = scores.shape[-1]
    window = min(window, tokens)
    highest = scores.max()
    scores = scores.clone()
    ranks = torch.arange(1, window + 1, device=scores.device, dtype=scores.dtype)
    scores[..., tokens - window :] = highest + ranks
    return scores
