"""The trunk that both twins share.

Shapes: B batch, S tokens, A of them that ask, K residual streams, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.deepseek_v4.attention import ATTENTION, AttentionLayer, IndexerTraining, Step
from models.deepseek_v4.cache import EngramCache, LayerCache
from models.deepseek_v4.config import DeepseekV4Config
from models.deepseek_v4.engram import Engram
from models.deepseek_v4.mhc import HyperConnection, HyperHead
from models.deepseek_v4.moe import MoE
from models.finite import require_finite
from models.layers import (
    Float32Linear,
    KeepsFloat32,
    RMSNorm,
    Rotation,
    rope_frequencies,
    yarn_frequencies,
)
from models.number_formats import CacheFormat


class DecoderLayer(nn.Module):
    """Attention, then experts; each reads from and writes to the streams through mHC."""

    def __init__(
        self, config: DeepseekV4Config, layer: int, attention: AttentionLayer[Any]
    ) -> None:
        super().__init__()
        self.engram = Engram(config, layer) if _has_engram(config, layer) else None
        self.self_attn = attention
        self.mlp = MoE(config, layer)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attn_hc = HyperConnection(config)
        self.ffn_hc = HyperConnection(config)

    def forward(
        self,
        streams: Tensor,
        ids: Tensor,
        step: Step,
        cache: LayerCache | None,
        memory: EngramCache | None,
        asking: int,
    ) -> Tensor:
        """streams [B, S, K, D] -> [B, A, K, D], those of the last `asking` tokens."""
        if self.engram is not None:
            streams = streams + self.engram(streams, ids, memory)
        x, post, mix = self.attn_hc(streams)
        attended = self.self_attn(self.input_layernorm(x), step, cache, asking)
        streams, post, mix, ids = (part[:, -asking:] for part in (streams, post, mix, ids))
        streams = self.attn_hc.spread(attended, streams, post, mix)
        x, post, mix = self.ffn_hc(streams)
        expert_output = self.mlp(self.post_attention_layernorm(x), ids)
        return self.ffn_hc.spread(expert_output, streams, post, mix)


def _has_engram(config: DeepseekV4Config, layer: int) -> bool:
    return config.engram is not None and layer in config.engram.layers


class Trunk(nn.Module):
    """Embedding, layers, last collapse and norm: the published `model.` weights."""

    def __init__(
        self,
        config: DeepseekV4Config,
        attention: Mapping[str, type[AttentionLayer[Any]]] = ATTENTION,
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, i, attention[kind](config))
            for i, kind in enumerate(config.layer_types)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hc_head = HyperHead(config)


class DeepseekV4(KeepsFloat32):
    """The whole language model. MTP, which only drafts, is not part of it.

    `attention` maps layer types to classes: the uncompressed twin brings its own. After
    `.to(torch.bfloat16)` or `.to(torch.float16)` the embedding, the projections of attention and
    the experts are of that type; the residual streams, norms, sinks, compressors, routers,
    hyper-connections, rotary tables and logits stay float32.
    """

    local_frequencies: Tensor  # [P] rotary, of sliding layers
    compressed_frequencies: Tensor  # [P] rotary, of all others

    def __init__(
        self,
        config: DeepseekV4Config,
        attention: Mapping[str, type[AttentionLayer[Any]]] = ATTENTION,
    ) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config, attention)
        self.lm_head = Float32Linear(config.hidden_size, config.vocab_size)
        rope_dim = config.qk_rope_head_dim
        local = rope_frequencies(rope_dim, config.rope_theta)
        compressed = yarn_frequencies(
            rope_dim,
            config.compress_rope_theta,
            config.yarn_factor,
            config.yarn_original_positions,
            config.yarn_beta_fast,
            config.yarn_beta_slow,
        )
        self.register_buffer("local_frequencies", local, persistent=False)
        self.register_buffer("compressed_frequencies", compressed, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are; token ids have to be there too."""
        return self.lm_head.weight.device

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
        newest: int | None = None,
    ) -> Tensor:
        """Final normed states [B, S, D], or of the newest tokens alone.

        Args:
            ids: [B, S] tokens; with caches, B is 1.
            start: tokens that the caches have seen.
            caches: as `new_caches` gives them, extended in place.
            positions: [S] rotary positions, where they should differ from the token count.
            training: collects the indexer's losses.
            newest: how many states are wanted at most: the last layer asks for no others. What
                the caches hold does not depend on it.

        Raises:
            NonFiniteError: a state that is left out is NaN or infinite before the last layer.
        """
        indices = torch.arange(start, start + ids.shape[1], device=ids.device)
        step = self._step(indices, indices if positions is None else positions, training, start)
        streams = self.model.embed_tokens(ids).to(self.model.norm.weight.dtype).unsqueeze(2)
        streams = streams.expand(-1, -1, self.config.hc_mult, -1).contiguous()
        modules = self.config.engram.layers if self.config.engram else ()
        memories = dict(zip(modules, (caches or [])[len(self.model.layers) :], strict=False))
        tokens, last = ids.shape[1], len(self.model.layers) - 1
        wanted = tokens if newest is None else min(newest, tokens)
        for i, layer in enumerate(self.model.layers):
            cache = caches[i] if caches else None
            if i == last and wanted < tokens:
                require_finite(streams[0].flatten(1), start)
            asking = wanted if i == last else tokens
            streams = layer(streams, ids, step, cache, memories.get(i), asking)
        out: Tensor = self.model.norm(self.model.hc_head(streams))
        return out

    def new_caches(self) -> list[LayerCache]:
        """An empty cache per layer, then one per memory of n-grams, as `hidden` takes them."""
        modules = self.config.engram.layers if self.config.engram else ()
        memories = (EngramCache() for _ in modules)
        return [*(attention.new_cache() for attention in self._attentions()), *memories]

    def store_in(self, cache_format: CacheFormat) -> None:
        """Have caches made from now on store their rows in a format."""
        for attention in self._attentions():
            attention.cache_format = cache_format

    def _attentions(self) -> list[AttentionLayer[Any]]:
        layers = (layer for layer in self.model.layers if isinstance(layer, DecoderLayer))
        return [layer.self_attn for layer in layers]

    def _step(
        self, indices: Tensor, positions: Tensor, training: IndexerTraining | None, start: int = 0
    ) -> Step:
        return Step(
            indices,
            positions,
            Rotation(positions, self.local_frequencies),
            Rotation(positions, self.compressed_frequencies),
            self.compressed_frequencies,
            training,
            start,
        )
