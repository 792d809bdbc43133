"""Engram against loops over tokens and tables, in pieces, and what it begins with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from models.deepseek_v4 import weights
from models.deepseek_v4.cache import EngramCache
from models.deepseek_v4.config import PRESETS, ConfigError, DeepseekV4Config, EngramShape
from models.deepseek_v4.engram import Engram
from models.deepseek_v4.loading import build
from tests.models.small import (
    REAL,
    random_ids,
    randomize,
    randomized,
    relative_difference,
    session_of,
)
from tests.sessions import held

SHAPE = EngramShape(layers=(1,), max_order=4, heads=2, head_dim=3, rows=30, convolution=True)
IDS = random_ids(30)
STREAMS = torch.randn(1, 30, 4, REAL.hidden_size, generator=torch.Generator().manual_seed(0))


def engram_of(shape: EngramShape) -> Engram:
    config = replace(REAL, engram=shape)
    module = Engram(config, 1)
    randomize(module, config, 0)
    with torch.no_grad():
        module.canonical.copy_(torch.arange(config.vocab_size) // 2)  # pairs of ids are one
    return module


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean() + 1e-6).sqrt()


def by_loops(m: Engram, streams: Tensor, ids: Tensor) -> Tensor:
    """What is added to streams [S, K, D], in float64."""
    weight = {name: p.detach().double() for name, p in m.named_parameters()}
    num_streams, d = streams.shape[1:]
    multipliers, sizes = m.multipliers.tolist(), m.sizes.tolist()
    values, normed = torch.zeros_like(streams, dtype=torch.float64), []
    for t in range(len(ids)):
        read = []
        for order in range(2, m.shape.max_order + 1):
            mixed = 0
            for j in range(order):
                known = int(m.canonical[ids[t - j]]) if t >= j else REAL.vocab_size
                mixed ^= known * multipliers[j]
            for head in range(m.shape.heads):
                table = (order - 2) * m.shape.heads + head
                read.append(weight["table"][sum(sizes[:table]) + mixed % sizes[table]])
        e = torch.cat(read)
        for s in range(num_streams):
            one = slice(s * d, (s + 1) * d)
            key = rms(weight["key_proj.weight"][one] @ e) * weight["key_norm"][one]
            query = rms(streams[t, s].double()) * weight["query_norm"][one]
            match = float(key @ query) / math.sqrt(d)
            gate = 1 / (1 + math.exp(-math.copysign(math.sqrt(max(abs(match), 1e-6)), match)))
            values[t, s] = gate * (weight["value_proj.weight"] @ e)
        if m.shape.convolution:
            norms = [rms(values[t, s]) for s in range(num_streams)]
            normed.append(torch.cat(norms) * weight["conv_norm"])
    out = values.clone()
    for t in range(len(normed)):
        total = torch.zeros(num_streams * d, dtype=torch.float64)
        for tap in range(4):
            at = t - (3 - tap) * m.shape.max_order
            if at >= 0:
                total += weight["conv"][:, 0, tap] * normed[at]
        out[t] += (total * total.sigmoid()).view(num_streams, d)
    return out.float()


@pytest.mark.parametrize("shape", [SHAPE, replace(SHAPE, convolution=False, max_order=2)])
@pytest.mark.parametrize("sizes", [None, [30], [1] * 30, [2, 1, 13, 14]])
@torch.no_grad()
def test_what_is_added_equals_loops(shape: EngramShape, sizes: list[int] | None) -> None:
    module = engram_of(shape)
    expected = by_loops(module, STREAMS[0], IDS)
    if sizes is None:
        found = module(STREAMS, IDS[None], None)
    else:
        cache, parts = EngramCache(), []
        pieces = zip(STREAMS.split(sizes, 1), IDS.split(sizes), strict=True)
        for streams, ids in pieces:
            parts.append(module(streams, ids[None], cache))
        found = torch.cat(parts, dim=1)
    assert relative_difference(found[0], expected) < 1e-5


def test_hashes_of_modules_and_tables_differ() -> None:
    shape = replace(SHAPE, layers=(1, 3))
    one, other = (Engram(replace(REAL, engram=shape), layer) for layer in shape.layers)
    sizes = [*one.sizes.tolist(), *other.sizes.tolist()]
    assert len(set(sizes)) == len(sizes) == 12
    assert all(all(n % d for d in range(2, n)) and n >= 30 for n in sizes)
    assert not torch.equal(one.multipliers, other.multipliers)
    assert (one.multipliers % 2 == 1).all()
    assert (one.multipliers.double() * REAL.vocab_size < 2.0**63).all()  # no product overflows


def test_a_new_module_is_silent_and_learns() -> None:
    model = build(replace(REAL, engram=SHAPE))
    weights.initialize(model, 0)
    module = model.model.layers[1].engram
    assert isinstance(module, Engram)
    assert not module(STREAMS, IDS[None], None).any()
    model.lm_head(model.hidden(IDS[None])).square().mean().backward()
    gradient = module.value_proj.weight.grad
    assert gradient is not None
    assert gradient.any()


def test_its_state_is_the_newest_ids_and_does_not_grow() -> None:
    model = randomized(build(replace(REAL, engram=replace(SHAPE, convolution=False))), seed=0)
    session = session_of(model)
    session.read(IDS.numpy())
    assert held(session)["engram"] == 3 * 8
    session.read(IDS.numpy())
    assert held(session)["engram"] == held(session.fork())["engram"] == 3 * 8
    assert "engram" not in held(session_of(randomized(build(REAL), seed=0)))


def test_published_presets_have_none() -> None:
    assert all(config.engram is None for config in PRESETS.values())
    assert "engram" not in REAL.as_dict()
    config = replace(REAL, engram=SHAPE)
    assert DeepseekV4Config.from_dict(config.as_dict()) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layers": [4]}, r"^engram.layers: got \[4\], expected some of 0 to 3$"),
        ({"layers": []}, r"^engram.layers: got \[\], expected some of 0 to 3$"),
        ({"layers": [1], "max_order": 1}, r"^engram.max_order: got 1, expected a whole number fr"),
        ({"layers": [1], "heads": 0}, r"^engram.heads: got 0, expected a whole number from 1$"),
        ({"orders": 2}, r"^engram: got \['orders'\], expected fields among convolution, head_dim"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeepseekV4Config.from_dict({**REAL.as_dict(), "engram": fields})
