"""Manifold-constrained hyper-connections: four residual streams, mixed doubly stochastically.

Report section 2.2. Shapes: B batch, S tokens, K streams, D width. All in float32, whatever the
model's type.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import kernels
from models.deepseek_v4.config import DeepseekV4Config
from models.layers import KeepsFloat32, rms_normalize


class HyperConnection(KeepsFloat32):
    """Collapses the streams into one sublayer input, and spreads its output back."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__()
        k = config.hc_mult
        self.num_streams = k
        self.iterations = config.hc_sinkhorn_iters
        self.eps = config.hc_eps
        self.norm_eps = config.rms_norm_eps
        self.fn = nn.Parameter(torch.empty((2 + k) * k, k * config.hidden_size))
        self.base = nn.Parameter(torch.empty((2 + k) * k))
        self.scale = nn.Parameter(torch.empty(3))

    def forward(self, streams: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """streams [B, S, K, D] -> sublayer input [B, S, D], post [B, S, K], mix [B, S, K, K]."""
        if kernels.usable(streams, self.fn):
            return self._in_one_pass(streams.contiguous())
        k = self.num_streams
        gates = F.linear(rms_normalize(streams.flatten(-2), self.norm_eps), self.fn)
        pre, post, mix = gates.split([k, k, k * k], dim=-1)
        base_pre, base_post, base_mix = self.base.split([k, k, k * k])
        pre = torch.sigmoid(pre * self.scale[0] + base_pre) + self.eps
        post = 2 * torch.sigmoid(post * self.scale[1] + base_post)
        mix = self._sinkhorn((mix * self.scale[2] + base_mix).unflatten(-1, (k, k)))
        return (pre.unsqueeze(-2) @ streams).squeeze(-2), post, mix

    def spread(self, output: Tensor, streams: Tensor, post: Tensor, mix: Tensor) -> Tensor:
        """X'_k = post_k * y + sum_j mix[j, k] X_j, [B, S, K, D]: the mix acts transposed.

        At inference contiguous streams are overwritten.
        """
        output = output.to(streams.dtype)
        if kernels.usable(output, streams, post, mix):
            from models.kernels import mhc

            streams = streams.contiguous()
            mhc.spread(*(t.contiguous().flatten(0, 1) for t in (output, streams, post, mix)))
            return streams
        # Contiguous first: the batched product would clone every 4 x 4 matrix by itself.
        kept = mix.transpose(-1, -2).contiguous() @ streams
        return torch.addcmul(kept, post.unsqueeze(-1), output.unsqueeze(-2))

    def _in_one_pass(self, streams: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from models.kernels import mhc

        flat = streams.flatten(0, 1)
        gates = flat.flatten(1) @ self.fn.t()  # a norm is one factor a token: the kernel's
        numbers = (self.eps, self.norm_eps, self.iterations)
        parts = mhc.collapse(flat, gates, self.scale, self.base, *numbers)
        x, post, mix = (part.unflatten(0, streams.shape[:2]) for part in parts)
        return x, post, mix

    def _sinkhorn(self, logits: Tensor) -> Tensor:
        """Doubly stochastic [B, S, K, K]; the released code normalises columns last.

        The iteration runs on [K, K, B, S], where the tiny sums are over whole vectors.
        """
        m = (torch.softmax(logits, dim=-1) + self.eps).permute(2, 3, 0, 1).contiguous()
        m = m / (m.sum(dim=0, keepdim=True) + self.eps)
        for _ in range(self.iterations - 1):
            m = m / (m.sum(dim=1, keepdim=True) + self.eps)
            m = m / (m.sum(dim=0, keepdim=True) + self.eps)
        return m.permute(2, 3, 0, 1)


class HyperHead(KeepsFloat32):
    """The last collapse, [B, S, K, D] -> [B, S, D], before the final norm."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__()
        k = config.hc_mult
        self.eps = config.hc_eps
        self.norm_eps = config.rms_norm_eps
        self.hc_fn = nn.Parameter(torch.empty(k, k * config.hidden_size))
        self.hc_base = nn.Parameter(torch.empty(k))
        self.hc_scale = nn.Parameter(torch.empty(1))

    def forward(self, streams: Tensor) -> Tensor:
        flat = streams.flatten(-2)
        inverse = torch.rsqrt(flat.square().mean(-1, keepdim=True) + self.norm_eps)
        gates = F.linear(flat, self.hc_fn) * inverse  # a norm is one factor a token
        pre = torch.sigmoid(gates * self.hc_scale + self.hc_base) + self.eps
        return (pre.unsqueeze(-2) @ streams).squeeze(-2)
