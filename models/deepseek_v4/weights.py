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
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.deepseek_v3.latent import LatentLayer
from models.deepseek_v4.attention import Attention, CompressedAttention
from models.deepseek_v4.config import DeepseekV4Config
from models.deepseek_v4.engram import Engram
from models.deepseek_v4.mhc import HyperConnection, HyperHead
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.moe import Router
from models.files import replacing

HEAD_SCALE = 0.05
COPY_GAIN = 0.5


@torch.no_grad()
def initialize(model: DeepseekV4, seed: int) -> None:
    """Random weights for training that start near an ordinary, copying transformer.

    mHC begins as an ordinary residual connection: every stream reads a quarter of the sum,
    receives the whole output, and is mixed with the identity. (The report says only that the
    gating factors are small; transformers' own initial values train poorly.) An attention
    layer begins by writing what it attends to back in the directions it was read from, and
    the head begins aligned with the embedding: what is attended to is what is predicted, for
    every token alike, so that training has only to learn where to look.
    """
    generator = torch.Generator("cpu").manual_seed(seed)

    def normal(tensor: Tensor, std: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator, device="cpu") * std)

    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and "position_bias" not in name:
            quiet = "down_proj" in name
            normal(parameter, (0.2 if quiet else 1.0) * parameter.shape[-1] ** -0.5)
    normal(model.model.embed_tokens.weight, 1.0)
    model.lm_head.weight.copy_(HEAD_SCALE * model.model.embed_tokens.weight)
    for module in model.modules():
        if isinstance(module, HyperConnection):
            normal(module.fn, 1e-4)
            module.scale.fill_(0.01)
            module.base.copy_(_identity_gates(module.num_streams, module.base.device))
        elif isinstance(module, HyperHead):
            normal(module.hc_fn, 1e-4)
            module.hc_scale.fill_(0.01)
            module.hc_base.fill_(-math.log(len(module.hc_base) - 1))
        elif isinstance(module, Attention):
            _start_copying(module)
        elif isinstance(module, Engram):
            module.value_proj.weight.zero_()  # silent, as the convolution
            if module.shape.convolution:
                module.conv.zero_()
        elif isinstance(module, LatentLayer):
            _start_copying_latents(module)
        elif isinstance(module, Router) and module.hashed:
            shape = len(module.tid2eid), model.config.n_routed_experts
            experts = torch.rand(shape, generator=generator, device="cpu")
            module.tid2eid.copy_(experts.argsort(-1)[:, : module.per_token])


def _identity_gates(k: int, device: torch.device) -> Tensor:
    """Biases of mHC: pre = 1 / k, post = 1, mix close to the identity."""
    pre = torch.full((k,), -math.log(k - 1), device=device)
    mix = 5.0 * (torch.eye(k, device=device) - 1)
    return torch.cat((pre, torch.zeros(k, device=device), mix.flatten()))


def _start_copying(attention: Attention[Any]) -> None:
    """Orthonormal K = V and grouped output, the last projection their transpose.

    Heads wider than the model hold an image of the input: each group then reads directions of its
    own of that image, and the norm's gain is taken back. Compressors read with the same K = V, so
    an entry begins as a mean of its tokens.
    """
    kv = _orthonormal(attention.kv_proj.weight)
    attention.kv_proj.weight.copy_(kv)
    grouped = attention.o_a_proj
    blocks = grouped.weight.unflatten(0, (grouped.groups, -1))  # [G, R, heads * C]
    wide = len(kv) > kv.shape[1]
    if wide:
        blocks = _reading_the_image(blocks, kv)
    blocks = torch.stack([_orthonormal(block) for block in blocks])
    grouped.weight.copy_(blocks.flatten(0, 1))
    per_head = blocks.unflatten(-1, (-1, len(kv))).sum(2)  # [G, R, C]
    back = torch.einsum("cd,grc->dgr", kv, per_head).flatten(1)
    gain = COPY_GAIN * (kv.shape[1] / len(kv)) ** 0.5 if wide else COPY_GAIN
    attention.o_b_proj.weight.copy_(gain * back)
    if isinstance(attention, CompressedAttention):
        weight = attention.compressor.kv_proj.weight
        weight.copy_(kv.repeat(len(weight) // len(kv), 1))


def _reading_the_image(blocks: Tensor, kv: Tensor) -> Tensor:
    """Output blocks [G, R, heads * C] that read only what kv [C, D] writes.

    The groups share out an orthonormal basis of the D channels; where G * R exceeds D their
    directions overlap. All heads of a group read alike.
    """
    groups, rank, width = blocks.shape
    basis = _orthonormal(blocks.flatten(0, 1)[:, : kv.shape[1]])  # [G * R, D], rows or columns
    heads = width // len(kv)
    return (basis @ kv.T).repeat(1, heads).view(groups, rank, width)


def _start_copying_latents(attention: LatentLayer[Any]) -> None:
    """As `_start_copying`: orthonormal latents and orthonormal values of each head, and the output
    the transpose of both."""
    down = _orthonormal(attention.kv_a_proj_with_mqa.weight[: attention.rank])  # [R, D]
    attention.kv_a_proj_with_mqa.weight[: attention.rank] = down
    heads = attention.kv_b_proj.weight.unflatten(0, (-1, attention.nope + attention.value_dim))
    keys, values = heads.split((attention.nope, attention.value_dim), dim=1)
    keys = torch.stack([_orthonormal(head) for head in keys])
    values = torch.stack([_orthonormal(head) for head in values])  # [H, E, R]
    attention.kv_b_proj.weight.copy_(torch.cat((keys, values), dim=1).flatten(0, 1))
    back = torch.einsum("rd,her->dhe", down, values).flatten(1)
    attention.o_proj.weight.copy_(COPY_GAIN * back)


def _orthonormal(matrix: Tensor) -> Tensor:
    """Orthonormal rows (or columns, if tall) spanning those of `matrix`."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    polar: Tensor = u @ v
    return polar


def parameter_count(model: nn.Module) -> int:
    """Trained numbers; routing tables and biases are not among them."""
    return sum(p.numel() for p in model.parameters())


def save(model: DeepseekV4, folder: Path) -> None:
    """Write `config.json` and `model.safetensors` (fp32)."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(model.config.as_dict(), indent=2) + "\n"
    with replacing(folder / "config.json") as partial:
        partial.write_text(config, encoding="utf-8")
    tensors = {name: t.contiguous() for name, t in model.state_dict().items()}
    with replacing(folder / "model.safetensors") as partial:
        save_file(tensors, partial)


def load_weights(model: DeepseekV4, folder: Path, fresh: type[nn.Module] | None = None) -> None:
    """Strict: raises RuntimeError if a tensor is missing, unknown or of another shape.

    Modules of the class `fresh` keep the tensors that the file does not hold.
    """
    found = load_file(folder / "model.safetensors")
    kept: dict[str, Tensor] = {}
    if fresh is not None:
        for path, module in model.named_modules():
            if isinstance(module, fresh):
                kept |= module.state_dict(prefix=f"{path}.")
    model.load_state_dict({**kept, **found})


def fingerprint(model: DeepseekV4, config: DeepseekV4Config) -> str:
    """16 hex digits over the configuration and every tensor's name, shape, type and bytes.

    The device makes no difference; a model cast to another type has another fingerprint.
    """
    digest = hashlib.sha256(json.dumps(config.as_dict(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).cpu().numpy())
    return digest.hexdigest()[:16]
