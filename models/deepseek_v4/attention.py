"""Attention over a short exact window and, by layer type, compressed entries: one softmax.

Report section 2.3. Shapes: B batch, S tokens of a chunk, A of them that ask (or S queries where
all do), H heads, C head width, w window, n entries, k selected. K = V is one head shared by all
queries (MQA), so H folds into S wherever keys are common.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from models import kernels
from models.deepseek_v4 import blocked, fused
from models.deepseek_v4.cache import CsaCache, HcaCache, LayerCache, Rows, SlidingCache, Window
from models.deepseek_v4.compressor import Compressor, visible_entries, visible_mask
from models.deepseek_v4.config import CSA, HCA, SLIDING, DeepseekV4Config
from models.deepseek_v4.distant import DistantPast, Entries
from models.deepseek_v4.indexer import Indexer, indexer_loss, select
from models.deepseek_v4.parts import (
    Part,
    gathered_part,
    selection_mask,
    shared_keys_part,
    softmax_with_sink,
    window_part,
)
from models.deepseek_v4.trace import Watch
from models.finite import require_finite, require_finite_entries, require_finite_index
from models.layers import KeepsFloat32, Linear, RMSNorm, Rotation, rms_normalize
from models.number_formats import CacheFormat, RowFormat, rounded


@dataclass
class IndexerTraining:
    """How CSA behaves while its indexer learns; absent at inference."""

    sparse: bool  # False: dense warm-up, all visible entries are attended to
    query_weights: Tensor  # [B, S], each query's share in the loss; sums to 1
    losses: list[Tensor] = field(default_factory=list)
    distant: DistantPast | None = None
    entries: Entries | None = None  # of the CSA or HCA layer under way

    def indexer_inputs(self, x: Tensor, latent: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, S, D] and latent [B, S, R], whose gradient goes no further or in part."""
        if self.distant is None:
            return x.detach(), latent.detach()
        return self.distant.indexer_inputs(x, latent)


class Step(NamedTuple):
    """What all layers of one forward call share."""

    indices: Tensor  # [S] token counts from 0: decide visibility
    positions: Tensor  # [S] rotary positions; equal to indices except in training
    local: Rotation
    compressed: Rotation
    compressed_frequencies: Tensor
    training: IndexerTraining | None = None
    start: int = 0  # the first of `indices`, known without a wait for the device

    def last(self, count: int) -> Step:
        """The step of the chunk's last `count` tokens."""
        earlier = len(self.indices) - count
        if not earlier:
            return self
        return self._replace(
            indices=self.indices[earlier:],
            positions=self.positions[earlier:],
            local=self.local.last(count),
            compressed=self.compressed.last(count),
            start=self.start + earlier,
        )

    def closed(self, ratio: int, upto: int) -> int:
        """Entries of `ratio` tokens that are closed after the chunk's first `upto` tokens."""
        return (self.start + upto) // ratio


class GroupedLinear(nn.Linear):
    """Block-diagonal projection: G groups of heads, each to R channels."""

    def __init__(self, groups: int, group_dim: int, rank: int) -> None:
        super().__init__(group_dim, groups * rank, bias=False)
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, H * C] -> [B, S, G * R]."""
        blocks = self.weight.unflatten(0, (self.groups, -1))  # [G, R, H * C / G]
        if kernels.usable(x, blocks):
            rows = x.reshape(-1, x.shape[-1])
            out = x.new_empty(len(rows), len(self.weight))
            parts = (each.chunk(self.groups, dim=1) for each in (rows, out))
            for source, target, block in zip(*parts, blocks, strict=True):
                torch.mm(source, block.t(), out=target)
            return out.view(*x.shape[:-1], -1)
        x = x.to(self.weight.dtype).unflatten(-1, (self.groups, -1))
        return torch.einsum("bsgi,gri->bsgr", x, blocks).flatten(2)


C = TypeVar("C", bound=LayerCache)
H = TypeVar("H", bound=HcaCache)


class AttentionLayer(KeepsFloat32, Generic[C]):
    """What the trunk asks of a layer's attention; C is the class of its caches.

    Rows are held in the model's type, or in `cache_format`; without a cache they are rounded to it.
    """

    cache_format = CacheFormat()

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__()
        self.config = config

    def new_cache(self) -> C:
        """A cache of no tokens."""
        raise NotImplementedError

    def forward(self, x: Tensor, step: Step, cache: C | None, asking: int | None = None) -> Tensor:
        """x [B, S, D] -> [B, A, D], what the chunk's last `asking` tokens attend to (None: all).

        With a cache, B is 1 and the whole chunk is appended to it.
        """
        raise NotImplementedError

    def tempered(self, q: Tensor, step: Step) -> Tensor:
        """Logits that grow with log length, where the configuration asks for it."""
        if self.config.log_length_base is None:
            return q
        growth = (step.positions + 1).float().log() / math.log(self.config.log_length_base)
        return q * growth.clamp(min=1.0)[:, None, None]


class Attention(AttentionLayer[C]):
    """The query, K = V and output paths; subclasses decide which past a query reaches.

    Queries, logits and mixes are float32; keys are held in the model's type.
    """

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__(config)
        d, h, c = config.hidden_size, config.num_attention_heads, config.head_dim
        self.q_a_proj = Linear(d, config.q_lora_rank)
        self.q_a_norm = RMSNorm(config.q_lora_rank, config.rms_norm_eps)
        self.q_b_proj = Linear(config.q_lora_rank, h * c)
        self.kv_proj = Linear(d, c)
        self.kv_norm = RMSNorm(c, config.rms_norm_eps)
        self.o_a_proj = GroupedLinear(config.o_groups, h * c // config.o_groups, config.o_lora_rank)
        self.o_b_proj = Linear(config.o_groups * config.o_lora_rank, d)
        self.sinks = nn.Parameter(torch.zeros(h))
        self.scale = c**-0.5

    def forward(self, x: Tensor, step: Step, cache: C | None, asking: int | None = None) -> Tensor:
        asking = asking or x.shape[1]
        asked = step.last(asking)
        rotation = self.rotation(asked)
        latent = self.q_a_norm(self.q_a_proj(x[:, -asking:]))
        q = self.q_b_proj(latent).unflatten(-1, (-1, self.config.head_dim))
        q = rotation.apply(rms_normalize(q, self.config.rms_norm_eps))
        kv = self.rotation(step).apply(self.kv_norm(self.kv_proj(x))).to(self.key_type)
        if cache is not None:  # a format of few bits may have no NaN
            require_finite(kv[0], step.start)
        mixed = self.attend(x, latent, self.tempered(q, asked) * self.scale, kv, step, cache)
        out: Tensor = self.o_b_proj(self.o_a_proj(rotation.undo(mixed).flatten(2)))
        return out

    @property
    def key_type(self) -> torch.dtype:
        """The type in which keys and entries are held."""
        return self.kv_proj.weight.dtype

    def rotation(self, step: Step) -> Rotation:
        return step.compressed

    def attend(
        self,
        x: Tensor,
        latent: Tensor,
        q: Tensor,
        kv: Tensor,
        step: Step,
        cache: C | None,
    ) -> Tensor:
        """Scaled queries [B, A, H, C] over the reachable past -> [B, A, H, C].

        `latent` [B, A, R] and the queries are those of the chunk's last A tokens; x [B, S, D] and
        kv [B, S, C] of all of it.
        """
        raise NotImplementedError


def window_keys(
    kv: Tensor, cache: SlidingCache | None, window: int, entry_format: RowFormat
) -> Tensor:
    """The chunk's keys behind those that the cache still holds, [B, P + S, C]."""
    if cache is None:
        return rounded(kv, entry_format)
    return cache.window.append(kv, window - 1)


def window_alone(q: Tensor, keys: Tensor, window: int, sinks: Tensor) -> Tensor:
    """Queries [B, S, H, C] over the band of keys [B, P + S, C] that each may see."""
    if kernels.usable(q, keys):
        return fused.merge([fused.attend_window(q, keys, window)], sinks)
    return softmax_with_sink([window_part(q, keys, window)], sinks)


class SlidingAttention(Attention[SlidingCache]):
    """The last `sliding_window` tokens, self included, exactly; plain rotary embedding."""

    def new_cache(self) -> SlidingCache:
        return SlidingCache(Window(format=self.cache_format.entry))

    def rotation(self, step: Step) -> Rotation:
        return step.local

    def tempered(self, q: Tensor, step: Step) -> Tensor:
        return q

    def attend(
        self,
        x: Tensor,
        latent: Tensor,
        q: Tensor,
        kv: Tensor,
        step: Step,
        cache: SlidingCache | None,
    ) -> Tensor:
        w = self.config.sliding_window
        keys = window_keys(kv, cache, w, self.cache_format.entry)
        return window_alone(q, keys, w, self.sinks)


class CompressedAttention(Attention[H]):
    """The window and compressed entries together; subclasses say which entries."""

    compressor: Compressor

    def attend(
        self,
        x: Tensor,
        latent: Tensor,
        q: Tensor,
        kv: Tensor,
        step: Step,
        cache: H | None,
    ) -> Tensor:
        w = self.config.sliding_window
        keys = window_keys(kv, cache, w, self.cache_format.entry)
        if cache is not None and cache.gone:
            return window_alone(q, keys, w, self.sinks)
        asked = step.last(q.shape[1])
        visible = visible_entries(asked.indices, self.compressor.ratio)
        if step.training is None and kernels.usable(q, keys):
            near = fused.attend_window(q, keys, w)
            far = self.reach(x, latent, q, step, cache, visible)
            return fused.merge([near, far] if far else [near], self.sinks)
        past = keys.shape[1] - q.shape[1]
        attend_block = self.prepare(x, latent, step, cache)
        ratio = self.compressor.ratio
        size = self._block_size(asked.closed(ratio, q.shape[1]), q, step)
        outputs = []
        for start in range(0, q.shape[1], size):
            block = slice(start, min(start + size, q.shape[1]))
            band = keys[:, max(0, past + start - w + 1) : past + block.stop]
            parts = [window_part(q[:, block], band, w)]
            if asked.closed(ratio, block.stop):
                parts.append(attend_block(q[:, block], block, visible[block]))
            outputs.append(softmax_with_sink(parts, self.sinks))
        mixed = torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]
        if step.training is None or step.training.distant is None:
            return mixed
        return self.look_back(q, keys, mixed, step, step.training.distant)

    def look_back(
        self, q: Tensor, keys: Tensor, mixed: Tensor, step: Step, distant: DistantPast
    ) -> Tensor:
        """In training: mixed [B, S, H, C], where the asked queries see distant entries too."""
        raise NotImplementedError

    def reach(
        self,
        x: Tensor,
        latent: Tensor,
        q: Tensor,
        step: Step,
        cache: H | None,
        visible: Tensor,
    ) -> fused.Mixed | None:
        """Compress the chunk; the queries over their entries, None if no query sees one."""
        raise NotImplementedError

    def prepare(
        self, x: Tensor, latent: Tensor, step: Step, cache: H | None
    ) -> Callable[[Tensor, slice, Tensor], Part]:
        """Compress the chunk; return how a block of queries [B, b, H, C] reaches its entries."""
        raise NotImplementedError

    def compress(self, x: Tensor, step: Step, cache: H | None) -> Rows:
        """All entries so far [B, n, C]."""
        tail = cache.tail.tail if cache else None
        entries, tail = self.compressor.compress(
            x, step.positions, tail, step.compressed_frequencies
        )
        entries = entries.to(self.key_type)
        if cache is None:
            return Rows((rounded(entries, self.cache_format.entry),))
        require_finite_entries(entries[0], len(cache.entries), self.compressor.ratio)
        cache.tail.tail = tail
        cache.entries.append(entries)
        return cache.entries

    def _block_size(self, num_entries: int, q: Tensor, step: Step) -> int:
        num_queries, heads = q.shape[1:3]
        if step.training is not None or torch.is_grad_enabled():
            return num_queries
        return max(16, min(num_queries, blocked.limit(q) // (max(num_entries, 1) * heads)))


class HeavilyCompressedAttention(CompressedAttention[HcaCache]):
    """HCA (section 2.3.2): every visible entry of m' tokens."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__(config)
        self.compressor = Compressor(
            config.hidden_size,
            config.head_dim,
            config.hca_ratio,
            overlap=False,
            eps=config.rms_norm_eps,
        )

    def new_cache(self) -> HcaCache:
        form = self.cache_format.entry
        return HcaCache(Window(format=form), entries=Rows(format=form))

    def reach(
        self,
        x: Tensor,
        latent: Tensor,
        q: Tensor,
        step: Step,
        cache: HcaCache | None,
        visible: Tensor,
    ) -> fused.Mixed | None:
        entries = self.compress(x, step, cache)
        count = step.closed(self.compressor.ratio, x.shape[1])
        if not count:
            return None
        return fused.attend_runs(q, entries.read(count), visible)

    def prepare(
        self, x: Tensor, latent: Tensor, step: Step, cache: HcaCache | None
    ) -> Callable[[Tensor, slice, Tensor], Part]:
        rows = self.compress(x, step, cache)
        if step.training is not None:
            (own,) = rows.segments
            none = own[..., :0]
            step.training.entries = Entries(own, none, none, none)
        asked = step.last(latent.shape[1])

        def attend_block(q: Tensor, block: slice, visible: Tensor) -> Part:
            entries = rows.read(asked.closed(self.compressor.ratio, block.stop))
            return shared_keys_part(q, entries, visible_mask(visible, entries.shape[1]))

        return attend_block

    def look_back(
        self, q: Tensor, keys: Tensor, mixed: Tensor, step: Step, distant: DistantPast
    ) -> Tensor:
        assert step.training is not None
        assert step.training.entries is not None
        entries = step.training.entries.entries
        return distant.heavily_compressed(self, q, keys, entries, mixed, step)


class CompressedSparseAttention(CompressedAttention[CsaCache]):
    """CSA (section 2.3.1): the k entries of m tokens that the lightning indexer ranks first."""

    GATHER_ABOVE = 8
    """Gather the selected rows once the entries exceed this many times k; below, masking the
    product with all of them is cheaper."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__(config)
        self.compressor = Compressor(
            config.hidden_size,
            config.head_dim,
            config.csa_ratio,
            overlap=True,
            eps=config.rms_norm_eps,
        )
        # Registered below the compressor for the published weight names.
        self.compressor.indexer = Indexer(config)

    @property
    def indexer(self) -> Indexer:
        indexer = self.compressor.indexer
        assert isinstance(indexer, Indexer)
        return indexer

    def new_cache(self) -> CsaCache:
        form = self.cache_format.entry
        index = Rows(format=self.cache_format.index)
        return CsaCache(Window(format=form), entries=Rows(format=form), index=index)

    def topk(self, cache: CsaCache | None) -> int:
        """Entries that a query selects."""
        chosen = None if cache is None else cache.topk
        return self.config.index_topk if chosen is None else chosen

    def prepare(
        self, x: Tensor, latent: Tensor, step: Step, cache: CsaCache | None
    ) -> Callable[[Tensor, slice, Tensor], Part]:
        rows = self.compress(x, step, cache)
        if step.training is not None:  # the indexer learns from its own loss alone
            x, latent = step.training.indexer_inputs(x, latent)
        index = self._compress_index(x, step, cache)
        index_q, index_w = self._index_queries(x, latent, step, cache)
        if step.training is not None:
            (own,), (own_keys,) = rows.segments, index.segments
            step.training.entries = Entries(own, own_keys, index_q, index_w)
        k = self.topk(cache)
        asked = step.last(latent.shape[1])

        def attend_block(q: Tensor, block: slice, visible: Tensor) -> Part:
            count = asked.closed(self.compressor.ratio, block.stop)
            if cache is not None and cache.watch is not None:
                self._record(index_q[:, block], index_w[:, block], index, count, cache.watch)
            if count <= k and step.training is None:
                return shared_keys_part(q, rows.read(count), visible_mask(visible, count))
            if step.training is not None:
                scores = self.indexer.score(index_q, index_w, index.read(count))
                return self._training_part(q, rows.segments[0], scores, visible, step.training)
            keys = index.read(count)
            scores = self.indexer.score(index_q[:, block], index_w[:, block], keys)
            chosen, real = select(scores, visible, k)
            if cache is not None and count > self.GATHER_ABOVE * k:
                return gathered_part(q, rows.take(chosen), real)
            return shared_keys_part(q, rows.read(count), selection_mask(chosen, real, count))

        return attend_block

    def reach(
        self,
        x: Tensor,
        latent: Tensor,
        q: Tensor,
        step: Step,
        cache: CsaCache | None,
        visible: Tensor,
    ) -> fused.Mixed | None:
        entries = self.compress(x, step, cache)
        count = step.closed(self.compressor.ratio, x.shape[1])
        index = self._compress_index(x, step, cache)
        if not count:
            return None
        index_q, index_w = self._index_queries(x, latent, step, cache)
        if cache is not None and cache.watch is not None:
            self._record(index_q, index_w, index, count, cache.watch)
        k = self.topk(cache)
        if count <= k:
            return fused.attend_prefixes(q, entries.read(count), visible, blocked.limit(q))
        from models.kernels.gathered import attend_rows
        from models.kernels.selection import best_entries

        chosen, _ = best_entries(index_q, index_w, index.scored(count), visible, k)
        counts = visible.clamp(max=chosen.shape[-1])
        rows, places = entries.gathered(chosen, count)
        return fused.Mixed(*attend_rows(q, rows, places, counts))

    def look_back(
        self, q: Tensor, keys: Tensor, mixed: Tensor, step: Step, distant: DistantPast
    ) -> Tensor:
        assert step.training is not None
        assert step.training.entries is not None
        return distant.sparse(self, q, keys, step.training.entries, mixed, step)

    def _record(self, q: Tensor, weights: Tensor, index: Rows, count: int, watch: Watch) -> None:
        own = watch.token // self.compressor.ratio
        scores = self.indexer.score(q, weights, index.read(count))
        watch.record(scores, own, own + 1)  # entries overlap

    def _index_queries(
        self, x: Tensor, latent: Tensor, step: Step, cache: CsaCache | None
    ) -> tuple[Tensor, Tensor]:
        """The indexer's queries and head weights, as they meet the keys that are held."""
        asking = latent.shape[1]
        rotation = step.last(asking).compressed
        queries, weights = self.indexer.queries(x[:, -asking:], latent, rotation)
        if cache is None:
            return self.cache_format.rounded_queries(queries), weights
        require_finite_index((queries, weights), step.last(asking).start)
        return self.cache_format.index_queries(queries), weights

    def _compress_index(self, x: Tensor, step: Step, cache: CsaCache | None) -> Rows:
        tail = cache.index_tail.tail if cache else None
        keys, tail = self.indexer.compress(x, step.positions, tail, step.compressed_frequencies)
        keys = keys.to(self.key_type)
        if cache is None:
            return Rows((rounded(keys, self.cache_format.index),))
        require_finite_entries(keys[0], len(cache.index), self.indexer.ratio)
        cache.index_tail.tail = tail
        cache.index.append(keys)
        return cache.index

    def _training_part(
        self, q: Tensor, entries: Tensor, scores: Tensor, visible: Tensor, training: IndexerTraining
    ) -> Part:
        n = entries.shape[1]
        mask = visible_mask(visible, n).expand(scores.shape)
        if training.sparse and n > self.config.index_topk:
            mask = selection_mask(*select(scores.detach(), visible, self.config.index_topk), n)
        part = shared_keys_part(q, entries, mask)
        training.losses.append(indexer_loss(part.logits, scores, mask, training.query_weights))
        return part


ATTENTION: dict[str, type[AttentionLayer[Any]]] = {
    SLIDING: SlidingAttention,
    CSA: CompressedSparseAttention,
    HCA: HeavilyCompressedAttention,
}
