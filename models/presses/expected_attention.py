"""Expected attention: the tokens that queries to come will attend to, by the queries so far.

Devoto et al. 2025, "Expected Attention: KV Cache Compression by Estimating Attention from Future
Queries Distribution", arXiv:2510.00636, section 3: queries before their rotary embedding are taken
as normal; with the mean m and the covariance S of the queries at the positions to come, the
expected weight of key k is exp(m·k + k·S·k / 2), times the norm of its value. The first tokens
stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from models.presses.contract import Past, Press
from models.presses.observed import SINKS, Needs


@dataclass(frozen=True)
class ExpectedAttention(Press):
    """`future`: positions behind the context over which the rotation is averaged."""

    future: int = 512

    name: ClassVar[str] = "expected_attention"

    @property
    def needs(self) -> Needs:
        return Needs(statistics=True)

    def scores(self, past: Past) -> Tensor:
        scores = past.keys.new_zeros(past.keys.shape[:2], dtype=torch.float32)
        if past.tokens > SINKS:
            scores[:, SINKS:] = self._expected(past)
        first = min(SINKS, past.tokens)
        ranks = torch.arange(first, 0, -1, device=scores.device)
        scores[:, :first] = scores.max() + ranks
        return scores

    def _expected(self, past: Past) -> Tensor:
        """[G, n - SINKS]."""
        mean, covariance = self._future_queries(past)  # [H, C], [H, C, C]
        groups = past.keys.shape[0]
        keys = past.keys[:, None, SINKS:].float()  # [G, 1, n, C]
        mean = mean.unflatten(0, (groups, -1))[..., None]
        covariance = covariance.unflatten(0, (groups, -1))
        logits = (keys @ mean).squeeze(-1) + ((keys @ covariance) * keys).sum(-1) / 2
        weights: Tensor = logits.softmax(-1).mean(1)
        norms: Tensor = past.values[:, SINKS:].float().norm(dim=-1)
        return weights * norms

    def _future_queries(self, past: Past) -> tuple[Tensor, Tensor]:
        """Mean [H, C] and covariance [H, C, C] of queries turned to the positions to come."""
        held, tokens = past.observed.held, past.tokens
        positions = torch.arange(tokens, tokens + self.future, device=past.keys.device)
        turn = past.observed.rotary.mean_matrix(positions, held["mean"].shape[-1])
        covariance = held["scatter"] / held["count"]
        return held["mean"] @ turn.T, turn @ covariance @ turn.T
