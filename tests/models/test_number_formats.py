"""Bytes, rounding and errors of the formats, against the specification and plain references."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models import kernels, number_formats
from models.costs.architecture import Shape
from models.costs.deepseek_v4 import STORED
from models.costs.layouts import LAYOUTS
from models.errors import ModelError
from models.number_formats import (
    E2M1_VALUES,
    FULL,
    PUBLISHED,
    WORDS,
    CacheFormat,
    PowerOfTwo,
    RotatedFp4,
    RowFormat,
    cache_format,
    rotated,
)

V4 = (448, 64, 128)
"""Channels without and with rotary embedding, and of an index key."""
NANO = (48, 16, 32)
ROUNDED = [word for word in (*WORDS, PUBLISHED) if word != FULL]


def of_width(word: str, widths: tuple[int, int, int]) -> CacheFormat:
    return cache_format(word, *widths, published=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def round_trip(form: RowFormat, rows: Tensor) -> Tensor:
    found = form.decode(form.encode(rows))
    return rotated(found) if isinstance(form, RotatedFp4) else found  # its own inverse


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, as a share of the wanted numbers'."""
    return float((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())


@pytest.mark.parametrize("widths", [V4, NANO], ids=["V4", "nano"])
@pytest.mark.parametrize("word", ROUNDED)
def test_a_rows_bytes_are_those_of_its_layout(word: str, widths: tuple[int, int, int]) -> None:
    plain, rotary, index = widths
    form, layout = of_width(word, widths), LAYOUTS[STORED.get(word, word)]
    entries = form.entry.encode(normal(3, plain + rotary))
    keys = form.index.encode(normal(3, index))
    assert entries.nbytes == 3 * (layout.row_bytes(Shape("latent", plain, rotary)) or 0)
    assert keys.nbytes == 3 * (layout.row_bytes(Shape("index", index)) or 0)


def test_published_sizes() -> None:
    published, nvfp4 = of_width(PUBLISHED, V4), of_width("nvfp4", V4)
    assert published.entry.encode(normal(1, 512)).nbytes == 584
    assert published.index.encode(normal(1, 128)).nbytes == 68
    assert nvfp4.entry.encode(normal(1, 512)).nbytes == 384


def test_errors_of_the_published_formats_are_the_specifications() -> None:
    """0.0266 for e4m3 and 0.115 for FP4, on normal numbers; rotary channels are in bf16."""
    rows, form = normal(4096, 512), of_width(PUBLISHED, V4)
    plain = (round_trip(form.entry, rows)[:, :448], rows[:, :448])
    assert relative_error(*plain) == pytest.approx(0.0266, rel=0.01)
    turned = round_trip(form.entry, rows)[:, 448:]
    assert torch.equal(turned, rows[:, 448:].bfloat16().float())
    keys = normal(8192, 128)
    assert relative_error(round_trip(form.index, keys), keys) == pytest.approx(0.115, rel=0.01)


@pytest.mark.parametrize("word", ROUNDED)
def test_a_rows_code_depends_on_the_row_alone(word: str) -> None:
    form, rows = of_width(word, NANO).entry, normal(50, 64)
    whole = form.encode(rows)
    assert torch.equal(torch.cat([form.encode(row[None]) for row in rows]), whole)
    assert torch.equal(form.decode(whole)[17:23], form.decode(whole[17:23]))
    assert torch.equal(form.encode(rows.double()), whole)
    assert torch.equal(form.encode(rows.view(2, 25, 64)).flatten(0, 1), whole)


@pytest.mark.parametrize("word", [FULL, *ROUNDED])
def test_gradients_pass_a_rounding_by(word: str) -> None:
    form = of_width(word, NANO)
    rows = normal(5, 64).requires_grad_()
    read, wanted = number_formats.rounded(rows, form.entry), normal(5, 64)
    torch.testing.assert_close(read.detach(), round_trip(form.entry, rows.detach()))
    (read * wanted).sum().backward()
    assert rows.grad is not None
    assert torch.equal(rows.grad, wanted)


def test_rounded_queries_meet_rounded_keys_as_stored_ones_do() -> None:
    """Both are turned back from the rotation, which no product of the two can tell."""
    form, queries, keys = of_width(PUBLISHED, NANO), normal(7, 32), normal(9, 32)
    stored = form.index.decode(form.index.encode(keys))
    expected = form.index_queries(queries) @ stored.T
    turned_back = number_formats.rounded(keys, form.index)
    torch.testing.assert_close(form.rounded_queries(queries) @ turned_back.T, expected)
    assert relative_error(turned_back, keys) == pytest.approx(0.115, rel=0.2)


@pytest.mark.parametrize("word", ROUNDED)
def test_numbers_are_rounded_and_zeros_kept(word: str) -> None:
    """Two public ports of V4's FP8 left the rounding out: every number came back as it was."""
    form, rows = of_width(word, NANO).entry, normal(500, 64)
    changed = round_trip(form, rows) != rows
    assert changed.float().mean() > 0.9
    assert not round_trip(form, torch.zeros(2, 64)).any()
    assert torch.equal(round_trip(form, torch.full((1, 64), -1.5)), torch.full((1, 64), -1.5))


def codes_of(word: str, channels: int) -> list[int]:
    """How many different numbers a channel of a block takes at most."""
    section = of_width(word, (channels, 2, 16)).entry
    assert isinstance(section, number_formats.Packed)
    rows = torch.linspace(-1, 1, 4096)[:, None].repeat(1, channels + 2)
    rows[:, 0], rows[:, 1] = -1.0, 1.0  # every row has the same scale
    return [len(round_trip(section, rows)[:, channel].unique()) for channel in (2, 3)]


@pytest.mark.parametrize(
    ("word", "count"), [("int8", 256), ("int4", 16), ("int2", 4), ("nvfp4", 15)]
)
def test_as_many_numbers_as_the_bits_allow(word: str, count: int) -> None:
    assert codes_of(word, 16) == [count, count]


def test_e2m1_takes_the_nearest_and_of_two_the_even_code() -> None:
    grid = torch.linspace(-6, 6, 4801)  # steps of 1/400: every midpoint is among them
    grid = (grid * 400).round() / 400
    values = torch.tensor(E2M1_VALUES)
    for x, code in zip(grid.tolist(), number_formats.e2m1(grid).tolist(), strict=True):
        distance = (values - abs(x)).abs()
        nearest = [i for i in range(8) if float(distance[i]) <= float(distance.min()) + 1e-6]
        wanted = nearest[0] if len(nearest) == 1 else next(i for i in nearest if i % 2 == 0)
        assert code == wanted + 8 * (math.copysign(1, x) < 0)


@given(st.floats(2.0**-120, 2.0**120))
def test_ue8m0_is_the_least_power_of_two_from_the_wanted_one_up(wanted: float) -> None:
    wanted = float(torch.tensor(wanted))
    code = PowerOfTwo().encode(torch.tensor([wanted]))
    found = float(PowerOfTwo().decode(code))
    assert found / 2 < wanted <= found
    assert math.frexp(found)[0] == 0.5


@given(st.integers(1, 8), st.sampled_from([8, 4, 2]), st.integers(1, 70), st.integers(0, 99))
def test_integers_are_off_by_half_a_step_at_most(
    rows: int, bits: int, channels: int, seed: int
) -> None:
    form = number_formats.integer_row(bits, channels)
    x = normal(rows, channels, seed=seed)
    blocks = number_formats.in_blocks(x, 32)
    step = (blocks.amax(-1) - blocks.amin(-1)) / (2**bits - 1)
    allowed = number_formats.over_channels(step, 32, channels) / 2 + 4e-3  # float16 pairs
    assert ((round_trip(form, x) - x).abs() <= allowed).all()


def test_large_numbers_stay_numbers() -> None:
    for word in ROUNDED:
        for number in (1e30, -1e30, -3e5):
            found = round_trip(of_width(word, NANO).entry, torch.full((1, 64), number))
            assert torch.isfinite(found).all(), word
    for bits, number in product((8, 4, 2), (1e30, -1e30, -3e5)):
        form = number_formats.integer_row(bits, 64)
        assert torch.isfinite(round_trip(form, torch.full((1, 64), number))).all(), bits


def test_the_rotation_is_orthogonal() -> None:
    x = normal(5, 128)
    assert torch.allclose(rotated(rotated(x)), x, atol=1e-5)
    spike = torch.zeros(1, 128)
    spike[0, 9] = 1.0
    assert torch.allclose(rotated(spike).abs(), torch.full((1, 128), 128**-0.5))


def test_refusals() -> None:
    with pytest.raises(
        ModelError, match=r"^options.cache: got 'fp4', expected one of full, bf16, fp8, .*nvfp4$"
    ):
        cache_format("fp4", 48, 16)
    with pytest.raises(ModelError, match=r"^options.cache: got 'published', expected one of full"):
        cache_format("published", 48, 16)
    with pytest.raises(ModelError, match=r"^options.cache: got 'nvfp4', but FP4 index keys need"):
        cache_format("nvfp4", 48, 16, 24)


@pytest.mark.parametrize("widths", [V4, NANO], ids=["V4", "nano"])
@pytest.mark.parametrize("word", ROUNDED)
def test_kernels_decode_as_torch_does(
    word: str, widths: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    form = of_width(word, widths)
    rows = 10 * normal(1, 300, sum(widths[:2])) ** 3
    keys = 10 * normal(1, 300, widths[2]) ** 3
    with torch.no_grad():
        for each, x in ((form.entry, rows), (form.index, keys)):
            stored = each.encode(x)
            monkeypatch.setenv(kernels.SWITCH, "1")
            fast = each.decode(stored)
            monkeypatch.setenv(kernels.SWITCH, "0")
            assert torch.equal(each.decode(stored), fast)


@given(st.integers(1, 40), st.sampled_from([8, 4, 2]), st.integers(0, 9))
def test_any_number_of_channels_is_decoded(channels: int, bits: int, seed: int) -> None:
    """Rows whose last byte is not full, too."""
    form = number_formats.integer_row(bits, channels)
    rows = normal(3, channels, seed=seed)
    stored, plain = form.encode(rows), round_trip(form, rows)
    with torch.no_grad():
        assert torch.equal(form.decode(stored), plain)
