"""Bytes held, read and per request, as properties of any architecture."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.costs.architecture import Architecture, Rows, Shape
from models.costs.memory import (
    cache_bytes,
    decode_reads,
    request,
    rows_held,
    rows_read,
    rows_read_in_prefill,
    total,
)
from models.costs.presets import PRESETS
from models.errors import ModelError

LENGTHS = st.integers(1, 5000)
ROWS = st.one_of(
    st.builds(
        Rows,
        kind=st.just("full"),
        part=st.just("full"),
        layers=st.integers(1, 3),
        shape=st.just(Shape("latent", 3, 1)),
        flops=st.just(2),
        per=st.integers(1, 7),
        reads=st.none() | st.integers(1, 40),
    ),
    st.builds(
        Rows,
        kind=st.just("window"),
        part=st.just("sliding"),
        layers=st.integers(1, 3),
        shape=st.just(Shape("key_value", 4, heads=2)),
        flops=st.just(2),
        newest=st.integers(1, 300),
    ),
)


@given(ROWS, st.integers(1, 400))
def test_prefill_reads_what_its_queries_read(rows: Rows, length: int) -> None:
    assert rows_read_in_prefill(rows, length) == sum(
        rows_read(rows, n) for n in range(1, length + 1)
    )


@given(st.lists(ROWS, min_size=1, max_size=3), LENGTHS)
def test_a_request_bounds_what_is_held_and_is_reached(tables: list[Rows], length: int) -> None:
    architecture = Architecture(tuple(tables))
    fixed, slope = request(architecture)
    assert total(cache_bytes(architecture, length)) <= fixed + slope * length + 1e-6
    long = 420 * length + 420 * 300  # past every window, a multiple of every `per`
    assert total(cache_bytes(architecture, long)) == pytest.approx(fixed + slope * long)


@given(st.sampled_from(sorted(PRESETS)), LENGTHS, st.sampled_from([1, 2, 4]))
def test_pages_add_less_than_a_page(name: str, length: int, times: int) -> None:
    architecture, block = PRESETS[name], 128 * times
    plain, paged = cache_bytes(architecture, length), cache_bytes(architecture, length, block=block)
    for kind, size in plain.items():
        assert paged[kind] >= size
    up = block * -(-length // block)
    grown = {k: v for k, v in cache_bytes(architecture, up).items() if k != "window"}
    assert {k: v for k, v in paged.items() if k != "window"} == grown


def test_a_window_takes_the_pages_that_it_may_touch() -> None:
    """A window of 128 in pages of 64 begins anywhere in a page: it touches three."""
    rows = Rows("window", "sliding", 1, Shape("latent", 448, 64), 1, newest=128)
    assert rows_held(rows, 10**6, block=64) == 192
    assert rows_held(rows, 65, block=64) == 128
    aligned = Rows("window", "sliding", 1, Shape("latent", 448, 64), 1, newest=129)
    assert rows_held(aligned, 10**6, block=64) == 192


def test_a_page_holds_whole_rows() -> None:
    with pytest.raises(ModelError, match=r"^block: got 64, expected a multiple of 128: a row"):
        cache_bytes(PRESETS["v4-pro"], 1000, block=64)
    with pytest.raises(ModelError, match=r"^block: got 0, expected at least 1 token$"):
        cache_bytes(PRESETS["gqa8"], 1000, block=0)


def test_a_query_reads_selected_rows_and_all_index_keys() -> None:
    """V4-Flash at 1M, by hand: 21 CSA layers read 512 of 262,144 entries and score every key."""
    read = decode_reads(PRESETS["v4-flash"], 2**20)
    assert read == {
        "window": 43 * 128 * 584,
        "csa": 584 * 21 * 512,
        "index": 68 * 21 * 262144,
        "hca": 584 * 20 * 8192,
    }


@pytest.mark.parametrize(
    ("name", "layout", "slope"),
    [
        ("v4-flash", "published", 3514.25),
        ("v4.1-flash", "published", 890),
        ("v3.2", "published", 61 * (656 + 132)),
        ("v3", "published", 70272),
        ("gqa8", "published", 61 * 4096),
        ("v4-flash", "v4-fp8-index", 21 / 4 * (584 + 132) + 20 / 128 * 584),
        ("v4-flash", "nvfp4", 21 / 4 * (384 + 68) + 20 / 128 * 384),
    ],
)
def test_bytes_a_token(name: str, layout: str, slope: float) -> None:
    assert request(PRESETS[name], layout).slope == slope
