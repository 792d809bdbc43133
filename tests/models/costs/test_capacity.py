"""What fits into memory, by hand and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.costs.architecture import Architecture, State
from models.costs.capacity import SPLITS, Cards, Split, fit, parse_size
from models.costs.memory import cache_bytes, total
from models.costs.presets import PRESETS
from models.errors import ModelError

GB = 10**9


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80GB", 80 * GB),
        ("80 GiB", 80 * 2**30),
        ("1.5TB", 1500 * GB),
        ("512MiB", 2**29),
        ("7B", 7),
        ("3KB", 3000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--memory") == size


@pytest.mark.parametrize("text", ["80", "80G", "GB", "-3GB", "eighty GB", "80gb", ""])
def test_a_size_has_a_unit(text: str) -> None:
    with pytest.raises(ModelError, match=r"^--memory: got .*, expected a size with a unit: 80GB"):
        parse_size(text, "--memory")


def test_gqa8_by_hand() -> None:
    """40 GB a card are left. A token takes 249,856 bytes: 160,092 tokens on one card, 640,368 on
    four; with 2 of 8 heads a card, as many."""
    cards, gqa8 = Cards(80 * GB, 160 * GB, 4), PRESETS["gqa8"]
    whole = fit(gqa8, cards, [160092, 160093])
    assert whole.free == 40 * GB
    assert whole.longest == 160092
    assert whole.sequences == {160092: 4, 160093: 0}
    assert fit(gqa8, cards, [160092], split="tokens").sequences == {160092: 4}
    assert fit(gqa8, cards, [1], split="tokens").longest == 640368
    assert fit(gqa8, cards, [1], split="heads").longest == 640368


def test_what_all_heads_share_lies_on_every_card() -> None:
    """Tensor parallelism holds a latent cache once a card, data parallelism once."""
    cards, flash = Cards(80 * GB, 160 * GB, 4), PRESETS["v4-flash"]
    alone, shared = fit(flash, cards, [10**6]), fit(flash, cards, [10**6], split="heads")
    assert alone.sequences[10**6] == 4 * shared.sequences[10**6] > 0
    assert alone.longest == shared.longest


@pytest.mark.parametrize(("kind", "sequences"), [("state", 4), ("tail", 1), ("engram", 1)])
def test_of_states_only_recurrent_ones_have_heads(kind: str, sequences: int) -> None:
    """8,000 bytes: a card of 8,000 holds one, or four of a quarter."""
    architecture = Architecture((), (State(kind, 4, 500, element_bytes=4),))
    cards = Cards(8000, 0, 4)
    assert fit(architecture, cards, [10], split="heads").sequences == {10: sequences}


@given(
    st.sampled_from(sorted(PRESETS)),
    st.integers(1, 200),
    st.integers(1, 8),
    st.sampled_from(SPLITS),
    st.sampled_from([1, 256]),
)
def test_the_longest_fits_and_one_more_token_does_not(
    name: str, free: int, number: int, split: Split, block: int
) -> None:
    cards = Cards(10 * GB + free * GB, 10 * GB * number, number)
    found = fit(PRESETS[name], cards, [1], block=block, split=split)
    longest = found.longest
    assert longest is not None
    one = fit(PRESETS[name], cards, [longest, longest + 1], block=block, split=split).sequences
    assert one[longest] >= 1
    assert one[longest + 1] == 0


@given(st.sampled_from(sorted(PRESETS)), st.integers(1, 10**6))
def test_as_many_as_counted_fit_on_a_card(name: str, length: int) -> None:
    number = fit(PRESETS[name], Cards(50 * GB, 0), [length]).sequences[length]
    size = total(cache_bytes(PRESETS[name], length))
    assert number * size <= 50 * GB < (number + 1) * size


def test_a_state_alone_has_no_longest_sequence() -> None:
    recurrent = Architecture((), (State("state", 4, 1000),))
    assert fit(recurrent, Cards(GB, 0), [10**6]).longest is None
    assert fit(recurrent, Cards(7999, 0), [10]).sequences == {10: 0}


def test_reserved_memory_is_not_free() -> None:
    assert fit(PRESETS["v3"], Cards(10 * GB, GB, 1, 2 * GB), [1]).free == 7 * GB


@pytest.mark.parametrize(
    ("cards", "lengths", "message"),
    [
        (Cards(80 * GB, 160 * GB, 1), [1], r"^weights: 160.0 GB on 1 × 80.0 GB leave noth"),
        (Cards(80 * GB, GB, 0), [1], r"^cards: got 0, expected at least 1$"),
        (Cards(80 * GB, GB), [0], r"^length: got 0, expected at least 1 token$"),
    ],
)
def test_bad_input(cards: Cards, lengths: list[int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fit(PRESETS["v4-pro"], cards, lengths)
