"""How the error of transformers' cache of few bits hangs on the number of tokens and of calls.

    python -m tests.benchmarks.hqq_groups --bits 4

Keys of 3 heads and 64 channels, whose channels differ in size as those of real models do. Printed:
the error of what is held in few bits, as a share of the keys' own size (root mean squares).
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from models.transformers_models.caches import GROUP, RESIDUAL, HQQLayer

HEADS, CHANNELS, LONGEST = 3, 64, 1056
CALLS = ((512,), (513,), (1024,), (1023,), (128,) * 8, (129,) * 8)


def error(bits: int, keys: Tensor, calls: tuple[int, ...]) -> float:
    """Of the keys [1, G, n, C] that stand in few bits after `calls` of so many tokens."""
    layer = HQQLayer(nbits=bits, q_group_size=GROUP, residual_length=RESIDUAL)
    end = 0
    for tokens in calls:
        read = keys[:, :, end : end + tokens]
        layer.update(read, read)
        end += tokens
    found = layer._dequantize(layer._quantized_keys)
    meant = keys[:, :, : found.shape[-2]]
    return float((found - meant).norm() / meant.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bits", type=int, choices=(8, 4, 2), default=4)
    bits = parser.parse_args().bits
    generator = torch.Generator().manual_seed(0)
    size = torch.randn(1, HEADS, 1, CHANNELS, generator=generator).exp()
    keys = size * torch.randn(1, HEADS, LONGEST, CHANNELS, generator=generator)
    for calls in CALLS:
        print(f"{len(calls)} x {calls[0]:>5} tokens: {error(bits, keys, calls):.3f}")


if __name__ == "__main__":
    main()
