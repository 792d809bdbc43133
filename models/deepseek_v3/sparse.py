"""DeepSeek sparse attention (DeepSeek-V3.2, arXiv 2512.02556, section 2.1): MLA over the tokens
that the lightning indexer ranks first.

Attention is absorbed, in prefill, too: each query reads rows of its own, and all heads share them.
There is no exact window: a query reads itself only if it is selected.

Shapes: as in `latent`; k selected tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models import kernels
from models.deepseek_v3.cache import IndexedCache
from models.deepseek_v3.indexer import TokenIndexer, scores_of_rows
from models.deepseek_v3.latent import LatentLayer
from models.deepseek_v4 import blocked
from models.deepseek_v4.attention import IndexerTraining, Step
from models.deepseek_v4.cache import Rows
from models.deepseek_v4.compressor import visible_mask
from models.deepseek_v4.config import DeepseekV4Config
from models.deepseek_v4.indexer import Indexer, indexer_loss, select
from models.deepseek_v4.parts import gathered_part, softmax_with_sink
from models.finite import require_finite_index
from models.number_formats import rounded

TRAINED_AT_ONCE = 1024  # queries whose selected rows are held in training


class Index(NamedTuple):
    """What the indexer makes of a chunk."""

    queries: Tensor  # [B, A, H', C'], of the chunk's last A tokens
    weights: Tensor  # [B, A, H']
    keys: Tensor  # [B, S, C']


class IndexedAttention(LatentLayer[IndexedCache]):
    """DSA: the `index_topk` tokens that the indexer ranks first."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__(config)
        self.indexer = TokenIndexer(config)

    def new_cache(self) -> IndexedCache:
        index = Rows(format=self.cache_format.index)
        return IndexedCache(Rows(format=self.cache_format.latent), index=index)

    def attend(
        self,
        x: Tensor,
        query_latent: Tensor,
        q: Tensor,
        rows: Tensor,
        step: Step,
        cache: IndexedCache | None,
    ) -> Tensor:
        training = step.training
        if training is not None:
            x, query_latent = training.indexer_inputs(x, query_latent)
        asking = q.shape[1]
        asked = step.last(asking)
        index = Index(
            *self.indexer.queries(x[:, -asking:], query_latent, asked.compressed),
            self.indexer.keys(x, step.compressed).to(rows.dtype),
        )
        visible = asked.indices + 1
        if cache is None:
            form = self.cache_format
            rows = rounded(rows, form.latent)
            queries = form.rounded_queries(index.queries)
            index = index._replace(queries=queries, keys=rounded(index.keys, form.index))
        if training is not None:
            return self._train(q, rows, index, visible, training)
        seen, table, keys = 0, Rows((rows,)), Rows((index.keys,))
        if cache is not None:
            require_finite_index((index.keys,), step.start)
            require_finite_index((index.queries, index.weights), asked.start)
            seen, table, keys = len(cache.rows), cache.rows, cache.index
            rows = table.append(rows)
            keys.append(index.keys)
            index = index._replace(queries=self.cache_format.index_queries(index.queries))
        count = asked.start + asking
        if cache is not None and cache.watch is not None:
            scores = Indexer.score(index.queries, index.weights, keys.read(count))
            cache.watch.record(scores, cache.watch.token, cache.watch.token)
        if count <= self.config.index_topk:
            past = blocked.seen_by_all(table.blocks(seen), rows, asking)
            return self.attend_to_all(q, tuple(past), rows[:, -asking:])
        return self.values(
            self._attend_to_selected(self.absorb(q), table, index, keys, visible, count)
        )

    def _attend_to_selected(
        self, q: Tensor, table: Rows, index: Index, keys: Rows, visible: Tensor, count: int
    ) -> Tensor:
        """Absorbed queries over the selected of `count` rows -> mixed rows [B, S, H, R + P]."""
        k = self.config.index_topk
        scored = keys.scored(count)
        if not kernels.usable(q, *(rows for rows in scored if rows.is_floating_point())):
            return self._by_blocks(q, table, index, keys.read(count), visible)
        from models.kernels.gathered import attend_rows
        from models.kernels.selection import best_entries

        chosen, _ = best_entries(index.queries, index.weights, scored, visible, k)
        counts = visible.clamp(max=chosen.shape[-1])
        rows, places = table.gathered(chosen, count)
        mixed, _ = attend_rows(q, rows, places, counts)
        return mixed.transpose(1, 2)

    def _by_blocks(
        self, q: Tensor, table: Rows, index: Index, keys: Tensor, visible: Tensor
    ) -> Tensor:
        """As `_attend_to_selected`, in plain torch: some queries at a time over keys [B, n, C']."""
        k = self.config.index_topk
        size = max(blocked.MIN_ROWS, blocked.limit(q) // max(keys.shape[1], k * q.shape[-1]))
        past = keys.shape[1] - q.shape[1]
        outputs = []
        for start in range(0, q.shape[1], size):
            block = slice(start, start + size)
            seen = visible[block]
            near = keys[:, : past + block.stop]
            scores = Indexer.score(index.queries[:, block], index.weights[:, block], near)
            chosen, real = select(scores, seen, k)
            part = gathered_part(q[:, block], take(table, chosen), real)
            outputs.append(softmax_with_sink([part], self.no_sinks()))
        return torch.cat(outputs, dim=1)

    def _train(
        self, q: Tensor, rows: Tensor, index: Index, visible: Tensor, training: IndexerTraining
    ) -> Tensor:
        """Values [B, S, H, E]; the indexer's loss is added to `training`.

        Sparse: over the selected tokens. Otherwise, in the dense warm-up, over all.
        """
        if training.sparse and rows.shape[1] > self.config.index_topk:
            return self._train_sparse(q, rows, index, visible, training)
        keys, values = self.expand(rows)
        scores = Indexer.score(*index)
        mask = visible_mask(visible, rows.shape[1]).expand(scores.shape)
        logits = torch.einsum("bshc,bnhc->bshn", q, keys)
        logits = logits.masked_fill(~mask.unsqueeze(2), -torch.inf)
        training.losses.append(indexer_loss(logits, scores, mask, training.query_weights))
        return torch.einsum("bshn,bnhe->bshe", logits.softmax(-1), values)

    def _train_sparse(
        self, q: Tensor, rows: Tensor, index: Index, visible: Tensor, training: IndexerTraining
    ) -> Tensor:
        chosen, real = self._choose(index, visible)
        absorbed = self.absorb(q)
        size = max(1, TRAINED_AT_ONCE // len(q))
        outputs, losses = [], []
        for start in range(0, q.shape[1], size):
            block = slice(start, start + size)
            of_queries = (absorbed, *index[:2], chosen, real, training.query_weights)
            mixed, loss = checkpoint(
                _selected, *(t[:, block] for t in of_queries), rows, index.keys, use_reentrant=False
            )
            outputs.append(mixed)
            losses.append(loss)
        training.losses.append(torch.stack(losses).sum())
        return self.values(torch.cat(outputs, dim=1))

    @torch.no_grad()
    def _choose(self, index: Index, visible: Tensor) -> tuple[Tensor, Tensor]:
        """The selected tokens of a whole sequence [B, S, k], and which are real."""
        k = self.config.index_topk
        if kernels.usable(index.queries, index.keys):
            from models.kernels.selection import best_entries

            return best_entries(index.queries, index.weights, (index.keys,), visible, k)
        size = max(blocked.MIN_ROWS, blocked.limit(index.keys) // index.keys.shape[1])
        blocks = zip(
            index.queries.split(size, 1),
            index.weights.split(size, 1),
            visible.split(size),
            strict=True,
        )
        picks = [select(Indexer.score(q, w, index.keys), seen, k) for q, w, seen in blocks]
        chosen, real = (torch.cat(parts, dim=1) for parts in zip(*picks, strict=True))
        return chosen, real


def _selected(
    q: Tensor,
    index_queries: Tensor,
    index_weights: Tensor,
    chosen: Tensor,
    real: Tensor,
    query_weights: Tensor,
    rows: Tensor,
    index_keys: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mixed rows [B, b, H, R + P] of a block of absorbed queries, and the indexer's loss."""
    picked = rows_at(rows, chosen)
    logits = (q @ picked.transpose(-1, -2)).masked_fill(~real.unsqueeze(2), -torch.inf)
    scores = scores_of_rows(index_queries, index_weights, rows_at(index_keys, chosen))
    loss = indexer_loss(logits, scores, real, query_weights)
    return logits.softmax(-1) @ picked, loss


def rows_at(rows: Tensor, chosen: Tensor) -> Tensor:
    """Rows [B, n, C] at chosen [B, S, k] -> [B, S, k, C]."""
    batch, count, width = rows.shape
    first = torch.arange(batch, device=rows.device).view(-1, 1, 1) * count
    return F.embedding(chosen + first, rows.reshape(batch * count, width))


def take(table: Rows, chosen: Tensor) -> Tensor:
    """As `rows_at`, of a table."""
    if table.format.is_plain and len(table.segments) == 1:
        return rows_at(table.segments[0], chosen)
    return table.take(chosen)
