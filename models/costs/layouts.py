"""Bytes of one row of a cache in the layouts that models and engines publish.

Sources: DeepSeek-V4 (arXiv 2606.19348) and its inference code, DeepSeek-V3.2 (FlashMLA's FP8
cache), DeepSeek-V4.1 (arXiv 2609.19969), vLLM's and SGLang's NVFP4 cache of V4 (384 bytes an
entry), KIVI (arXiv 2402.02750), llama.cpp's q8_0 and q4_0 (32 values and a 16-bit scale).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from models.costs.architecture import Architecture, Shape
from models.errors import ModelError

PUBLISHED = "published"


class Layout(NamedTuple):
    """How rows are stored; `row_bytes` is None for a row that the layout does not define."""

    description: str
    row_bytes: Callable[[Shape], int | None]
    element_bytes: int = 2  # of a channel of a state that follows the cache


def plain(element_bytes: int) -> Callable[[Shape], int]:
    """Every channel alike, scales (if any) per tensor."""
    return lambda shape: element_bytes * shape.channels


def grouped(bits: int, group: int, scale_bytes: int) -> Callable[[Shape], int]:
    """Every channel in `bits`, a scale for each `group` channels."""

    def row_bytes(shape: Shape) -> int:
        return _up(bits * shape.channels, 8) + scale_bytes * _up(shape.channels, group)

    return row_bytes


def kivi(bits: int) -> Callable[[Shape], int]:
    """Whole numbers with a float16 offset and step for each 32 channels, rotary ones apart."""

    def row_bytes(shape: Shape) -> int:
        parts = (shape.plain, shape.rotary)
        return shape.heads * sum(_up(bits * part, 8) + 4 * _up(part, 32) for part in parts)

    return row_bytes


def deepseek_v4(index: Callable[[int], int]) -> Callable[[Shape], int | None]:
    """Entries in e4m3 with a ue8m0 scale per 64 channels, padded to 8 bytes; rotary in bf16."""

    def row_bytes(shape: Shape) -> int | None:
        if shape.role == "index":
            return index(shape.channels)
        if shape.role == "key_value":
            return None
        return 8 * _up(shape.plain + _up(shape.plain, 64), 8) + 2 * shape.rotary

    return row_bytes


def deepseek_v3_2(shape: Shape) -> int | None:
    """Latents in e4m3 with an fp32 scale per 128 channels, rotary in bf16; FP8 index keys."""
    if shape.role == "index":
        return fp8_index(shape.channels)
    if shape.role == "key_value":
        return None
    return shape.plain + 4 * _up(shape.plain, 128) + 2 * shape.rotary


def deepseek_v4_1(shape: Shape) -> int | None:
    """Entries in e2m1 with an e4m3 scale per 16 channels, rotary channels included."""
    if shape.role == "index":
        return fp4_index(shape.channels)
    if shape.role == "key_value":
        return None
    return _up(shape.channels, 2) + _up(shape.channels, 16)


def nvfp4(shape: Shape) -> int:
    """e2m1 with an e4m3 scale per 16 channels; latents keep rotary channels in bf16 and are padded
    to 16 bytes; index keys as V4 has them."""
    if shape.role == "index":
        return fp4_index(shape.channels)
    if shape.role == "key_value":
        return shape.heads * (_up(shape.plain, 2) + _up(shape.plain, 16))
    return 16 * _up(_up(shape.plain, 2) + _up(shape.plain, 16) + 2 * shape.rotary, 16)


def fp4_index(channels: int) -> int:
    """MXFP4: e2m1 with a ue8m0 scale per 32 channels."""
    return _up(channels, 2) + _up(channels, 32)


def fp8_index(channels: int) -> int:
    """e4m3 with an fp32 scale per 128 channels."""
    return channels + 4 * _up(channels, 128)


def _up(amount: int, unit: int) -> int:
    """How many units hold `amount`."""
    return -(-amount // unit)


LAYOUTS = {
    "fp32": Layout("4 bytes a channel", plain(4), 4),
    "bf16": Layout("2 bytes a channel", plain(2)),
    "fp8": Layout("1 byte a channel, scales per tensor (vLLM, SGLang)", plain(1)),
    "v4": Layout("V4: entries of 584 bytes, FP4 index keys of 68", deepseek_v4(fp4_index)),
    "v4-fp8-index": Layout(
        "V4: entries of 584 bytes, FP8 index keys of 132", deepseek_v4(fp8_index)
    ),
    "v3.2": Layout("V3.2: rows of 656 bytes, FP8 index keys of 132", deepseek_v3_2),
    "v4.1": Layout("V4.1: FP4 entries of 288 bytes, FP4 index keys of 68", deepseek_v4_1),
    "nvfp4": Layout("NVFP4: V4's entries take 384 bytes, FP4 index keys", nvfp4),
    "int8": Layout("KIVI's: 36 bytes for 32 channels", kivi(8)),
    "int4": Layout("KIVI's: 20 bytes for 32 channels", kivi(4)),
    "int2": Layout("KIVI's: 12 bytes for 32 channels", kivi(2)),
    "q8_0": Layout("llama.cpp: 34 bytes for 32 channels", grouped(8, 32, 2)),
    "q4_0": Layout("llama.cpp: 18 bytes for 32 channels", grouped(4, 32, 2)),
}


def find_layout(architecture: Architecture, name: str = PUBLISHED) -> Layout:
    """The layout called `name`, or the architecture's own.

    Raises:
        ModelError: no such layout, or one that does not define this architecture's rows.
    """
    chosen = architecture.layout if name == PUBLISHED else name
    if chosen not in LAYOUTS:
        raise ModelError(f"layout: got {name!r}, expected one of {', '.join(layout_names())}")
    layout = LAYOUTS[chosen]
    for rows in architecture.rows:
        if layout.row_bytes(rows.shape) is None:
            fitting = [
                other
                for other, candidate in LAYOUTS.items()
                if all(candidate.row_bytes(r.shape) is not None for r in architecture.rows)
            ]
            raise ModelError(
                f"layout: {chosen} stores latent entries, and this model keeps keys and values; "
                f"expected one of {', '.join(fitting)}"
            )
    return layout


def layout_names() -> tuple[str, ...]:
    """What an option may name."""
    return (PUBLISHED, *LAYOUTS)


def row_bytes(layout: Layout, shape: Shape) -> int:
    """Bytes of a row that the layout is known to define."""
    found = layout.row_bytes(shape)
    assert found is not None, shape
    return found
