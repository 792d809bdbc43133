"""Keys of earlier batches, which a training batch's asked queries see as a distant past.

Short sequences so meet the distances and the rivals of a long context. Every global layer keeps
keys of the batches before: K = V rows in the uncompressed twin, entries with their indexer keys
in CSA, entries in HCA. They are kept without rotation, are rotated at fresh positions before the
queries, and carry no gradient. The queries with which a batch asks attend to its own keys and to
these in one softmax.

Shapes: B batch, S tokens, Q asked queries of a row, H heads, C head width, n distant rows,
e own entries, k selected entries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from models.deepseek_v4.parts import Part, softmax_with_sink
from models.layers import Rotation

if TYPE_CHECKING:
    from models.deepseek_v4.attention import Attention, CompressedSparseAttention, Step
    from models.deepseek_v4.model import DeepseekV4

NEAR_TOKENS = 4  # attending to the wanted token or to the three before it counts as finding it
HCA_SHARE = 8  # HCA sees so many times fewer distant rows than the other layers


class Asked(NamedTuple):
    """The queries of a batch that see distant rows, and what they should find."""

    queries: Tensor  # [B, Q] token indices
    sources: Tensor  # [B, Q] index of the token that each should find; -1: none is known
    planted: Tensor  # [B, S] bool: tokens of statements and questions

    def to(self, device: torch.device) -> Asked:
        """On a device."""
        return Asked(*(x.to(device) for x in self))


class Rows(NamedTuple):
    """Distant rows of one layer for one batch."""

    keys: Tensor  # [n, C] rotated
    index_keys: Tensor  # [n, C'] rotated indexer keys; C' is 0 outside CSA
    bias: Tensor  # [B, Q, n] added to logits: -inf if not yet past, else log of the row's weight


class Entries(NamedTuple):
    """A CSA layer's own entries and what its indexer made of the batch."""

    entries: Tensor  # [B, e, C]
    index_keys: Tensor  # [B, e, C']
    index_queries: Tensor  # [B, S, H', C']
    index_weights: Tensor  # [B, S, H']


class Ring:
    """The newest rows of one layer, kept in half precision."""

    def __init__(self, rows: Tensor, count: int = 0) -> None:
        self.rows = rows  # [capacity, width]
        self.count = count  # rows ever added

    def __len__(self) -> int:
        return min(self.count, len(self.rows))

    def add(self, rows: Tensor) -> None:
        """Put rows [n, width] in the place of the oldest."""
        rows = rows[: len(self.rows)]
        places = (torch.arange(len(rows), device=rows.device) + self.count) % len(self.rows)
        self.rows[places] = rows.to(self.rows.dtype)
        self.count += len(rows)


class DistantPast:
    """The distant rows of all global layers, and how well queries find what they should.

    Args:
        model: whose layers keep rows.
        seen: rows that a batch sees in each layer.
        kept: rows that each layer keeps.
        added: rows at most that a batch adds to each layer.
        index_flow: share of the indexer's gradient that goes on into the trunk.
    """

    dtype = torch.float16

    def __init__(
        self, model: DeepseekV4, *, seen: int, kept: int, added: int, index_flow: float
    ) -> None:
        self.seen, self.kept, self.added, self.index_flow = seen, kept, added, index_flow
        self.device = model.device
        self.layers = {id(layer.self_attn): i for i, layer in enumerate(model.model.layers)}
        self.rings: dict[int, Ring] = {}
        self.generator = torch.Generator("cpu")
        self.asked: Asked | None = None
        self.index_losses: dict[int, Tensor] = {}  # a CSA layer's, by layer
        self.attention_losses: dict[int, Tensor] = {}  # a CSA or full layer's, by layer
        self.ranks: dict[int, Tensor] = {}  # of the wanted entry, [found queries], by CSA layer

    def begin(self, asked: Asked, seed: int) -> None:
        """Set the queries of the next batch; what is drawn for it depends on `seed` alone."""
        self.asked = asked
        self.generator.manual_seed(seed)
        self.index_losses, self.attention_losses, self.ranks = {}, {}, {}

    def state(self) -> dict[str, Tensor]:
        """The rows kept, for `restore`."""
        rows = {f"{layer}.rows": ring.rows for layer, ring in self.rings.items()}
        counts = {
            f"{layer}.count": torch.tensor(r.count, device="cpu") for layer, r in self.rings.items()
        }
        return rows | counts

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the rows that `state` gave."""
        layers = [name.removesuffix(".count") for name in state if name.endswith(".count")]
        self.rings = {
            int(layer): Ring(state[f"{layer}.rows"].to(self.device), int(state[f"{layer}.count"]))
            for layer in layers
        }

    def indexer_inputs(self, x: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """x and latent, with `index_flow` of their gradient."""
        if not self.index_flow:
            return x.detach(), latent.detach()
        return with_less_gradient(x, self.index_flow), with_less_gradient(latent, self.index_flow)

    def full(
        self, layer: Attention[Any], q: Tensor, kv: Tensor, mixed: Tensor, step: Step
    ) -> Tensor:
        """`mixed` [B, S, H, C], the asked queries' rows computed over own and distant tokens."""
        asked = self._asked()
        chosen = take(q, asked.queries)
        rows = self._draw(layer, step, 1, kv.shape[-1])
        wanted = near_bias(asked, kv.shape[1], NEAR_TOKENS)
        own = causal_bias(asked.queries, kv.shape[1])
        parts = [biased_part(chosen, kv, own)]
        self._keep(layer, step.compressed.undo(kv), asked.planted)
        found = parts[0].logits + wanted.unsqueeze(2)
        if len(rows.keys):
            parts.append(biased_part(chosen, rows.keys.expand(len(q), -1, -1), rows.bias))
        self._note_attention(layer, [found], parts)
        return put(mixed, asked.queries, softmax_with_sink(parts, layer.sinks))

    def heavily_compressed(
        self,
        layer: Attention[Any],
        q: Tensor,
        keys: Tensor,
        entries: Tensor,
        mixed: Tensor,
        step: Step,
    ) -> Tensor:
        """As `full`, over the window and over own and distant entries of m' tokens."""
        asked, ratio = self._asked(), layer.config.hca_ratio
        chosen = take(q, asked.queries)
        rows = self._draw(layer, step, ratio, entries.shape[-1])
        parts = [
            biased_part(chosen, keys, window_bias(asked.queries, keys.shape[1], layer)),
            biased_part(chosen, entries, entry_bias(asked.queries, entries.shape[1], ratio)),
        ]
        if len(rows.keys):
            parts.append(biased_part(chosen, rows.keys.expand(len(q), -1, -1), rows.bias))
        unturned = entry_rotation(step, ratio, entries.shape[1]).undo(entries)
        self._keep(layer, unturned, entries.new_zeros(entries.shape[:2], dtype=torch.bool))
        return put(mixed, asked.queries, softmax_with_sink(parts, layer.sinks))

    def sparse(
        self,
        layer: CompressedSparseAttention,
        q: Tensor,
        keys: Tensor,
        own: Entries,
        mixed: Tensor,
        step: Step,
    ) -> Tensor:
        """As `full`, over the window and the entries, own or distant, that the indexer selects."""
        asked, ratio, e = self._asked(), layer.config.csa_ratio, own.entries.shape[1]
        rows = self._draw(layer, step, ratio, q.shape[-1])
        bias = torch.cat((entry_bias(asked.queries, e, ratio), rows.bias), dim=-1)  # [B, Q, e + n]
        wanted = wanted_entries(asked, e, ratio, bias)
        scores = self._scores(layer, own, rows, asked)
        self._note_index(layer, scores, bias, wanted)

        allowed = scores.detach().masked_fill(bias.isneginf(), -torch.inf)
        best = allowed.topk(min(layer.config.index_topk, allowed.shape[-1]), dim=-1).indices
        real = ~bias.gather(-1, best).isneginf()
        chosen = take(q, asked.queries)
        picked = gather_rows(own.entries, rows.keys, best)  # [B, Q, k, C]
        logits = (chosen @ picked.transpose(-1, -2)).masked_fill(~real.unsqueeze(2), -torch.inf)
        far = Part(logits, lambda weights: weights @ picked)
        near = biased_part(chosen, keys, window_bias(asked.queries, keys.shape[1], layer))
        self._note_agreement(step, logits, scores.gather(-1, best), real)

        found = [
            near.logits + near_bias(asked, keys.shape[1], NEAR_TOKENS).unsqueeze(2),
            logits.masked_fill(~wanted.gather(-1, best).unsqueeze(2), -torch.inf),
        ]
        self._note_attention(layer, found, [near, far])
        turn = entry_rotation(step, ratio, e)
        unturned = torch.cat((turn.undo(own.entries), turn.undo(own.index_keys)), dim=-1)
        self._keep(layer, unturned, planted_entries(asked.planted, ratio, e))
        return put(mixed, asked.queries, softmax_with_sink([near, far], layer.sinks))

    def _asked(self) -> Asked:
        assert self.asked is not None, "begin was not called"
        return self.asked

    def _scores(
        self, layer: CompressedSparseAttention, own: Entries, rows: Rows, asked: Asked
    ) -> Tensor:
        """The indexer's scores of the asked queries, [B, Q, e + n]."""
        queries, weights = (take(t, asked.queries) for t in (own.index_queries, own.index_weights))
        score = layer.indexer.score
        mine = score(queries, weights, own.index_keys)
        if not len(rows.keys):
            return mine
        return torch.cat((mine, score(queries, weights, rows.index_keys)), dim=-1)

    def _draw(self, layer: Attention[Any], step: Step, ratio: int, width: int) -> Rows:
        """Rows at fresh places, evenly over all positions up to the newest token's.

        A row of text stands for as many as there would be to one drawn; a row of a planted
        sentence stands for itself.
        """
        asked, ring = self._asked(), self.rings.get(self.layers[id(layer)])
        seen = self.seen // HCA_SHARE if ratio == layer.config.hca_ratio else self.seen
        held = len(ring) if ring else 0
        n = min(seen, held)
        if not ring or not n:
            nothing = asked.queries.new_zeros(*asked.queries.shape, 0, dtype=torch.float32)
            return Rows(nothing.new_zeros(0, width), nothing.new_zeros(0, 0), nothing)
        reach = int(step.positions[-1]) + 1
        rows = ring.rows[self._any_order(held)[:n].to(ring.rows.device)].float()
        places = self._places(n, reach).to(step.positions.device) // ratio * ratio  # [n]
        turn = Rotation(places, step.compressed_frequencies)
        keys = turn.apply(rows[None, :, :width])[0]
        index_keys = rows[None, :, width:-1]
        if index_keys.shape[-1]:
            index_keys = turn.apply(index_keys)
        planted = rows[:, -1] > 0
        others = (reach - len(step.positions)) / ratio
        weight = max(1.0, others / max(1, n - int(planted.sum())))
        bias = torch.where(planted, 0.0, math.log(weight))  # [n]
        now = step.positions[asked.queries].unsqueeze(-1)  # [B, Q, 1]
        return Rows(keys, index_keys[0], bias.where(places + ratio <= now + 1, -torch.inf))

    def _any_order(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self.generator, device="cpu")

    def _places(self, n: int, reach: int) -> Tensor:
        """Positions [n], evenly from 0 to `reach`."""
        drawn = torch.rand(n, generator=self.generator, dtype=torch.float64, device="cpu") * reach
        return drawn.long()

    @torch.no_grad()
    def _keep(self, layer: Attention[Any], rows: Tensor, planted: Tensor) -> None:
        """Add some of rows [B, m, width], not rotated, and whether each is planted [B, m]."""
        flat = torch.cat((rows.detach(), planted.unsqueeze(-1)), dim=-1).flatten(0, 1)
        some = self._any_order(len(flat))[: self.added].to(flat.device)
        number = self.layers[id(layer)]
        if number not in self.rings:
            empty = flat.new_zeros(self.kept, flat.shape[1], dtype=self.dtype)
            self.rings[number] = Ring(empty)
        self.rings[number].add(flat[some])

    def _note_index(
        self, layer: Attention[Any], scores: Tensor, bias: Tensor, wanted: Tensor
    ) -> None:
        """Cross-entropy of softmax(scores + bias) [B, Q, x] on wanted entries, and their rank."""
        known = wanted.any(-1)
        number = self.layers[id(layer)]
        if not known.any():
            return
        scores, bias, wanted = scores[known], bias[known], wanted[known]
        logits = scores + bias
        right = logits.masked_fill(~wanted, -torch.inf).logsumexp(-1)
        self.index_losses[number] = (logits.logsumexp(-1) - right).mean()
        with torch.no_grad():
            best = scores.masked_fill(~wanted, -torch.inf).amax(-1, keepdim=True)
            self.ranks[number] = (bias.exp() * (scores > best)).sum(-1)

    def _note_agreement(self, step: Step, logits: Tensor, scores: Tensor, real: Tensor) -> None:
        """The indexer's usual loss, over what was selected."""
        from models.deepseek_v4.indexer import indexer_loss

        assert step.training is not None
        even = scores.new_full(scores.shape[:2], 1 / scores[..., 0].numel())
        step.training.losses.append(indexer_loss(logits, scores, real, even))

    def _note_attention(
        self, layer: Attention[Any], found: list[Tensor], parts: list[Part]
    ) -> None:
        """Minus the log of the weight that the wanted keys have among all, the sink left out."""
        wanted = torch.cat(found, dim=-1)  # [B, Q, H, x]
        known = ~wanted.detach()[:, :, 0].isneginf().all(-1)  # [B, Q]
        if not known.any():
            return
        right = wanted[known].logsumexp(-1)
        everything = torch.cat([part.logits[known] for part in parts], dim=-1).logsumexp(-1)
        # The mean of the heads' weights: one head that finds it nearly suffices.
        shares = (right - everything).logsumexp(-1) - math.log(right.shape[-1])
        self.attention_losses[self.layers[id(layer)]] = -shares.mean()


def with_less_gradient(x: Tensor, share: float) -> Tensor:
    """x, of whose gradient only `share` goes on."""
    return x.detach() + share * (x - x.detach())


def take(x: Tensor, queries: Tensor) -> Tensor:
    """x [B, S, ...] at queries [B, Q] -> [B, Q, ...]."""
    rows: Tensor = x[torch.arange(len(x), device=x.device).unsqueeze(1), queries]
    return rows


def put(x: Tensor, queries: Tensor, rows: Tensor) -> Tensor:
    """x [B, S, ...] with rows [B, Q, ...] at queries."""
    return x.index_put((torch.arange(len(x), device=x.device).unsqueeze(1), queries), rows)


def gather_rows(own: Tensor, distant: Tensor, chosen: Tensor) -> Tensor:
    """Rows of own [B, e, C] and, behind them, distant [n, C] at chosen [B, Q, k]."""
    everything = torch.cat((own, distant.expand(len(own), -1, -1)), dim=1)
    rows = take(everything, chosen.flatten(1))
    return rows.view(*chosen.shape, rows.shape[-1])


def biased_part(q: Tensor, keys: Tensor, bias: Tensor) -> Part:
    """Queries [B, Q, H, C] over keys [B, x, C], with bias [B, Q, x] on the logits of all heads."""
    heads = q.shape[2]
    logits = (q.flatten(1, 2) @ keys.transpose(-1, -2)).unflatten(1, (-1, heads))
    logits = logits + bias.unsqueeze(2)
    return Part(logits, lambda w: (w.flatten(1, 2) @ keys).unflatten(1, (-1, heads)))


def where(allowed: Tensor) -> Tensor:
    """0 where allowed, -inf elsewhere."""
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill_(~allowed, -torch.inf)


def causal_bias(queries: Tensor, num_keys: int) -> Tensor:
    """[B, Q, num_keys]: keys up to the query's own."""
    return where(torch.arange(num_keys, device=queries.device) <= queries.unsqueeze(-1))


def window_bias(queries: Tensor, num_keys: int, layer: Attention[Any]) -> Tensor:
    """[B, Q, num_keys]: the exact window's keys."""
    keys, now = torch.arange(num_keys, device=queries.device), queries.unsqueeze(-1)
    return where((keys <= now) & (keys > now - layer.config.sliding_window))


def entry_bias(queries: Tensor, num_entries: int, ratio: int) -> Tensor:
    """[B, Q, num_entries]: own entries that are closed."""
    return where(
        torch.arange(num_entries, device=queries.device) < ((queries + 1) // ratio).unsqueeze(-1)
    )


def near_bias(asked: Asked, num_keys: int, near: int) -> Tensor:
    """[B, Q, num_keys]: the token that a query should find and the `near` - 1 before it."""
    back = asked.sources.unsqueeze(-1) - torch.arange(num_keys, device=asked.sources.device)
    return where((back >= 0) & (back < near) & (asked.sources >= 0).unsqueeze(-1))


def wanted_entries(asked: Asked, num_entries: int, ratio: int, bias: Tensor) -> Tensor:
    """[B, Q, e + n] bool: closed entries that hold the wanted token; it is in two of them."""
    own = torch.div(asked.sources, ratio, rounding_mode="floor").unsqueeze(-1)
    entries = torch.arange(bias.shape[-1], device=bias.device)
    holds = (entries == own) | (entries == own + 1)
    known = (asked.sources >= 0).unsqueeze(-1) & (entries < num_entries)
    return holds & known & ~bias.isneginf()


def planted_entries(planted: Tensor, ratio: int, num_entries: int) -> Tensor:
    """[B, S] by token -> [B, num_entries]: entries with a planted token of their own."""
    whole = planted[:, : num_entries * ratio]
    return whole.reshape(len(planted), num_entries, ratio).any(-1)


def entry_rotation(step: Step, ratio: int, num_entries: int) -> Rotation:
    """The rotation that entries were given."""
    starts = step.positions[: num_entries * ratio : ratio]
    return Rotation(starts, step.compressed_frequencies)
