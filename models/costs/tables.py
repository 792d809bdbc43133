"""Cache bytes by formula, and tables of them with FLOPs: published models and own configurations.

Builds no model. What a session really holds is read off its tensors (`Session.cache_bytes`);
a test compares the two.

The published models' bytes follow their published cache layouts. Their FLOP weighting (which
precision counts how much) is RECONSTRUCTED from the ratios that DeepSeek printed, and is not
documented by DeepSeek: show `FLOPS_CAVEAT` beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from models.costs.flops import PUBLISHED, Flops, prefill_flops, token_flops
from models.deepseek_v4.config import CSA, FULL, HCA, V4_FLASH, V4_PRO, DeepseekV4Config
from models.protocols import CacheBytes

FLOPS_CAVEAT = (
    "FP8-equivalent FLOPs; their weighting by precision is reconstructed from published ratios, "
    "not documented by DeepSeek."
)
ENTRY_BYTES = 584  # 448 e4m3 + 7 ue8m0 scales + 1 pad + 64 bf16 rotary channels
INDEX_BYTES = 68  # 128 fp4 + 4 ue8m0 scales
LENGTHS = (4096, 32768, 131072, 262144, 524288, 10**6, 2**20)


def held_bytes(config: DeepseekV4Config, length: int, element_bytes: int = 4) -> CacheBytes:
    """What a session of this repository holds after `length` tokens, unquantised."""
    csa, hca = config.layer_types.count(CSA), config.layer_types.count(HCA)
    full = config.layer_types.count(FULL)
    windows = (config.num_hidden_layers - full) * min(length, config.sliding_window - 1)
    entries = csa * (length // config.csa_ratio) + hca * (length // config.hca_ratio)
    # Pending tokens keep a value and a gate of both halves; the overlap one half of m tokens.
    overlapping = csa * (4 * (length % config.csa_ratio) + 2 * config.csa_ratio)
    plain = hca * 2 * (length % config.hca_ratio)
    tails = overlapping * (config.head_dim + config.index_head_dim) + plain * config.head_dim
    return CacheBytes(
        window=element_bytes * windows * config.head_dim,
        compressed=element_bytes * entries * config.head_dim,
        index=element_bytes * csa * (length // config.csa_ratio) * config.index_head_dim,
        tail=element_bytes * tails if length else 0,
        full=element_bytes * full * length * config.head_dim,
    )


def published_bytes(config: DeepseekV4Config, length: int) -> CacheBytes:
    """A DeepSeek-V4 cache in its published FP8 and FP4 layout; the constant tails
    (18.7 MB for V4-Pro, 12.2 MB for V4-Flash) are not in it."""
    csa, hca = config.layer_types.count(CSA), config.layer_types.count(HCA)
    near = config.num_hidden_layers * min(length, config.sliding_window)
    entries = csa * (length // config.csa_ratio) + hca * (length // config.hca_ratio)
    return CacheBytes(
        window=near * ENTRY_BYTES,
        compressed=entries * ENTRY_BYTES,
        index=csa * (length // config.csa_ratio) * INDEX_BYTES,
    )


def v3_2_bytes(length: int) -> CacheBytes:
    """DeepSeek-V3.2, 61 layers: 512 fp8 + 16 of scales + 128 rotary; indexer 128 fp8 + 4."""
    return CacheBytes(full=61 * length * 656, index=61 * length * 132)


def v3_2_token_flops(length: int) -> Flops:
    """DeepSeek-V3.2: FP8 indexer over all tokens, absorbed MQA over the 2048 selected."""
    return Flops(
        weights=2 * 36.42e9 + 4 * 1.06e9,
        indexer=61 * 2.0 * 64 * 128 * length,
        full=2 * 61 * 2.0 * 128 * (576 + 512) * min(2048, length),
    )


def gqa8_bytes(length: int) -> CacheBytes:
    """Grouped-query attention in bf16: 61 layers, 8 key-value heads of 128."""
    return CacheBytes(full=61 * length * 2 * 8 * 128 * 2)


class Architecture(NamedTuple):
    """A published model by its two formulas."""

    cache_bytes: Callable[[int], CacheBytes]
    token_flops: Callable[[int], Flops] | None


ARCHITECTURES = {
    "V4-Pro": Architecture(
        lambda n: published_bytes(V4_PRO, n), lambda n: token_flops(V4_PRO, n, PUBLISHED)
    ),
    "V4-Flash": Architecture(
        lambda n: published_bytes(V4_FLASH, n), lambda n: token_flops(V4_FLASH, n, PUBLISHED)
    ),
    "V3.2": Architecture(v3_2_bytes, v3_2_token_flops),
    "GQA8": Architecture(gqa8_bytes, None),
}


def table(lengths: Iterable[int] = LENGTHS) -> list[dict[str, Any]]:
    """A row for each length and published model, for display or JSON.

    Keys: model, length (tokens), cache_bytes, times_smaller (than V3.2's cache), token_flops
    (FP8-equivalent, of one token; None where no formula is known) and flops_share (of V3.2's).

    Raises:
        ValueError: a length below 1.
    """
    rows: list[dict[str, Any]] = []
    for length in _checked(lengths):
        base_bytes, base_flops = v3_2_bytes(length).total, v3_2_token_flops(length).total
        for name, architecture in ARCHITECTURES.items():
            held = architecture.cache_bytes(length).total
            flops = architecture.token_flops(length).total if architecture.token_flops else None
            rows.append(
                {
                    "model": name,
                    "length": length,
                    "cache_bytes": held,
                    "times_smaller": base_bytes / held,
                    "token_flops": flops,
                    "flops_share": None if flops is None else flops / base_flops,
                }
            )
    return rows


def own_table(
    configs: Mapping[str, DeepseekV4Config], lengths: Iterable[int] = LENGTHS
) -> list[dict[str, Any]]:
    """A row for each length and configuration: fp32 bytes by kind, unweighted FLOPs by component.

    Keys: model, length, cache_bytes, token_flops and prefill_flops (objects with a total).

    Raises:
        ValueError: a length below 1.
    """
    return [
        {
            "model": name,
            "length": length,
            "cache_bytes": held_bytes(config, length).as_dict(),
            "token_flops": _with_total(token_flops(config, length)),
            "prefill_flops": _with_total(prefill_flops(config, length)),
        }
        for length in _checked(lengths)
        for name, config in configs.items()
    ]


def _with_total(flops: Flops) -> dict[str, float]:
    return {**flops._asdict(), "total": flops.total}


def _checked(lengths: Iterable[int]) -> list[int]:
    checked = list(lengths)
    for length in checked:
        if length < 1:
            raise ValueError(f"lengths: got {length}, expected at least 1 token")
    return checked
