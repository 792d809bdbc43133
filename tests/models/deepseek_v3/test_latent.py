"""MLA: absorbed equals expanded equals loops, and training begins by copying."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import kernels
from models.deepseek_v3.latent import LatentAttention, causal
from models.deepseek_v3.model import LatentTwin
from models.deepseek_v4 import weights
from models.deepseek_v4.attention import Step
from models.deepseek_v4.config import MLA, SLIDING, LatentShape
from models.layers import Rotation, rms_normalize, rope_frequencies
from tests.models.small import LATENT, random_ids, randomize, relative_difference, session_of

S = 60
TOLERANCE = 2e-6


def attention_of(shape: LatentShape, seed: int = 0) -> LatentAttention:
    config = replace(LATENT, layer_types=(MLA,), latent=shape)
    attention = LatentAttention(config)
    randomize(attention, config, seed)
    return attention


def by_loops(attention: LatentAttention, q: Tensor, rows: Tensor) -> Tensor:
    """Scaled q [S, H, N + P] over rows [S, R + P], in float64 -> [S, H, E]."""
    nope, rank, value_dim = attention.nope, attention.rank, attention.value_dim
    heads = attention.config.num_attention_heads
    up = attention.kv_b_proj.weight.detach().double()
    q, rows = q.double(), rows.double()
    out = torch.zeros(len(q), heads, value_dim, dtype=torch.float64)
    for h in range(heads):
        first = h * (nope + value_dim)
        key_weight, value_weight = up[first : first + nope], up[first + nope :][:value_dim]
        for p in range(len(q)):
            logits = []
            for j in range(p + 1):
                key = torch.cat((key_weight @ rows[j, :rank], rows[j, rank:]))
                logits.append(float(q[p, h] @ key))
            top = max(logits)
            exps = [math.exp(logit - top) for logit in logits]
            for j, weight in enumerate(exps):
                out[p, h] += weight / sum(exps) * (value_weight @ rows[j, :rank])
    return out.float()


SHAPES = [LatentShape(24, 16, 12), LatentShape(10, 8, 40), LatentShape(32, 8, 8)]


@pytest.mark.parametrize("switch", ["1", "0"], ids=["kernels", "plain torch"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_every_path_equals_loops(
    shape: LatentShape, switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernels.SWITCH, switch)
    attention = attention_of(shape)
    generator = torch.Generator().manual_seed(1)
    heads, rotary = attention.config.num_attention_heads, attention.config.qk_rope_head_dim
    q = torch.randn(1, S, heads, shape.qk_nope_head_dim + rotary, generator=generator)
    rows = torch.randn(1, S, shape.kv_lora_rank + rotary, generator=generator)
    expected = by_loops(attention, q[0], rows[0])
    assert relative_difference(causal(q, *attention.expand(rows))[0], expected) < TOLERANCE
    for few in (0, 1000):  # expanded, absorbed
        monkeypatch.setattr(LatentAttention, "few_queries", few)
        past = tuple(rows[:, a:b] for a, b in ((0, 3), (3, 20)))
        found = attention.attend_to_all(q[:, 20:], past, rows[:, 20:])
        assert relative_difference(found[0], expected[20:]) < TOLERANCE


def test_a_chunk_is_expanded_where_that_is_cheaper() -> None:
    """By FLOPs: of S queries over n rows, with the rows' expansion."""
    for shape in (LatentShape(512, 128, 128), *SHAPES):
        attention = attention_of(shape)
        made, rank, rotary = shape.qk_nope_head_dim + shape.v_head_dim, shape.kv_lora_rank, 8
        for queries in (1, 20, 100, 170, 172, 500):
            absorbed = queries * (2 * rank + rotary)
            expanded = queries * (made + rotary) + rank * made
            assert (queries < attention.few_queries) == (absorbed < expanded)


def test_initial_attention_copies_what_it_attends_to() -> None:
    """One key attended to: what is written is what was read, as in the uncompressed twin."""
    config = replace(LATENT, hidden_size=24, latent=LatentShape(24, 16, 24), layer_types=(MLA,))
    model = LatentTwin(replace(config, num_hash_layers=0))
    weights.initialize(model, seed=0)
    attention = model.model.layers[0].self_attn
    x = torch.randn(1, 1, 24, generator=torch.Generator().manual_seed(0))
    zero = torch.arange(1)
    rotation = Rotation(zero, rope_frequencies(8, 1e4))
    step = Step(zero, zero, rotation, rotation, rope_frequencies(8, 1e4))
    with torch.no_grad():
        written = attention(x, step, attention.new_cache())
    # Two heads, each of gain 1/2: the whole token, since the latent is as wide as the stream.
    torch.testing.assert_close(written, rms_normalize(x, 1e-6), rtol=1e-4, atol=1e-5)


def test_decoding_reads_rows_and_never_expands_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LatentTwin(replace(LATENT, layer_types=(MLA, SLIDING)))
    randomize(model, model.config, seed=0)
    session = session_of(model)
    session.read(random_ids(200).numpy())

    def refused(*_: object) -> None:
        raise AssertionError("expanded")

    monkeypatch.setattr(LatentAttention, "expand", refused)
    session.read([1])
    with pytest.raises(AssertionError, match="expanded"):
        session.read(random_ids(40).numpy())
