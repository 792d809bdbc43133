"""Names of tensors: ours, which are those of transformers' state dict, and the official ones.

An official checkpoint keeps each expert's three matrices apart; here a layer's experts are two
stacked tensors, the gate's rows before the up projection's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

OFFICIAL = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    **{f"attn_hc.{part}": f"hc_attn_{part}" for part in ("fn", "base", "scale")},
    **{f"ffn_hc.{part}": f"hc_ffn_{part}" for part in ("fn", "base", "scale")},
    "self_attn.q_a_proj.weight": "attn.wq_a.weight",
    "self_attn.q_a_norm.weight": "attn.q_norm.weight",
    "self_attn.q_b_proj.weight": "attn.wq_b.weight",
    "self_attn.kv_proj.weight": "attn.wkv.weight",
    "self_attn.kv_norm.weight": "attn.kv_norm.weight",
    "self_attn.o_a_proj.weight": "attn.wo_a.weight",
    "self_attn.o_b_proj.weight": "attn.wo_b.weight",
    "self_attn.sinks": "attn.attn_sink",
    "self_attn.compressor.kv_proj.weight": "attn.compressor.wkv.weight",
    "self_attn.compressor.gate_proj.weight": "attn.compressor.wgate.weight",
    "self_attn.compressor.kv_norm.weight": "attn.compressor.norm.weight",
    "self_attn.compressor.position_bias": "attn.compressor.ape",
    "self_attn.compressor.indexer.kv_proj.weight": "attn.indexer.compressor.wkv.weight",
    "self_attn.compressor.indexer.gate_proj.weight": "attn.indexer.compressor.wgate.weight",
    "self_attn.compressor.indexer.kv_norm.weight": "attn.indexer.compressor.norm.weight",
    "self_attn.compressor.indexer.position_bias": "attn.indexer.compressor.ape",
    "self_attn.compressor.indexer.q_b_proj.weight": "attn.indexer.wq_b.weight",
    "self_attn.compressor.indexer.scorer.weights_proj.weight": "attn.indexer.weights_proj.weight",
    "mlp.gate.weight": "ffn.gate.weight",
    "mlp.gate.e_score_correction_bias": "ffn.gate.bias",
    "mlp.gate.tid2eid": "ffn.gate.tid2eid",
    "mlp.shared_experts.gate_proj.weight": "ffn.shared_experts.w1.weight",
    "mlp.shared_experts.up_proj.weight": "ffn.shared_experts.w3.weight",
    "mlp.shared_experts.down_proj.weight": "ffn.shared_experts.w2.weight",
}
"""Within a layer."""
OFFICIAL_TOP = {
    "model.embed_tokens.weight": "embed.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "head.weight",
    **{f"model.hc_head.hc_{part}": f"hc_head_{part}" for part in ("fn", "base", "scale")},
}
GATE_MATRIX, DOWN_MATRIX, UP_MATRIX = 1, 2, 3
GATE_UP, DOWN = "mlp.experts.gate_up_proj", "mlp.experts.down_proj"

_OURS = {official: ours for ours, official in OFFICIAL.items()}
# transformers' save_pretrained writes these beside official names unless told otherwise.
_OURS["attn.norm.weight"] = "self_attn.kv_norm.weight"
_OURS_TOP = {official: ours for ours, official in OFFICIAL_TOP.items()} | {
    "embed_tokens.weight": "model.embed_tokens.weight",
    **{f"hc_head.hc_{part}": f"model.hc_head.hc_{part}" for part in ("fn", "base", "scale")},
}
_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_EXPERT = re.compile(r"ffn\.experts\.(\d+)\.w([123])\.weight")


class Place(NamedTuple):
    """Where a stored tensor goes: a tensor of ours, or the rows of one expert in it."""

    name: str
    expert: int | None = None
    matrix: int = 0  # of an expert: one of the three numbers above


def ours(stored: str) -> Place | None:
    """The place of a stored tensor, whatever the layout; None for a name of neither."""
    if stored in OFFICIAL_TOP:
        return Place(stored)
    plain = stored.removeprefix("model.")
    if plain in _OURS_TOP:
        return Place(_OURS_TOP[plain])
    found = _LAYER.fullmatch(plain)
    if found is None:
        return None
    layer, rest = f"model.layers.{found[1]}", found[2]
    if rest in OFFICIAL or rest in (GATE_UP, DOWN):
        return Place(f"{layer}.{rest}")
    if rest in _OURS:
        return Place(f"{layer}.{_OURS[rest]}")
    expert = _EXPERT.fullmatch(rest)
    if expert is None:
        return None
    matrix = int(expert[2])
    return Place(f"{layer}.{DOWN if matrix == DOWN_MATRIX else GATE_UP}", int(expert[1]), matrix)


def official(name: str, experts: int) -> Iterator[tuple[str, Place]]:
    """The official names of a tensor of ours, each with the place that it has here."""
    if name in OFFICIAL_TOP:
        yield OFFICIAL_TOP[name], Place(name)
        return
    found = _LAYER.fullmatch(name.removeprefix("model."))
    assert found is not None, name
    layer, rest = f"layers.{found[1]}", found[2]
    if rest in OFFICIAL:
        yield f"{layer}.{OFFICIAL[rest]}", Place(name)
        return
    for expert in range(experts):
        for matrix in (DOWN_MATRIX,) if rest == DOWN else (GATE_MATRIX, UP_MATRIX):
            yield f"{layer}.ffn.experts.{expert}.w{matrix}.weight", Place(name, expert, matrix)


def rows_of(tensor: Tensor, place: Place) -> Tensor:
    """The view of a tensor of ours that belongs at a place of it."""
    if place.expert is None:
        return tensor
    matrix = tensor[place.expert]
    if place.matrix == DOWN_MATRIX:
        return matrix
    half = len(matrix) // 2
    return matrix[:half] if place.matrix == GATE_MATRIX else matrix[half:]
