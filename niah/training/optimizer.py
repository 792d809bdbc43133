"""The optimiser of the nano pair: Muon for matrices, AdamW for everything else.

Muon as in the DeepSeek-V4 report (section 4): Nesterov momentum, orthogonalised by
Newton-Schulz, rescaled to AdamW's update size. torch.optim.Muon iterates in bf16, which many
CPUs emulate a hundred times slower than fp32; this one stays in fp32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

UPDATE_RMS = 0.18
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
ADAMW_NAMES = (
    *("embed_tokens", "lm_head", "_hc.", "hc_head", "gate.weight", "position_bias"),
    *("engram.conv", "engram.table"),
)
TABLES = "engram.table"
TABLE_RATE = 5.0  # of the other parameters' (Engram, arXiv 2601.07372, section 4)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrices, roughly, of a stack [..., m, n], by Newton-Schulz."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum 0.95, decoupled weight decay; rates are in AdamW's units."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": 0.95, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for alike in by_shape.values():
                self._update(alike, group)

    def _update(self, parameters: list[Tensor], group: dict[str, float]) -> None:
        """One stack for all matrices of a shape: few operations, each with much to do."""
        buffers = [self._momentum(parameter) for parameter in parameters]
        gradients = torch.stack([parameter.grad for parameter in parameters])  # type: ignore[misc]
        momenta = torch.stack(buffers).lerp_(gradients, 1 - group["momentum"])
        torch._foreach_copy_(buffers, momenta.unbind())
        directions = orthogonalize(gradients.lerp_(momenta, group["momentum"]))
        scale = UPDATE_RMS * max(directions.shape[-2:]) ** 0.5
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, directions.unbind(), alpha=-group["lr"] * scale)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum_buffer"]
        return momentum


def uses_muon(name: str, parameter: nn.Parameter) -> bool:
    """Matrices inside the layers; embeddings, head, router, mHC, norms and sinks use AdamW."""
    return parameter.ndim >= 2 and not any(part in name for part in ADAMW_NAMES)


def build_optimizers(
    model: nn.Module, matrix_rate: float, other_rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Muon and AdamW (betas 0.9, 0.95) over disjoint parameters; n-gram tables by themselves."""
    named = list(model.named_parameters())
    matrices = [p for n, p in named if uses_muon(n, p)]
    tables = [p for n, p in named if TABLES in n]
    others = [p for n, p in named if not uses_muon(n, p) and TABLES not in n]
    groups = [(others, other_rate), (tables, TABLE_RATE * other_rate)]
    return [
        Muon(matrices, matrix_rate, weight_decay),
        *(
            torch.optim.AdamW(group, rate, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0)
            for group, rate in groups
            if group
        ),
    ]
