"""DeepSeek-V4's trunk whose global layers are MLA or DSA."""

from __future__ import annotations

from models.deepseek_v3.latent import LatentAttention
from models.deepseek_v3.sparse import IndexedAttention
from models.deepseek_v4.attention import SlidingAttention
from models.deepseek_v4.config import DSA, MLA, SLIDING, DeepseekV4Config
from models.deepseek_v4.model import DeepseekV4


class LatentTwin(DeepseekV4):
    """The trunk with sliding layers, MLA layers and DSA layers."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__(
            config,
            attention={SLIDING: SlidingAttention, MLA: LatentAttention, DSA: IndexedAttention},
        )
