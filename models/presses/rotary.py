"""Rotary embedding as the presses need it: undone, and averaged over positions.

RoFormer (Su et al. 2021, arXiv:2104.09864, section 3.2): pair i of a vector at position p is
turned by the angle p · frequency i.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rotary(NamedTuple):
    """Which channels make pairs, and how fast each pair turns.

    `frequencies` [P] in radians a token. Pairs are neighbours where `interleaved`, else channel i
    and channel i + P, counted from channel `start` on. No frequencies: nothing turns.
    """

    frequencies: Tensor
    interleaved: bool = False
    start: int = 0

    def undo(self, x: Tensor, positions: Tensor) -> Tensor:
        """x [..., S, C], turned at `positions` [S], as it was before."""
        first, second = self._pairs(x.device)
        angles = positions.to(torch.float32)[:, None] * self.frequencies.to(x.device)
        cos, sin = angles.cos(), angles.sin()
        a, b = x[..., first], x[..., second]
        turned = x.clone()
        turned[..., first] = a * cos + b * sin
        turned[..., second] = b * cos - a * sin
        return turned

    def mean_matrix(self, positions: Tensor, width: int) -> Tensor:
        """The average [C, C] over `positions` of the matrices that turn a vector of `width` C."""
        first, second = self._pairs(positions.device)
        angles = positions.to(torch.float32)[:, None] * self.frequencies.to(positions.device)
        cos, sin = angles.cos().mean(0), angles.sin().mean(0)
        matrix = torch.eye(width, device=positions.device)
        matrix[first, first] = cos
        matrix[second, second] = cos
        matrix[first, second] = -sin
        matrix[second, first] = sin
        return matrix

    def _pairs(self, device: torch.device) -> tuple[Tensor, Tensor]:
        count = len(self.frequencies)
        index = torch.arange(count, device=device)
        if self.interleaved:
            return self.start + 2 * index, self.start + 2 * index + 1
        return self.start + index, self.start + index + count


NO_ROTATION = Rotary(torch.empty(0))
"""Of layers without rotary embedding."""
