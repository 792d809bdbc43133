"""Quantised weights of the official layout: FP8 in blocks of 128 x 128, FP4 in rows of 32.

Scales are powers of two (ue8m0, one byte: the exponent plus 127). FP8 is e4m3; FP4 is e2m1, two
numbers a byte, the earlier one in the low half. Shapes: O outputs, I inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 128
ROW = 32
FP8_MAX = 448.0
FP4_MAX = 6.0
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
SMALLEST = 2.0**-126


def to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[O, I] -> e4m3 [O, I] and scales ue8m0 [ceil(O / 128), ceil(I / 128)].

    A block's scale is the smallest power of two that brings its largest number to at most 448.
    """
    tops = _padded(weight.abs()).unfold(0, BLOCK, BLOCK).unfold(1, BLOCK, BLOCK).amax((-2, -1))
    scales = _scales(tops, FP8_MAX)
    rounded = (weight / _spread(scales, weight.shape)).to(torch.float8_e4m3fn)
    return rounded, scales.to(torch.float8_e8m0fnu)


def from_fp8(weight: Tensor, scales: Tensor) -> Tensor:
    """The numbers [O, I] of `to_fp8`, float32."""
    return weight.float() * _spread(scales.float(), weight.shape)


def to_fp4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[O, I] -> packed int8 [O, I / 2] and scales ue8m0 [O, I / 32]; I is a multiple of 32."""
    rows = weight.unflatten(-1, (-1, ROW))
    scales = _scales(rows.abs().amax(-1), FP4_MAX)
    scaled = rows / scales[..., None]
    values = torch.tensor(FP4_VALUES)
    middles = (values[1:] + values[:-1]) / 2
    codes = torch.bucketize(scaled.abs(), middles) + 8 * (scaled < 0)
    low, high = codes.flatten(-2).to(torch.uint8).unflatten(-1, (-1, 2)).unbind(-1)
    return (low | high << 4).view(torch.int8), scales.to(torch.float8_e8m0fnu)


def from_fp4(packed: Tensor, scales: Tensor) -> Tensor:
    """The numbers [O, I] of `to_fp4`, float32."""
    values = torch.tensor((*FP4_VALUES, *(-value for value in FP4_VALUES)))
    halves = packed.view(torch.uint8).int()
    numbers: Tensor = values[torch.stack((halves & 15, halves >> 4), -1).flatten(-2)]
    numbers = numbers.unflatten(-1, (-1, ROW)) * scales.float()[..., None]
    return numbers.flatten(-2)


def _scales(tops: Tensor, most: float) -> Tensor:
    """Smallest powers of two that bring `tops` to at most `most`."""
    mantissas, exponents = torch.frexp((tops / most).clamp(min=SMALLEST))
    return torch.ldexp(torch.ones_like(tops), exponents - (mantissas == 0.5).int())


def _spread(scales: Tensor, shape: torch.Size) -> Tensor:
    """One scale a number, [O, I]."""
    rows = scales.repeat_interleave(BLOCK, 0)[: shape[0]]
    return rows.repeat_interleave(BLOCK, 1)[:, : shape[1]]


def _padded(weight: Tensor) -> Tensor:
    """[O, I] with zeros up to whole blocks."""
    return torch.nn.functional.pad(
        weight, (0, -weight.shape[1] % BLOCK, 0, -weight.shape[0] % BLOCK)
    )
