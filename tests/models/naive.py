"""References written to be obviously right: loops over tokens, heads and channels.

Each follows the specification's text, not the code it checks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.layers import Rotation


def attention_with_sink(q: Tensor, kv: Tensor, sinks: Tensor, window: int | None = None) -> Tensor:
    """Scaled q [S, H, C] over shared K = V [S, C]; `window` limits how far a query sees.

    In float64: summed in float32 the reference itself is off by as much as what it checks.
    """
    dtype, (num_tokens, num_heads, _) = q.dtype, q.shape
    q, kv, sinks = q.double(), kv.double(), sinks.double()
    out = torch.zeros_like(q)
    for p in range(num_tokens):
        first = 0 if window is None else max(0, p - window + 1)
        for h in range(num_heads):
            logits = [float(q[p, h] @ kv[j]) for j in range(first, p + 1)]
            top = max(*logits, float(sinks[h]))
            weights = [math.exp(x - top) for x in logits]
            total = sum(weights) + math.exp(float(sinks[h]) - top)
            for j, weight in zip(range(first, p + 1), weights, strict=True):
                out[p, h] += weight / total * kv[j]
    return out.to(dtype)


def compressed_entries(
    values: Tensor, gates: Tensor, ratio: int, overlap: bool, norm: torch.nn.Module, freqs: Tensor
) -> Tensor:
    """Entries [n, C] of whole windows; values and gates (bias included) are [S, W]."""
    width = values.shape[-1] // (2 if overlap else 1)
    entries = []
    for i in range(len(values) // ratio):
        entry = torch.zeros(width)
        for c in range(width):
            slots = []
            if overlap and i > 0:  # the first half of the window before
                slots += [(gates[t, c], values[t, c]) for t in range((i - 1) * ratio, i * ratio)]
            own = width + c if overlap else c
            slots += [(gates[t, own], values[t, own]) for t in range(i * ratio, (i + 1) * ratio)]
            weights = torch.stack([gate for gate, _ in slots]).softmax(0)
            entry[c] = (weights * torch.stack([value for _, value in slots])).sum()
        first = torch.tensor([i * ratio])
        entries.append(Rotation(first, freqs).apply(norm(entry)[None, None])[0, 0])
    return torch.stack(entries)


def top_k(scores: list[float], visible: int, k: int) -> list[int]:
    """Indices of the k best visible scores; of equal ones the earlier; ascending."""
    ranked = sorted(range(visible), key=lambda i: (-scores[i], i))
    return sorted(ranked[:k])
