"""The fields that define a model, and the published presets as deltas.

Field names follow transformers' `DeepseekV4Config` where it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

SLIDING = "sliding_attention"
CSA = "compressed_sparse_attention"
HCA = "heavily_compressed_attention"
FULL = "full_attention"  # the uncompressed twin's global layers; not part of DeepSeek-V4
MLA = "latent_attention"  # DeepSeek-V3's, in this trunk: see models/deepseek_v3
DSA = "indexed_attention"  # DeepSeek-V3.2's, as transformers names it
LATENT_TYPES = (MLA, DSA)
LAYER_TYPES = (SLIDING, CSA, HCA, FULL, *LATENT_TYPES)


class ConfigError(ValueError):
    """A configuration that no model can have; the message names field, value and rule."""


@dataclass(frozen=True)
class LatentShape:
    """Widths of multi-head latent attention, by DeepSeek-V3's names.

    The rank of queries and the rotary channels are the trunk's `q_lora_rank`, `qk_rope_head_dim`.
    """

    kv_lora_rank: int
    qk_nope_head_dim: int
    v_head_dim: int
    mscale_all_dim: float = 0.0
    """V3.2 has 1: logits are scaled by (1 + 0.1 x this x ln(yarn_factor)) squared."""

    def __post_init__(self) -> None:
        for name in ("kv_lora_rank", "qk_nope_head_dim", "v_head_dim"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            _require(whole and value >= 1, f"latent.{name}", value, "a whole number from 1")
        m = self.mscale_all_dim
        _require(
            isinstance(m, int | float) and m >= 0, "latent.mscale_all_dim", m, "a number from 0"
        )


@dataclass(frozen=True)
class EngramShape:
    """Conditional memory by hashed n-grams (Engram, arXiv 2601.07372): see `engram`."""

    layers: tuple[int, ...]
    """Numbers of the layers, from 0, before whose attention a module stands."""
    max_order: int = 3
    """n-grams of 2 to so many tokens."""
    heads: int = 2
    """Tables of each order."""
    head_dim: int = 16
    rows: int = 20480
    """At least, of a table: the next primes."""
    convolution: bool = False
    """A short causal convolution over what was read; V4.1 has none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        for name, least in (("max_order", 2), ("heads", 1), ("head_dim", 1), ("rows", 2)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            _require(
                whole and value >= least, f"engram.{name}", value, f"a whole number from {least}"
            )

    @property
    def width(self) -> int:
        """Channels that a token reads."""
        return (self.max_order - 1) * self.heads * self.head_dim


@dataclass(frozen=True)
class DeepseekV4Config:
    """Dimensions of one model. Defaults are those common to V4-Pro and V4-Flash."""

    hidden_size: int
    layer_types: tuple[str, ...]
    num_attention_heads: int
    q_lora_rank: int
    o_groups: int
    o_lora_rank: int
    n_routed_experts: int
    moe_intermediate_size: int
    routed_scaling_factor: float
    index_topk: int
    vocab_size: int = 129280
    head_dim: int = 512
    qk_rope_head_dim: int = 64
    sliding_window: int = 128
    csa_ratio: int = 4
    hca_ratio: int = 128
    index_n_heads: int = 64
    index_head_dim: int = 128
    num_experts_per_tok: int = 6
    n_shared_experts: int = 1
    num_hash_layers: int = 3
    hc_mult: int = 4
    hc_sinkhorn_iters: int = 20
    hc_eps: float = 1e-6
    rms_norm_eps: float = 1e-6
    swiglu_limit: float = 10.0
    rope_theta: float = 1e4
    compress_rope_theta: float = 1.6e5
    yarn_factor: float = 16.0
    yarn_original_positions: int = 65536
    yarn_beta_fast: float = 32.0
    yarn_beta_slow: float = 1.0
    max_position_embeddings: int = 1048576
    log_length_base: int | None = None
    """Not in DeepSeek-V4: if set, global layers scale their logits by
    max(1, log(p + 1) / log(base)) at position p, so that one match can outweigh a
    growing context although normalised queries and keys bound the logits."""
    latent: LatentShape | None = None
    """Not in DeepSeek-V4: widths of the layers of types MLA and DSA."""
    engram: EngramShape | None = None
    """Not in DeepSeek-V4: a memory of n-grams beside the layers; V4.1 has one."""

    def __post_init__(self) -> None:
        wrong = [t for t in self.layer_types if t not in LAYER_TYPES]
        _require(not wrong, "layer_types", wrong, f"each one of {', '.join(LAYER_TYPES)}")
        _require(
            self.qk_rope_head_dim % 2 == 0 and self.qk_rope_head_dim <= self.head_dim,
            "qk_rope_head_dim",
            self.qk_rope_head_dim,
            f"even and at most head_dim ({self.head_dim})",
        )
        _require(
            self.num_attention_heads % self.o_groups == 0,
            "o_groups",
            self.o_groups,
            f"a divisor of num_attention_heads ({self.num_attention_heads})",
        )
        _require(
            1 <= self.num_experts_per_tok <= self.n_routed_experts,
            "num_experts_per_tok",
            self.num_experts_per_tok,
            f"1 to n_routed_experts ({self.n_routed_experts})",
        )
        for name in ("csa_ratio", "hca_ratio", "index_topk", "sliding_window"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        latent = [t for t in self.layer_types if t in LATENT_TYPES]
        _require(
            (self.latent is not None) == bool(latent),
            "latent",
            self.latent,
            f"widths if and only if a layer is one of {', '.join(LATENT_TYPES)}",
        )
        modules = self.engram.layers if self.engram else ()
        _require(
            self.engram is None
            or (bool(modules) and set(modules) <= set(range(len(self.layer_types)))),
            "engram.layers",
            list(modules),
            f"some of 0 to {len(self.layer_types) - 1}",
        )
        _require(
            DSA not in latent or self.index_head_dim >= self.qk_rope_head_dim,
            "index_head_dim",
            self.index_head_dim,
            f"at least qk_rope_head_dim ({self.qk_rope_head_dim}) for {DSA}",
        )

    @property
    def num_hidden_layers(self) -> int:
        return len(self.layer_types)

    def as_dict(self) -> dict[str, Any]:
        """The fields; parts that DeepSeek-V4 lacks are left out where they are off.

        Fingerprints are made of this: those of models without such parts stay what they were.
        """
        return {k: v for k, v in asdict(self).items() if k not in PARTS or v is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DeepseekV4Config:
        """Raises ConfigError for unknown or missing fields."""
        parts = {
            name: _read(part, name, values[name])
            for name, part in PARTS.items()
            if values.get(name) is not None
        }
        kinds = tuple(values.get("layer_types", ()))
        return _read(cls, "config", {**values, **parts, "layer_types": kinds})


PARTS: dict[str, Callable[..., object]] = {"latent": LatentShape, "engram": EngramShape}
"""Fields of fields, by name."""
R = TypeVar("R")


def _read(kind: Callable[..., R], field: str, values: object) -> R:
    """A dataclass from a mapping. Raises ConfigError for unknown or missing fields."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    expected = f"fields among {', '.join(sorted(known))}"
    if not isinstance(values, Mapping):
        raise ConfigError(f"{field}: got {values!r}, expected {expected}")
    unknown = sorted(set(values) - known)
    _require(not unknown, field, unknown, expected)
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{field}: {error}") from error


def uncompressed(config: DeepseekV4Config) -> DeepseekV4Config:
    """The twin's configuration: global layers keep everything."""
    return replace(config, layer_types=_global_layers(config, FULL))


def with_latents(config: DeepseekV4Config, kind: str, shape: LatentShape) -> DeepseekV4Config:
    """The same trunk with global layers of type MLA or DSA."""
    return replace(config, layer_types=_global_layers(config, kind), latent=shape)


def _global_layers(config: DeepseekV4Config, kind: str) -> tuple[str, ...]:
    return tuple(kind if each in (CSA, HCA) else each for each in config.layer_types)


def selects(config: DeepseekV4Config) -> bool:
    """Whether any layer selects what it attends to."""
    return CSA in config.layer_types or DSA in config.layer_types


def is_uncompressed(config: DeepseekV4Config) -> bool:
    """Whether any layer keeps every token."""
    return FULL in config.layer_types


def _require(holds: bool, field: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{field}: got {value}, expected {expected}")


V4_PRO = DeepseekV4Config(
    hidden_size=7168,
    layer_types=(HCA, HCA, *(CSA, HCA) * 29, CSA),
    num_attention_heads=128,
    q_lora_rank=1536,
    o_groups=16,
    o_lora_rank=1024,
    n_routed_experts=384,
    moe_intermediate_size=3072,
    routed_scaling_factor=2.5,
    index_topk=1024,
)

V4_FLASH = replace(
    V4_PRO,
    hidden_size=4096,
    layer_types=(SLIDING, SLIDING, *(CSA, HCA) * 20, CSA),
    num_attention_heads=64,
    q_lora_rank=1024,
    o_groups=8,
    n_routed_experts=256,
    moe_intermediate_size=2048,
    routed_scaling_factor=1.5,
    index_topk=512,
)

PRESETS = {"V4-Pro": V4_PRO, "V4-Flash": V4_FLASH}
