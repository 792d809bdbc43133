"""The costs of DeepSeek-V4, against the specification's table, modules, sessions and sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.costs.deepseek_v4 import active_parameters, held_bytes, published, session
from models.costs.flops import PUBLISHED, Flops, prefill_flops, token_flops
from models.costs.memory import cache_bytes, total
from models.costs.presets import PRESETS
from models.costs.tables import table
from models.deepseek_v4 import config as configs
from models.deepseek_v4.cache import Rows
from models.deepseek_v4.config import V4_FLASH, V4_PRO, DeepseekV4Config, uncompressed
from models.deepseek_v4.loading import build
from models.deepseek_v4.session import DeepseekV4Session
from models.registry import configuration
from tests.models.small import ENGRAM, GATHERED, LATENT, REAL, random_ids
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
    """Whether `value` rounds to `text` at the decimals it shows. A half may go either way, and by
    a hundredth more: the specification rounds V3.2's weights to 36.42 and 1.06 G."""
    decimals = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.505 * 10**-decimals


def test_what_engram_holds_is_state_and_no_cache() -> None:
    plain, beside = table(
        {"plain": session(replace(ENGRAM, engram=None)), "a": session(ENGRAM)}, [1024]
    )
    assert beside["rows_bytes"] == plain["rows_bytes"]
    assert total(beside["cache_bytes"]) > total(plain["cache_bytes"])


@pytest.mark.parametrize("line", PRINTED.strip().splitlines(), ids=lambda line: line.split()[0])
def test_the_published_table(line: str) -> None:
    length, *printed = line.split()
    shown = {name: PRESETS[name] for name in ("v3.2", "v4-pro", "v4-flash", "gqa8")}
    v3_2, pro, flash, gqa8 = table(shown, [int(length)])
    values = [
        *(row["rows_bytes"] / 2**30 for row in (pro, flash, v3_2, gqa8)),
        *(1 / row["share"] for row in (pro, flash)),
        *(row["weighted_flops"] / 1e9 for row in (pro, flash, v3_2)),
        *(100 * row["weighted_share"] for row in (pro, flash)),
    ]
    for value, text in zip(values, printed, strict=True):
        assert printed_as(value, text), (value, text)
    assert gqa8["weighted_flops"] is None


def test_components_at_the_longest_length() -> None:
    """GFLOP of V4-Pro at 2**20: HCA's core dominates."""
    flops = token_flops(PRESETS["v4-pro"], 2**20, PUBLISHED)
    rounded = Flops(*(round(part / 1e9) for part in flops))
    assert rounded == Flops(weights=102, indexer=64, sliding=0, csa=18, hca=135, full=0)


@pytest.mark.parametrize(("name", "megabytes"), [("v4-pro", 18.7), ("v4-flash", 12.2)])
def test_compressors_keep_buffers_of_constant_size(name: str, megabytes: float) -> None:
    """Specification, section 2.1: 64 and 16 KiB a CSA layer, 512 KiB an HCA layer."""
    tails = {cache_bytes(PRESETS[name], length)["tail"] for length in (1, 129, 10**6)}
    assert len(tails) == 1
    assert printed_as(tails.pop() / 1e6, str(megabytes))


@pytest.mark.parametrize(
    ("config", "printed"),
    [(V4_PRO, ("22.70", "24.18", "1.97")), (V4_FLASH, ("5.86", "6.49", "0.92"))],
)
def test_active_parameters(config: DeepseekV4Config, printed: tuple[str, ...]) -> None:
    active = active_parameters(config)
    counts = (active.fp8, active.fp4, active.bf16 + active.head)
    assert tuple(f"{count / 1e9:.2f}" for count in counts) == printed


def test_active_parameters_of_v3_2() -> None:
    """Specification, section 2.3."""
    active = PRESETS["v3.2"].active
    assert active is not None
    assert f"{active.fp8 / 1e9:.2f}" == "36.42"
    assert f"{(active.bf16 + active.head) / 1e9:.2f}" == "1.06"


@pytest.mark.parametrize(
    "config", [*configs.PRESETS.values(), REAL, uncompressed(REAL), LATENT, ENGRAM]
)
def test_active_parameters_are_the_modules_matrices(config: DeepseekV4Config) -> None:
    with torch.device("meta"):
        model = build(config)
    counted = 0
    for name, parameter in model.named_parameters():
        looked_up = any(part in name for part in ("position_bias", "embed_tokens", "engram.table"))
        if parameter.ndim < 2 or looked_up or "engram.conv" in name:
            continue
        share = config.num_experts_per_tok if ".experts." in name else config.n_routed_experts
        counted += parameter.numel() * share // config.n_routed_experts
    assert sum(active_parameters(config)) == counted


CONFIGS = {
    "all entries": REAL,
    "top 3": replace(GATHERED, hca_ratio=16, sliding_window=20),
    "uncompressed": uncompressed(REAL),
    "latent": LATENT,
    "n-grams": ENGRAM,
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_bytes_equal_those_of_a_session(config: DeepseekV4Config) -> None:
    model = build(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    session = DeepseekV4Session(model)
    for length in (0, 1, 3, 4, 5, 127, 128, 129, 255, 256, 263, 1024, 4096):
        session.read(random_ids(length - session.position).numpy())
        expected = held_bytes(config, length)
        for kind, found in held(session).items():
            grows = kind not in ("window", "tail")
            unused = expected[kind] // Rows.SHARE + UNUSED if grows else 0
            assert expected[kind] <= found <= expected[kind] + unused, (length, kind)
            if length in (1024, 4096):  # multiples of 8 rows in every table: none is unused
                assert found == expected[kind], kind


UNUSED = REAL.num_hidden_layers * Rows.STEP * REAL.head_dim * 4


@pytest.mark.parametrize(
    ("length", "compressed", "dense"), [(4096, 963328, 3210752), (8192, 1757952, 6356480)]
)
def test_bytes_of_the_nano_pair(length: int, compressed: int, dense: int) -> None:
    """By hand. Five layers hold 127 rows of 64 channels, two CSA layers length/4 rows of 64 and 32
    and 8 tail channels of each, one HCA layer length/128 rows of 64; the twin's three global
    layers hold every row. Four bytes a channel."""
    windows = 127 * 64 * 4
    assert compressed == 5 * windows + 4 * (2 * (length // 4 * 96 + 8 * 96) + length // 128 * 64)
    assert dense == 2 * windows + 3 * length * 64 * 4
    assert total(held_bytes(configuration("nano-v4"), length)) == compressed
    assert total(held_bytes(configuration("nano-dense"), length)) == dense
    half = held_bytes(configuration("nano-v4"), length, element_bytes=2)
    tails = 4 * 2 * 8 * 96  # in fp32 whatever the type
    assert 2 * (total(half) - tails) == compressed - tails


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_bytes_grow_linearly(config: DeepseekV4Config) -> None:
    period = config.hca_ratio * config.csa_ratio
    totals = [total(held_bytes(config, k * period)) for k in (1, 2, 3, 103)]
    step = totals[1] - totals[0]
    assert [t - totals[0] for t in totals] == [0, step, 2 * step, 102 * step]


@pytest.mark.parametrize("name", ["all entries", "top 3", "uncompressed"])
def test_prefill_is_the_sum_of_its_tokens(name: str) -> None:
    """But where prefill computes otherwise than decoding (MLA)."""
    config = CONFIGS[name]
    length, architecture = 300, session(config)
    tokens = [token_flops(architecture, n) for n in range(1, length + 1)]
    head = 2 * (length - 1) * active_parameters(config).head  # computed for the last token alone
    summed = Flops(*(sum(parts) for parts in zip(*tokens, strict=True)))
    assert prefill_flops(architecture, length) == summed._replace(weights=summed.weights - head)


def test_full_attention_is_two_heads_dim_n_squared_a_layer() -> None:
    config, n = uncompressed(REAL), 2**20
    expected = 2 * n * n * config.num_attention_heads * config.head_dim * 3
    assert prefill_flops(published(config), n).full == pytest.approx(expected, rel=2 / n)
