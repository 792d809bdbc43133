"""The trunk that both twins share, and the session that drives it.

Shapes: B batch, S tokens, K residual streams, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from models.deepseek_v4.attention import ATTENTION, Attention, IndexerTraining, Step
from models.deepseek_v4.cache import LayerCache, total_bytes
from models.deepseek_v4.config import CSA, DeepseekV4Config
from models.deepseek_v4.mhc import HyperConnection, HyperHead
from models.deepseek_v4.moe import MoE
from models.deepseek_v4.session_files import State, layer_caches, layer_tensors
from models.deepseek_v4.trace import Watch
from models.layers import RMSNorm, Rotation, rope_frequencies, yarn_frequencies
from models.protocols import CacheBytes, TokenIds, Trace


class DecoderLayer(nn.Module):
    """Attention, then experts; each reads from and writes to the streams through mHC."""

    def __init__(self, config: DeepseekV4Config, layer: int, attention: Attention) -> None:
        super().__init__()
        self.self_attn = attention
        self.mlp = MoE(config, layer)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn_hc = HyperConnection(config)
        self.ffn_hc = HyperConnection(config)

    def forward(self, streams: Tensor, ids: Tensor, step: Step, cache: LayerCache | None) -> Tensor:
        """streams [B, S, K, D] -> [B, S, K, D]."""
        x, post, mix = self.attn_hc(streams)
        attended = self.self_attn(self.input_layernorm(x), step, cache)
        streams = self.attn_hc.spread(attended, streams, post, mix)
        x, post, mix = self.ffn_hc(streams)
        expert_output = self.mlp(self.post_attention_layernorm(x), ids)
        return self.ffn_hc.spread(expert_output, streams, post, mix)


class Trunk(nn.Module):
    """Embedding, layers, last collapse and norm: the published `model.` weights."""

    def __init__(
        self, config: DeepseekV4Config, attention: Mapping[str, type[Attention]] = ATTENTION
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, i, attention[kind](config))
            for i, kind in enumerate(config.layer_types)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hc_head = HyperHead(config)


class DeepseekV4(nn.Module):
    """The whole language model. MTP, which only drafts, is not part of it.

    `attention` maps layer types to classes: the uncompressed twin brings its own.
    """

    def __init__(
        self, config: DeepseekV4Config, attention: Mapping[str, type[Attention]] = ATTENTION
    ) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config, attention)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        rope_dim = config.qk_rope_head_dim
        self._local = rope_frequencies(rope_dim, config.rope_theta)
        self._compressed = yarn_frequencies(
            rope_dim,
            config.compress_rope_theta,
            config.yarn_factor,
            config.yarn_original_positions,
            config.yarn_beta_fast,
            config.yarn_beta_slow,
        )

    def forward(self, ids: Tensor) -> Tensor:
        """ids [B, S] -> logits [B, S, V], without a cache."""
        logits: Tensor = self.lm_head(self.hidden(ids))
        return logits

    def hidden(
        self,
        ids: Tensor,
        *,
        start: int = 0,
        caches: list[LayerCache] | None = None,
        positions: Tensor | None = None,
        training: IndexerTraining | None = None,
    ) -> Tensor:
        """Final normed states [B, S, D].

        Args:
            ids: [B, S] tokens; with caches, B is 1.
            start: tokens that the caches have seen.
            caches: one a layer, extended in place.
            positions: [S] rotary positions, where they should differ from the token count.
            training: collects the indexer's losses.
        """
        indices = torch.arange(start, start + ids.shape[1])
        step = self._step(indices, indices if positions is None else positions, training)
        streams = self.model.embed_tokens(ids).unsqueeze(2)
        streams = streams.expand(-1, -1, self.config.hc_mult, -1)
        for i, layer in enumerate(self.model.layers):
            streams = layer(streams, ids, step, caches[i] if caches else None)
        out: Tensor = self.model.norm(self.model.hc_head(streams))
        return out

    def _step(self, indices: Tensor, positions: Tensor, training: IndexerTraining | None) -> Step:
        return Step(
            indices,
            positions,
            Rotation(positions, self._local),
            Rotation(positions, self._compressed),
            self._compressed,
            training,
        )


class DeepseekV4Session:
    """One timeline of tokens with the caches of all layers. Implements `Session`."""

    def __init__(self, model: DeepseekV4, chunk_size: int = 1024) -> None:
        self._model = model
        self._chunk_size = chunk_size
        self._caches = [LayerCache() for _ in model.config.layer_types]
        self._position = 0
        self._last: Tensor | None = None  # final state of the newest token, [1, 1, D]

    @property
    def position(self) -> int:
        return self._position

    def extend(self, ids: TokenIds) -> None:
        tokens = self._checked(ids)
        for chunk in tokens.split(self._chunk_size) if len(tokens) else ():
            self._last = self._advance(chunk)[:, -1:].clone()

    def fork(self) -> DeepseekV4Session:
        child = DeepseekV4Session(self._model, self._chunk_size)
        child._caches = [cache.fork() for cache in self._caches]
        child._position = self._position
        child._last = self._last
        return child

    def generate(self, max_new_tokens: int, stop_ids: Collection[int] = ()) -> list[int]:
        generated: list[int] = []
        while len(generated) < max_new_tokens:
            token = int(self.next_logits().argmax())
            if token in stop_ids:
                break
            generated.append(token)
            self.extend([token])
        return generated

    @torch.no_grad()
    def next_logits(self) -> Tensor:
        """Logits [V] of the token after the last one."""
        if self._last is None:
            raise ValueError("generate: the session is empty, extend it with at least one token")
        logits: Tensor = self._model.lm_head(self._last)
        return logits.flatten()

    def score(self, ids: TokenIds) -> Tensor:
        """Extend, and return the logits [S, V] after each token: for tests and diagnosis."""
        chunks = self._checked(ids).split(self._chunk_size)
        with torch.no_grad():
            states = torch.cat([self._advance(chunk) for chunk in chunks], dim=1)
            self._last = states[:, -1:].clone()
            logits: Tensor = self._model.lm_head(states)
        return logits[0]

    def extend_traced(self, token_id: int, wanted: int) -> Trace:
        """Extend by one token, and say how each CSA layer ranked the entries with token `wanted`.

        A layer that has closed no entry with it yet is left out.
        """
        config = self._model.config
        selecting = [i for i, kind in enumerate(config.layer_types) if kind == CSA]
        watches = [Watch(i, wanted, config.index_topk) for i in selecting]
        for watch in watches:
            self._caches[watch.layer].watch = watch
        self.extend([token_id])
        for watch in watches:
            self._caches[watch.layer].watch = None
        seen = tuple(watch.seen for watch in watches if watch.seen)
        return Trace(self.position - wanted <= config.sliding_window, seen)

    def state(self, notes: Mapping[str, str]) -> State:
        """What `checkpoint.save` writes; shares the session's memory."""
        last = {} if self._last is None else {"last": self._last}
        return State(self._position, layer_tensors(self._caches) | last, dict(notes))

    @classmethod
    def restored(cls, model: DeepseekV4, state: State) -> DeepseekV4Session:
        """The session that `state` was taken of."""
        session = cls(model)
        session._caches = layer_caches(state.tensors, len(session._caches))
        session._position = state.position
        session._last = state.tensors.get("last")
        return session

    def cache_bytes(self) -> CacheBytes:
        return total_bytes(self._caches)

    @torch.no_grad()
    def _advance(self, chunk: Tensor) -> Tensor:
        states = self._model.hidden(chunk[None], start=self._position, caches=self._caches)
        self._position += len(chunk)
        return states

    def _checked(self, ids: TokenIds) -> Tensor:
        tokens = torch.from_numpy(np.array(ids, dtype=np.int64))  # a copy: it may be read-only
        vocab, limit = self._model.config.vocab_size, self._model.config.max_position_embeddings
        if len(tokens) and (int(tokens.min()) < 0 or int(tokens.max()) >= vocab):
            raise ValueError(f"ids: token ids must lie in 0..{vocab - 1}")
        if self._position + len(tokens) > limit:
            raise ValueError(
                f"ids: {self._position} + {len(tokens)} tokens exceed max_position {limit}"
            )
        return tokens
