"""Architectures by name: published models, models of this repository, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models.costs import deepseek_v4
from models.costs.architecture import Architecture, Rows, Shape
from models.costs.config_fields import Fields
from models.costs.config_files import indexed_latent, latent, read_architecture
from models.deepseek_v4.config import V4_FLASH, V4_PRO
from models.errors import ModelError, UnknownModelError
from models.registry import available_models, configuration

DEEPSEEK_V3 = {
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
}
V3_2_INDEXER = {"index_n_heads": 64, "index_head_dim": 128, "index_topk": 2048}


def _v4_1_flash() -> Architecture:
    """DeepSeek-V4.1-Flash (arXiv 2609.19969): its layers read tables of four layers, three with a
    row for two tokens, one with a row for each."""
    entry, index = Shape("latent", 448, 64), Shape("index", 128)
    rows = tuple(
        Rows(kind, part, layers, shape, flops=0, per=per)
        for kind, part, shape in (("csa", "csa", entry), ("index", "indexer", index))
        for layers, per in ((3, 2), (1, 1))
    )
    return Architecture(
        rows,
        layout="v4.1",
        max_position=1048576,
        reads_known=False,
        notes=(
            "its windows and pending tokens are not counted: their formats are not published",
            "its FLOPs are not computed: which weights a token uses is not published in full",
        ),
    )


def _gqa8() -> Architecture:
    """The comparison of DeepSeek's reports: V3's 61 layers with 8 key-value heads of 128."""
    shape = Shape("key_value", 256, heads=8)
    return Architecture(
        (Rows("full", "full", 61, shape, flops=0),),
        notes=(
            "61 layers of 8 key-value heads of 128 in bf16; it stands for no model with weights",
        ),
    )


PRESETS = {
    "v3.2": replace(
        indexed_latent(Fields(DEEPSEEK_V3 | V3_2_INDEXER, "v3.2")), has_precisions=True
    ),
    "v4-pro": deepseek_v4.published(V4_PRO),
    "v4-flash": deepseek_v4.published(V4_FLASH),
    "v4.1-flash": _v4_1_flash(),
    "gqa8": _gqa8(),
    "v3": replace(latent(Fields(DEEPSEEK_V3, "v3")), has_precisions=True),
}
SHOWN = ("v3.2", "v4-pro", "v4-flash", "v4.1-flash", "gqa8")
"""What is shown where no model is named; the first is the measure of the others."""


def find_architecture(name: str) -> Architecture:
    """The architecture of a preset, of a model of this repository, or of a `config.json`.

    Args:
        name: a preset in any case, a name of the registry (as its sessions keep their cache, in
            fp32), a `config.json` or a folder with one, also as `path:FOLDER` and `hf:FOLDER`.

    Raises:
        UnknownModelError: no such name.
        ModelError: a file that cannot be read or describes no known architecture.
    """
    if name.lower() in PRESETS:
        return PRESETS[name.lower()]
    scheme, _, place = name.partition(":")
    path = Path(place if scheme in ("path", "hf") and place else name)
    if path.is_dir():
        return read_architecture(path / "config.json")
    if scheme == "hf":
        raise ModelError(f"model: {name!r} is no folder here; give the path of its config.json")
    if path.suffix == ".json" or scheme == "path":
        return read_architecture(path if path.suffix == ".json" else path / "config.json")
    named = [known for known in available_models() if ":" not in known]
    if name not in named:
        raise UnknownModelError(
            f"model: got {name!r}, expected one of {', '.join([*PRESETS, *named])}, "
            "or the path of a config.json"
        )
    return deepseek_v4.session(configuration(name))
