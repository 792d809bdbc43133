"""Layers that several models share: projections, RMSNorm, rotary embedding, clamped SwiGLU.

A model may be cast to bfloat16 or float16. Then its large matrices are of that type, while the
modules that derive from `KeepsFloat32` hold their own numbers in float32, and what flows between
projections is float32. In a float32 model no cast does anything.

Shapes: B batch, S tokens, D width, P rotary pairs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import kernels


def at_least_float32(x: Tensor) -> Tensor:
    """x as float32, or unchanged where its type is as wide."""
    return x if x.itemsize >= 4 else x.float()


class KeepsFloat32(nn.Module):
    """A module whose own parameters and buffers are never cast to a type below float32.

    They move to other devices as asked. Submodules decide for themselves.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> KeepsFloat32:
        if recurse:
            for child in self.children():
                child._apply(fn)

        def kept(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            narrowed = moved.is_floating_point() and moved.itemsize < 4
            return tensor.to(moved.device) if narrowed else moved

        super()._apply(kept, recurse=False)  # type: ignore[no-untyped-call]
        return self


class Linear(nn.Linear):
    """A projection without bias, computed in its weight's type whatever the input's type."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        return F.linear(x.to(weight.dtype), weight)


class Float32Linear(KeepsFloat32, Linear):
    """A projection whose weight stays float32."""


def rms_normalize(x: Tensor, eps: float) -> Tensor:
    """x / rms(x) over the last dimension, without a weight; at least float32."""
    return _rms_norm(at_least_float32(x), None, eps)


def _rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    if kernels.usable(x, *(() if weight is None else (weight,))):
        from models.kernels import rows

        return rows.normalize(x, weight, eps)
    return F.rms_norm(x, x.shape[-1:], weight, eps)


class RMSNorm(KeepsFloat32):
    """weight * x / rms(x) over the last dimension; at least float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return _rms_norm(x.to(self.weight.dtype), self.weight, self.eps)


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
        cos, sin = angles.cos(), angles.sin()
        self.cos = torch.stack((cos, cos), dim=-1).flatten(-2)  # [S, 2P]
        # Signs folded in: (x0, x1) -> (x0 cos - x1 sin, x1 cos + x0 sin).
        self.sin = torch.stack((-sin, sin), dim=-1).flatten(-2)

    def last(self, count: int) -> Rotation:
        """The rotation of the last `count` positions."""
        part = copy.copy(self)
        part.cos, part.sin = self.cos[-count:], self.sin[-count:]
        return part

    def apply(self, x: Tensor) -> Tensor:
        """x [B, S, ..., C] rotated by +position; extra dimensions lie between S and C."""
        return self._rotate(x, self.sin)

    def undo(self, x: Tensor) -> Tensor:
        """x rotated by -position: V4 undoes on the output what shared K = V carries."""
        return self._rotate(x, -self.sin)

    def _rotate(self, x: Tensor, sin: Tensor) -> Tensor:
        if kernels.usable(x, sin):
            from models.kernels import rows

            return rows.rotate(x, self.cos, sin)
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
    """A dense feed-forward layer with the clamped SwiGLU; here the shared expert."""

    def __init__(self, hidden_size: int, intermediate_size: int, limit: float) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size)
        self.up_proj = Linear(hidden_size, intermediate_size)
        self.down_proj = Linear(intermediate_size, hidden_size)
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        gate_up = self.gate_proj.weight, self.up_proj.weight
        if kernels.usable(x, *gate_up):
            from models.kernels.experts import swiglu

            rows, inner = x.reshape(-1, x.shape[-1]), len(gate_up[0])
            both = x.new_empty(len(rows), 2 * inner)
            for weight, half in zip(gate_up, both.split(inner, dim=1), strict=True):
                torch.mm(rows, weight.t(), out=half)
            gated = swiglu(both, self.limit).view(*x.shape[:-1], inner)
        else:
            gated = clamped_swiglu(self.gate_proj(x), self.up_proj(x), self.limit)
        out: Tensor = self.down_proj(gated)
        return out
