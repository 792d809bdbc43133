"""What several models share: RMSNorm, rotary embedding, clamped SwiGLU.

Shapes: B batch, S tokens, D width, P rotary pairs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def rms_normalize(x: Tensor, eps: float) -> Tensor:
    """x / rms(x) over the last dimension, without a weight."""
    return F.rms_norm(x, (x.shape[-1],), eps=eps)


class RMSNorm(nn.Module):
    """weight * x / rms(x) over the last dimension."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rope_frequencies(dim: int, theta: float) -> Tensor:
    """Angular frequency of each interleaved pair, [dim / 2], fp32."""
    return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)


def yarn_frequencies(
    dim: int, theta: float, factor: float, original: int, beta_fast: float, beta_slow: float
) -> Tensor:
    """YaRN (arXiv 2309.00071, section 3.2): fast pairs unscaled, slow pairs divided by `factor`.

    The ramp between them is linear over pair indices; V4 uses attention_factor 1.
    """

    def pair_turning(rotations: float) -> float:
        """Index of the pair that turns `rotations` times within the original length."""
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_turning(beta_fast)), 0)
    high = min(math.ceil(pair_turning(beta_slow)), dim - 1)
    span = max(high - low, 0.001)
    scaled = ((torch.arange(dim // 2, dtype=torch.float32) - low) / span).clamp(0, 1)
    plain = rope_frequencies(dim, theta)
    return plain / factor * scaled + plain * (1 - scaled)


class Rotation:
    """Interleaved rotary embedding of the last 2P channels, at given positions."""

    def __init__(self, positions: Tensor, frequencies: Tensor) -> None:
        angles = positions.to(torch.float32)[..., None] * frequencies  # [S, P]
        self.cos = angles.cos().repeat_interleave(2, dim=-1)  # [S, 2P]
        sin = angles.sin()
        # Signs folded in: (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin).
        self.sin = torch.stack((-sin, sin), dim=-1).flatten(-2)

    def apply(self, x: Tensor) -> Tensor:
        """x [B, S, ..., C] rotated by +position; extra dimensions lie between S and C."""
        return self._rotate(x, self.sin)

    def undo(self, x: Tensor) -> Tensor:
        """x rotated by -position: V4 undoes on the output what shared K = V carries."""
        return self._rotate(x, -self.sin)

    def _rotate(self, x: Tensor, sin: Tensor) -> Tensor:
        dim = self.cos.shape[-1]
        shape = (-1, *(1,) * (x.ndim - 3), dim)
        plain, turned = x[..., :-dim], x[..., -dim:]
        swapped = turned.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        turned = turned * self.cos.view(shape) + swapped * sin.view(shape)
        return torch.cat((plain, turned), dim=-1)


def clamped_swiglu(gate: Tensor, up: Tensor, limit: float) -> Tensor:
    """silu(min(gate, limit)) * clamp(up, ±limit) (report section 2.1)."""
    return F.silu(gate.clamp(max=limit)) * up.clamp(-limit, limit)


class SwiGLU(nn.Module):
    """A dense feed-forward with the clamped SwiGLU; here the shared expert."""

    def __init__(self, hidden_size: int, intermediate_size: int, limit: float) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(clamped_swiglu(self.gate_proj(x), self.up_proj(x), self.limit))
        return out
