"""Writes a model as a folder in transformers' layout or in the official one.

Matrices are of the precision asked for; norms, sinks, biases, hyper-connections and position biases
are float32, as engines keep them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from shutil import copymode
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.deepseek_v4.config import ConfigError
from models.deepseek_v4.layouts.configs import official_config, transformers_config
from models.deepseek_v4.layouts.headers import SINGLE
from models.deepseek_v4.layouts.names import official, rows_of
from models.deepseek_v4.layouts.quantized import ROW, to_fp4, to_fp8
from models.deepseek_v4.model import DeepseekV4
from models.errors import ModelError
from models.files import replacing

PRECISIONS: dict[str, tuple[str, ...]] = {
    "transformers": ("float32", "bfloat16"),
    "official": ("bfloat16", "float32", "fp8", "fp4"),
    "gguf": ("float32",),
}
"""What matrices may be written in; the first is the usual one."""
KEPT = ("_hc.", "hc_head.", "position_bias", "tid2eid")
"""Parts of names of tensors with two dimensions or more that are no matrices of a projection."""
QUANTIZED = (
    *("attn.wq_a.", "attn.wq_b.", "attn.wkv.", "attn.wo_a.", "attn.wo_b."),
    *("attn.indexer.wq_b.", "ffn.shared_experts.", "ffn.experts."),
)
"""Parts of official names of matrices that are FP8 where the checkpoint is quantised."""


def write_transformers(
    model: DeepseekV4, folder: Path, precision: str = "float32", eos_ids: Collection[int] = ()
) -> None:
    """Write `config.json` and `model.safetensors` as `from_pretrained` reads them.

    Raises:
        ModelError: the model is no stock DeepSeek-V4, or a precision that this layout has not.
    """
    check_precision("transformers", precision)
    try:
        config = transformers_config(model.config, precision, eos_ids)
    except ConfigError as error:
        raise ModelError(str(error)) from None
    tensors = {name: _cast(name, t, precision) for name, t in model.state_dict().items()}
    _write(folder, config, tensors)


def write_official(
    model: DeepseekV4, folder: Path, precision: str = "bfloat16", eos_ids: Collection[int] = ()
) -> None:
    """Write `config.json` and `model.safetensors` under the official names.

    "fp8": matrices in blocks with scales, but those of embedding, head, routers and compressors;
    "fp4": experts in packed FP4 besides.

    Raises:
        ModelError: as `write_transformers`; or experts whose rows are no multiple of 32 for FP4.
    """
    check_precision("official", precision)
    experts = {"fp8": "fp8", "fp4": "fp4"}.get(precision, "bf16")
    dtype = "float32" if precision == "float32" else "bfloat16"
    try:
        config = official_config(model.config, dtype, experts, eos_ids)
    except ConfigError as error:
        raise ModelError(str(error)) from None
    if precision == "fp4":
        for field in ("hidden_size", "moe_intermediate_size"):
            if getattr(model.config, field) % ROW:
                value = getattr(model.config, field)
                raise ModelError(f"{field}: got {value}, expected a multiple of {ROW} for FP4")
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        for stored, place in official(name, model.config.n_routed_experts):
            part = rows_of(tensor, place)
            if experts != "bf16" and any(piece in stored for piece in QUANTIZED):
                tensors |= _quantized(stored, part, experts)
            else:
                tensors[stored] = _cast(name, part, dtype)
    _write(folder, config, tensors)


def _quantized(stored: str, part: Tensor, experts: str) -> Mapping[str, Tensor]:
    pack = to_fp4 if experts == "fp4" and "ffn.experts." in stored else to_fp8
    packed, scales = pack(part)
    return {stored: packed, f"{stored.removesuffix('.weight')}.scale": scales}


def _cast(name: str, tensor: Tensor, precision: str) -> Tensor:
    if precision == "float32" or tensor.ndim < 2 or any(part in name for part in KEPT):
        return tensor
    return tensor.to(getattr(torch, precision))


def check_precision(layout: str, precision: str) -> None:
    """Raises: ModelError for a precision that a layout has not."""
    if precision not in PRECISIONS[layout]:
        known = ", ".join(PRECISIONS[layout])
        raise ModelError(f"precision: got {precision!r}, expected one of {known} for {layout}")


def _write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    owned = {name: t.contiguous().clone() for name, t in tensors.items()}
    with replacing(folder / "config.json") as partial:
        partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    with replacing(folder / SINGLE) as partial:
        save_file(owned, partial, metadata={"format": "pt"})
        copymode(folder / "config.json", partial)  # safetensors lets nobody else read it
