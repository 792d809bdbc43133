"""The cost model against the specification's table, against sessions, and against sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.costs.flops import PUBLISHED, Flops, active_parameters, prefill_flops, token_flops
from models.costs.tables import held_bytes, own_table, table
from models.deepseek_v4.config import PRESETS, V4_FLASH, V4_PRO, DeepseekV4Config, uncompressed
from models.deepseek_v4.dense import DenseTwin
from models.deepseek_v4.model import DeepseekV4
from models.deepseek_v4.session import DeepseekV4Session
from tests.models.small import GATHERED, REAL, random_ids
from tests.sessions import held

# Specification, section 2.2: N, GiB of Pro, Flash, V3.2, GQA8, times smaller P/F,
# GFLOP of Pro, Flash, V3.2, share of V3.2's FLOPs P/F in %.
PRINTED = """
4096    0.023 0.016  0.183 0.95  7.82 11.18 123  33  151 81.3 21.9
32768   0.158 0.110  1.467 7.62  9.30 13.31 128  35  179 71.3 19.7
131072  0.618 0.432  5.868 30.5  9.49 13.58 147  44  278 52.8 15.7
262144  1.233 0.861 11.735 61.0  9.52 13.63 171  55  409 41.9 13.4
524288  2.461 1.719 23.471 122   9.54 13.65 221  77  671 32.9 11.4
1000000 4.690 3.276 44.767 232.7 9.54 13.67 310 117 1146 27.1 10.2
1048576 4.918 3.435 46.941 244   9.55 13.67 319 121 1195 26.7 10.1
"""


def printed_as(value: float, text: str) -> bool:
    """Whether `value` rounds to `text` at the decimals it shows (a half may go either way)."""
    decimals = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10**-decimals + 1e-9


@pytest.mark.parametrize("line", PRINTED.strip().splitlines(), ids=lambda line: line.split()[0])
def test_the_published_table(line: str) -> None:
    length, *printed = line.split()
    pro, flash, v3_2, gqa8 = table([int(length)])
    values = [
        *(row["cache_bytes"] / 2**30 for row in (pro, flash, v3_2, gqa8)),
        *(row["times_smaller"] for row in (pro, flash)),
        *(row["token_flops"] / 1e9 for row in (pro, flash, v3_2)),
        *(100 * row["flops_share"] for row in (pro, flash)),
    ]
    for value, text in zip(values, printed, strict=True):
        assert printed_as(value, text), (value, text)
    assert gqa8["token_flops"] is None


def test_components_at_the_longest_length() -> None:
    """GFLOP of V4-Pro at 2**20: HCA's core dominates."""
    flops = token_flops(V4_PRO, 2**20, PUBLISHED)
    rounded = Flops(*(round(part / 1e9) for part in flops))
    assert rounded == Flops(weights=102, indexer=64, sliding=0, csa=18, hca=135, full=0)


@pytest.mark.parametrize(
    ("config", "printed"),
    [(V4_PRO, ("22.70", "24.18", "1.97")), (V4_FLASH, ("5.86", "6.49", "0.92"))],
)
def test_active_parameters(config: DeepseekV4Config, printed: tuple[str, ...]) -> None:
    active = active_parameters(config)
    counts = (active.fp8, active.fp4, active.bf16 + active.head)
    assert tuple(f"{count / 1e9:.2f}" for count in counts) == printed


@pytest.mark.parametrize("config", [*PRESETS.values(), REAL, uncompressed(REAL)])
def test_active_parameters_are_the_modules_matrices(config: DeepseekV4Config) -> None:
    build = DenseTwin if config == uncompressed(config) else DeepseekV4
    with torch.device("meta"):
        model = build(config)
    total = 0
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or "position_bias" in name or "embed_tokens" in name:
            continue
        share = config.num_experts_per_tok if ".experts." in name else config.n_routed_experts
        total += parameter.numel() * share // config.n_routed_experts
    assert sum(active_parameters(config)) == total


CONFIGS = {
    "all entries": REAL,
    "top 3": replace(GATHERED, hca_ratio=16, sliding_window=20),
    "uncompressed": uncompressed(REAL),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_bytes_equal_those_read_off_a_session(config: DeepseekV4Config) -> None:
    model = (DenseTwin if config == uncompressed(config) else DeepseekV4)(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    session = DeepseekV4Session(model)
    for length in (0, 1, 3, 4, 5, 127, 128, 129, 255, 256, 263):
        session.read(random_ids(length - session.position).numpy())
        kinds = held_bytes(config, length)._asdict()
        assert held(session) == kinds, length


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_bytes_grow_linearly(config: DeepseekV4Config) -> None:
    period = config.hca_ratio * config.csa_ratio
    totals = [held_bytes(config, k * period).total for k in (1, 2, 3, 103)]
    step = totals[1] - totals[0]
    assert [t - totals[0] for t in totals] == [0, step, 2 * step, 102 * step]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_prefill_is_the_sum_of_its_tokens(config: DeepseekV4Config) -> None:
    length = 300
    tokens = [token_flops(config, n) for n in range(1, length + 1)]
    head = 2 * (length - 1) * active_parameters(config).head  # computed for the last token alone
    summed = Flops(*(sum(parts) for parts in zip(*tokens, strict=True)))
    assert prefill_flops(config, length) == summed._replace(weights=summed.weights - head)


def test_full_attention_is_two_heads_dim_n_squared_a_layer() -> None:
    config, n = uncompressed(REAL), 2**20
    expected = 2 * n * n * config.num_attention_heads * config.head_dim * 3
    assert prefill_flops(config, n).full == pytest.approx(expected, rel=2 / n)


def test_own_rows_carry_their_totals() -> None:
    (row,) = own_table({"tiny": REAL}, [4096])
    assert row["cache_bytes"]["total"] == held_bytes(REAL, 4096).total
    assert row["prefill_flops"]["total"] == prefill_flops(REAL, 4096).total


@pytest.mark.parametrize("length", [0, -5])
def test_lengths_below_one(length: int) -> None:
    with pytest.raises(ValueError, match=rf"^lengths: got {length}, expected at least 1 token$"):
        table([length])
