"""Bytes of single rows, against the published layouts."""

from __future__ import annotations

import pytest

from models.costs.architecture import Architecture, Rows, Shape
from models.costs.layouts import LAYOUTS, find_layout
from models.costs.presets import PRESETS
from models.errors import ModelError

ENTRY = Shape("latent", 448, 64)
LATENT = Shape("latent", 512, 64)
INDEX = Shape("index", 128)
HEADS = Shape("key_value", 256, heads=8)


@pytest.mark.parametrize(
    ("layout", "shape", "size"),
    [
        ("v4", ENTRY, 448 + 7 + 1 + 128),
        ("v4", ENTRY, 584),
        ("v4", INDEX, 68),
        ("v4-fp8-index", INDEX, 132),
        ("v4-fp8-index", ENTRY, 584),
        ("v3.2", LATENT, 656),
        ("v3.2", INDEX, 132),
        ("v4.1", ENTRY, 288),
        ("v4.1", INDEX, 68),
        ("nvfp4", ENTRY, 384),
        ("nvfp4", INDEX, 68),
        ("nvfp4", HEADS, 8 * (128 + 16)),
        ("bf16", ENTRY, 1024),
        ("bf16", HEADS, 4096),
        ("fp8", LATENT, 576),
        ("fp32", INDEX, 512),
        ("int8", ENTRY, 16 * 36),
        ("int4", ENTRY, 16 * 20),
        ("int2", ENTRY, 16 * 12),
        ("int4", Shape("latent", 48, 16), 24 + 8 + 3 * 4),
        ("int2", INDEX, 4 * 12),
        ("q8_0", LATENT, 612),
        ("q4_0", HEADS, 2048 // 32 * 18),
    ],
)
def test_rows(layout: str, shape: Shape, size: int) -> None:
    assert LAYOUTS[layout].row_bytes(shape) == size


def test_unknown_layouts_are_refused() -> None:
    with pytest.raises(ModelError, match=r"^layout: got 'fp5', expected one of published, fp32, "):
        find_layout(PRESETS["v4-pro"], "fp5")


@pytest.mark.parametrize("name", ["v4", "v4-fp8-index", "v3.2", "v4.1"])
def test_a_layout_of_latents_stores_no_keys_and_values(name: str) -> None:
    dense = Architecture((Rows("full", "full", 1, HEADS, 1),))
    with pytest.raises(ModelError, match=r"keeps keys and values; expected one of fp32, bf16"):
        find_layout(dense, name)
