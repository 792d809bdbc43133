"""What MLA and DSA keep: a row for every token, and for DSA the indexer's key of every token."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.deepseek_v4.cache import KIND, LayerCache, Rows, SelectingCache


@dataclass
class LatentCache(LayerCache):
    """Of MLA: rows [latent, rotary key], which all heads share."""

    rows: Rows = field(default_factory=Rows, metadata={KIND: "full"})


@dataclass
class IndexedCache(SelectingCache, LatentCache):
    """Of DSA."""
