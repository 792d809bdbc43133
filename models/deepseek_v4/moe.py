"""Mixture of experts: sqrt-softplus scores, hash-routed first layers, one shared expert.

Report section 2.1. Shapes: T tokens (flattened), E experts, K experts a token, D width, I inner.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import kernels
from models.deepseek_v4.config import DeepseekV4Config
from models.layers import KeepsFloat32, SwiGLU, clamped_swiglu

FEW = 2  # times the experts that a token visits: so few run over all tokens on an accelerator


class Router(KeepsFloat32):
    """Which experts a token visits, and with what weights, in float32.

    Hash layers choose by a fixed table of token ids, others by score plus a balancing bias
    that never enters the weights.
    """

    e_score_correction_bias: Tensor
    tid2eid: Tensor

    def __init__(self, config: DeepseekV4Config, *, hashed: bool) -> None:
        super().__init__()
        self.per_token = config.num_experts_per_tok
        self.scaling = config.routed_scaling_factor
        self.hashed = hashed
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        if hashed:
            table = torch.zeros(config.vocab_size, self.per_token, dtype=torch.long)
            self.register_buffer("tid2eid", table)
        else:
            bias = torch.zeros(config.n_routed_experts)
            self.register_buffer("e_score_correction_bias", bias)

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, D], ids [T] -> expert weights [T, K], expert indices [T, K]."""
        scores = F.softplus(F.linear(x, self.weight)).sqrt()
        if self.hashed:
            chosen = self.tid2eid[ids]
        else:
            chosen = self._best(scores.detach() + self.e_score_correction_bias)
        weights = scores.gather(-1, chosen)
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return weights * self.scaling, chosen

    def _best(self, scores: Tensor) -> Tensor:
        if kernels.usable(scores):
            from models.kernels.experts import best_experts

            return best_experts(scores, self.per_token)
        return scores.topk(self.per_token, dim=-1).indices


class Experts(nn.Module):
    """E SwiGLU experts; each runs once over the tokens that chose it."""

    def __init__(self, config: DeepseekV4Config) -> None:
        super().__init__()
        e, d, i = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(e, 2 * i, d))
        self.down_proj = nn.Parameter(torch.empty(e, d, i))
        self.limit = config.swiglu_limit

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """x [T, D], weights and chosen [T, K] -> [T, D]; summed in the type of x."""
        if kernels.usable(x, weights, self.down_proj):
            from models.kernels.experts import mixed_experts

            return mixed_experts(x, weights, chosen, self.gate_up_proj, self.down_proj, self.limit)
        if x.device.type != "cpu" and len(self.down_proj) <= FEW * chosen.shape[-1]:
            return self._all_experts(x, weights, chosen)
        order = chosen.flatten().argsort(stable=True)
        tokens = order // chosen.shape[-1]
        counts = torch.bincount(chosen.flatten(), minlength=len(self.down_proj)).tolist()
        groups = x.to(self.down_proj.dtype)[tokens].split(counts)
        outputs = [self._expert(e, group) for e, group in enumerate(groups) if len(group)]
        weighted = torch.cat(outputs) * weights.flatten()[order].unsqueeze(-1)
        return torch.zeros_like(x).index_add(0, tokens, weighted)

    def _all_experts(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Every token through every expert: more to compute, but nothing waits for the counts."""
        everything = x.to(self.down_proj.dtype).expand(len(self.down_proj), -1, -1)  # [E, T, D]
        gate, up = (everything @ self.gate_up_proj.mT).chunk(2, dim=-1)
        outputs = clamped_swiglu(gate, up, self.limit) @ self.down_proj.mT
        shares = weights.new_zeros(len(x), len(outputs)).scatter(-1, chosen, weights)
        return torch.einsum("etd,te->td", outputs.to(shares.dtype), shares).to(x.dtype)

    def _expert(self, e: int, x: Tensor) -> Tensor:
        gate, up = F.linear(x, self.gate_up_proj[e]).chunk(2, dim=-1)
        return F.linear(clamped_swiglu(gate, up, self.limit), self.down_proj[e])


class MoE(nn.Module):
    """Routed experts plus the shared one."""

    def __init__(self, config: DeepseekV4Config, layer: int) -> None:
        super().__init__()
        self.gate = Router(config, hashed=layer < config.num_hash_layers)
        self.experts = Experts(config)
        inner = config.moe_intermediate_size * config.n_shared_experts
        self.shared_experts = SwiGLU(config.hidden_size, inner, config.swiglu_limit)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """x [B, S, D], ids [B, S] -> [B, S, D]."""
        flat = x.flatten(0, 1)
        weights, chosen = self.gate(flat, ids.flatten())
        routed: Tensor = self.experts(flat, weights, chosen)
        shared: Tensor = self.shared_experts(x)
        return routed.view_as(x) + shared
