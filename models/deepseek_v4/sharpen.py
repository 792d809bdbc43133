"""A constant temperature of the global layers, folded into weights."""

from __future__ import annotations

import torch

from models.deepseek_v4.attention import CompressedAttention
from models.deepseek_v4.model import DeepseekV4


@torch.no_grad()
def sharpen(model: DeepseekV4, factor: float) -> None:
    """Multiply the global layers' logits by `factor` and leave what they write as it was.

    K = V, so keys and entries are scaled by their norms and the output path is scaled back.
    """
    for layer in model.model.layers:
        attention = layer.self_attn
        if isinstance(attention, CompressedAttention):
            attention.kv_norm.weight.mul_(factor)
            attention.compressor.kv_norm.weight.mul_(factor)
            attention.o_a_proj.weight.div_(factor)
