"""What presses need of the queries, collected while a context is read.

Every tensor is replaced and never written into, so forks share it. Nothing depends on how the
context is split into calls, roundings apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from models.presses.rotary import NO_ROTATION, Rotary

SINKS = 4
"""The first tokens of a context, whose states are outliers (StreamingLLM, arXiv:2309.17453)."""

BLOCK = 2**22
"""Attention weights held at once while they are summed."""


class Needs(NamedTuple):
    """`window`: the queries of so many last tokens. `statistics`: the mean and the covariance of
    all queries before their rotary embedding. `attention`: each key's share of all attention.
    `inputs`: no queries, but what each attention layer is given (`contract.Inputs`)."""

    window: int = 0
    statistics: bool = False
    attention: bool = False
    inputs: bool = False

    @property
    def queries(self) -> bool:
        """Whether anything is collected from queries."""
        return bool(self.window or self.statistics or self.attention)


NOTHING = Needs()


def union(needs: Iterable[Needs]) -> Needs:
    """What serves all of them."""
    found = list(needs)
    return Needs(
        max((each.window for each in found), default=0),
        any(each.statistics for each in found),
        any(each.attention for each in found),
        any(each.inputs for each in found),
    )


class Call(NamedTuple):
    """The queries of one call, in one layer. H query heads, S tokens, G KV heads, n tokens held.

    `queries` [H, S, C] are rotated and scaled: a logit is the product of a query and a key. They
    stand at `start` and behind it. `keys` [G, n, C] are all that is held, the call's own last.
    `sinks` [H] are logits of keys without a value, `softcap` c makes logits c · tanh(logit / c).
    """

    queries: Tensor
    keys: Tensor
    start: int
    sinks: Tensor | None = None
    softcap: float | None = None


@dataclass
class Observed:
    """What one layer has collected so far. Implements `Part` of the caches of DeepSeek-V4.

    `queries` [H, w, C] of the last tokens; `count`, `mean` [H, C] and `scatter` [H, C, C] (sum of
    outer products of deviations) of the queries from token SINKS on, before their rotation;
    `attention` [H, n], summed over the queries.
    """

    needs: Needs = NOTHING
    rotary: Rotary = NO_ROTATION
    held: dict[str, Tensor] = field(default_factory=dict)

    def add(self, call: Call) -> None:
        """Collect from a call."""
        if self.needs.window:
            self._add_window(call.queries)
        if self.needs.statistics:
            self._add_statistics(call.queries, call.start)
        if self.needs.attention:
            self._add_attention(call)

    def _add_window(self, queries: Tensor) -> None:
        before = self.held.get("queries")
        every = queries if before is None else torch.cat((before, queries), dim=1)
        self.held["queries"] = every[:, -self.needs.window :].clone()

    def _add_statistics(self, queries: Tensor, start: int) -> None:
        """Merges means and scatters (Chan, Golub, LeVeque 1979)."""
        left_out = max(0, SINKS - start)
        chosen = queries[:, left_out:].float()
        added = chosen.shape[1]
        if not added:
            return
        first = start + left_out
        positions = torch.arange(first, first + added, device=queries.device)
        chosen = self.rotary.undo(chosen, positions)
        mean = chosen.mean(1)
        deviations = chosen - mean[:, None]
        scatter = deviations.transpose(1, 2) @ deviations
        count = torch.tensor(float(added), device=queries.device)
        if "count" in self.held:
            before, shift = self.held["count"], mean - self.held["mean"]
            total = before + count
            mean = self.held["mean"] + shift * (count / total)
            between = shift[:, :, None] * shift[:, None] * (before * count / total)
            scatter = self.held["scatter"] + scatter + between
            count = total
        self.held |= {"count": count, "mean": mean, "scatter": scatter}

    def _add_attention(self, call: Call) -> None:
        heads, tokens = call.queries.shape[:2]
        held = call.keys.shape[1]
        total = torch.zeros(heads, held, device=call.queries.device)
        before = self.held.get("attention")
        if before is not None:
            total[:, : before.shape[1]] = before
        size, end = max(1, BLOCK // (heads * held)), held - tokens
        for block in call.queries.split(size, dim=1):
            end += block.shape[1]
            part = call._replace(queries=block, keys=call.keys[:, :end])
            total[:, :end] += attention(part).sum(1)
        self.held["attention"] = total

    def fork(self) -> Observed:
        return Observed(self.needs, self.rotary, dict(self.held))

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.held)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Observed:
        return cls(held=dict(tensors))


def attention(call: Call) -> Tensor:
    """Attention weights [H, S, n] of a call's queries, each over the keys up to its own token."""
    heads, tokens = call.queries.shape[:2]
    groups, held = call.keys.shape[:2]
    queries = call.queries.float().unflatten(0, (groups, heads // groups))  # [G, H/G, S, C]
    logits = (queries @ call.keys.float()[:, None].transpose(-1, -2)).flatten(0, 1)
    if call.softcap is not None:
        logits = call.softcap * (logits / call.softcap).tanh()
    row = torch.arange(held - tokens, held, device=logits.device)[:, None]
    later = torch.arange(held, device=logits.device) > row
    logits = logits.masked_fill(later, -torch.inf)
    if call.sinks is not None:
        sinks = call.sinks.float()[:, None, None].expand(-1, tokens, 1)
        logits = torch.cat((logits, sinks), dim=-1)
    weights: Tensor = logits.softmax(-1)[..., :held]
    return weights
