"""Weights in and out: initial values, safetensors files, fingerprints.

Names are those of transformers' `DeepseekV4ForCausalLM.state_dict()`, so either side loads
the other's. (transformers' `save_pretrained` writes other names unless called with
`save_original_format=False`.)
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.deepseek_v4.config import DeepseekV4Config
from models.deepseek_v4.mhc import HyperConnection, HyperHead
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.moe import Router


@torch.no_grad()
def initialize(model: DeepseekV4, seed: int) -> None:
    """Random weights for training: unit-variance matrices, quiet residual branches.

    mHC begins as an ordinary residual connection: every stream reads a quarter of the sum,
    receives the whole output, and is mixed with the identity. (The report says only that the
    gating factors are small; transformers' own initial values train poorly.)
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, std: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)

    residual = 0.5 / math.sqrt(2 * model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and "position_bias" not in name:
            gain = residual if "o_b_proj" in name or "down_proj" in name else 1.0
            normal(parameter, gain * parameter.shape[-1] ** -0.5)
    normal(model.model.embed_tokens.weight, 1.0)
    normal(model.lm_head.weight, 0.02)
    for module in model.modules():
        if isinstance(module, HyperConnection):
            _identity_connection(module, normal)
        elif isinstance(module, HyperHead):
            normal(module.hc_fn, 1e-4)
            module.hc_scale.fill_(0.01)
            module.hc_base.fill_(-math.log(len(module.hc_base) - 1))
        elif isinstance(module, Router) and module.hashed:
            experts = torch.rand(
                len(module.tid2eid), model.config.n_routed_experts, generator=generator
            )
            module.tid2eid.copy_(experts.argsort(-1)[:, : module.per_token])


def _identity_connection(module: HyperConnection, normal: object) -> None:
    k = module.num_streams
    assert callable(normal)
    normal(module.fn, 1e-4)
    module.scale.fill_(0.01)
    pre = torch.full((k,), -math.log(k - 1))  # sigmoid = 1 / k
    mix = 5.0 * (torch.eye(k) - 1)
    module.base.copy_(torch.cat((pre, torch.zeros(k), mix.flatten())))


def parameter_count(model: nn.Module) -> int:
    """Trained numbers; routing tables and biases are not among them."""
    return sum(p.numel() for p in model.parameters())


def save(model: DeepseekV4, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` (fp32)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(model.config.as_dict(), indent=2) + "\n"
    (folder / "config.json").write_text(config, encoding="utf-8")
    tensors = {name: t.contiguous() for name, t in model.state_dict().items()}
    temporary = folder / "model.safetensors.part"
    save_file(tensors, temporary)
    temporary.replace(folder / "model.safetensors")


def load_config(folder: Path) -> DeepseekV4Config:
    """Raises FileNotFoundError, or ConfigError for a file that describes no model."""
    return DeepseekV4Config.from_dict(
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    )


def load_weights(model: DeepseekV4, folder: Path) -> None:
    """Strict: raises RuntimeError if a tensor is missing, unknown or of another shape."""
    model.load_state_dict(load_file(folder / "model.safetensors"))


def fingerprint(model: DeepseekV4) -> str:
    """16 hex digits over the configuration and every tensor's name, shape and bytes."""
    digest = hashlib.sha256(json.dumps(model.config.as_dict(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
