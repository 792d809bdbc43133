"""How many positions a model of transformers allows, and rotary tables that stay as they are.

Dynamic NTK and LongRoPE choose their frequencies by the longest position of a call, so that keys
that were read in early calls and keys of late ones would not fit each other, and answers would
depend on how a prompt is split. Here the frequencies are chosen once, for the longest prompt that
is allowed, as vLLM does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from models.errors import ModelError
from models.options import whole_number

ORIGINAL = "original_max_position_embeddings"
FIXED = "fixed"  # no rope_type of transformers: its forward pass leaves the frequencies alone


def claimed_positions(config: Any) -> int | None:
    """Tokens that the configuration allows, with its own scaling; None where there is no limit.

    YaRN and Llama 3's scaling name the unscaled length and a factor, dynamic NTK a factor of
    `max_position_embeddings`. With linear scaling, published configurations name the scaled length.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    scaled = [limit]
    for rope in _ropes(config):
        kind, factor = rope.get("rope_type"), rope.get("factor") or 1.0
        if kind == "dynamic":
            scaled.append(int(limit * factor))
        elif kind == "yarn":
            scaled.append(int(rope.get(ORIGINAL, limit) * factor))
        elif kind == "longrope" and "long_mscale" in rope:
            # Phi-3.5-MoE computes its frequencies anew in each call: short prompts only.
            return min(limit, int(rope[ORIGINAL]))
    return max(scaled)


def allowed_positions(config: Any, option: object) -> int | None:
    """Tokens that a session may read: the option `max_position_embeddings`, or what is claimed.

    Raises:
        ModelError: the option is no number of tokens that the model's own scaling reaches.
    """
    claimed = claimed_positions(config)
    if option is None:
        return claimed
    reach = claimed
    for rope in _ropes(config):
        if claimed is not None and rope.get("rope_type") == "linear":
            reach = int(claimed * (rope.get("factor") or 1.0))
    wanted = whole_number("max_position_embeddings", option)
    if reach is not None and wanted > reach:
        raise ModelError(
            f"options.max_position_embeddings: got {wanted}, expected at most {reach}: "
            "the model's own scaling reaches no further"
        )
    return wanted


def fix_rotary(network: Any, limit: int | None) -> None:
    """Choose the frequencies of dynamic NTK and LongRoPE for prompts of up to `limit` tokens."""
    if limit is None:
        return
    for module in network.modules():
        kinds = getattr(module, "rope_type", None)
        if isinstance(kinds, str) and _moves(kinds):
            _set_frequencies(module, kinds, limit, None)
            module.rope_type = FIXED
        elif isinstance(kinds, dict):
            for layer_type, kind in kinds.items():
                if _moves(kind):
                    _set_frequencies(module, kind, limit, layer_type)
            module.rope_type = {k: FIXED if _moves(v) else v for k, v in kinds.items()}


def _moves(kind: str) -> bool:
    return "dynamic" in kind or kind == "longrope"


def _set_frequencies(module: Any, kind: str, limit: int, layer_type: str | None) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    name = "inv_freq" if layer_type is None else f"{layer_type}_inv_freq"
    table = getattr(module, name)
    frequencies, _ = ROPE_INIT_FUNCTIONS[kind](
        module.config, table.device, seq_len=limit, layer_type=layer_type
    )
    with torch.no_grad():
        table.copy_(frequencies)


def _ropes(config: Any) -> Iterator[Mapping[str, Any]]:
    """Each kind of rotary parameters: one, or one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    yield from nested or [parameters]
