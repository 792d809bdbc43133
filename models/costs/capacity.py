"""How many sequences fit into the memory of some cards, and the longest single one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

from models.costs.architecture import Architecture, Rows, State
from models.costs.layouts import PUBLISHED, find_layout, row_bytes
from models.costs.memory import Request, check_block, check_lengths, request, rows_held
from models.errors import ModelError

Split = Literal["sequences", "heads", "tokens"]
SPLITS = get_args(Split)
UNITS = {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate(("", "K", "M", "G", "T"))
    for suffix, base in (("B", 1000), ("iB", 1024))
    if prefix or suffix == "B"
}


class Cards(NamedTuple):
    """Equal cards: `memory` of each, `weights` of the model on all together, `reserve` of each
    for activations and the engine; bytes."""

    memory: int
    weights: int
    number: int = 1
    reserve: int = 0


class Capacity(NamedTuple):
    """What fits.

    `free`: bytes of a card that are left for caches. `request`: bytes of a sequence, on all cards
    together. `sequences`: how many of each length fit on all cards together. `longest`: tokens of
    the longest single sequence; None where the cache does not grow.
    """

    free: int
    request: Request
    sequences: dict[int, int]
    longest: int | None


def parse_size(text: str, name: str) -> int:
    """Bytes of "80GB" (10^9) or "80GiB" (2^30).

    Raises:
        ModelError: no number, or no unit; `name` is the option in the message.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2] not in UNITS:
        raise ModelError(f"{name}: got {text!r}, expected a size with a unit: 80GB or 80GiB")
    return int(float(match[1]) * UNITS[match[2]])


def fit(
    architecture: Architecture,
    cards: Cards,
    lengths: Sequence[int],
    layout: str = PUBLISHED,
    block: int = 1,
    split: Split = "sequences",
) -> Capacity:
    """How many sequences of each of `lengths` fit, and how long a single one may be.

    Weights are spread evenly over the cards. Caches are spread by `split`:
        sequences: a sequence lies whole on one card (data-parallel attention).
        heads: every card holds its share of the key-value heads of every sequence; what all heads
            share (latents, index keys, tails, Engram) lies on every card (tensor parallelism).
        tokens: a sequence is spread evenly over all cards (context parallelism).

    Raises:
        ModelError: the weights leave nothing free, a length is below 1, or layout or block do not
            fit.
    """
    check_lengths(lengths)
    found = find_layout(architecture, layout)
    check_block(architecture, block)
    if cards.number < 1:
        raise ModelError(f"cards: got {cards.number}, expected at least 1")
    free = cards.memory - -(-cards.weights // cards.number) - cards.reserve
    if free <= 0:
        raise ModelError(
            f"weights: {cards.weights / 1e9:,.1f} GB on {cards.number} × "
            f"{cards.memory / 1e9:,.1f} GB leave nothing for a cache"
        )
    local = _share(architecture, cards.number) if split == "heads" else architecture
    spread = cards.number if split == "tokens" else 1

    def on_a_card(length: int) -> int:
        rows = sum(
            r.layers * rows_held(r, length, block) * row_bytes(found, r.shape) for r in local.rows
        )
        states = sum(s.most * (s.element_bytes or found.element_bytes) for s in local.states)
        return -(-(rows + states) // spread)

    times = cards.number if split == "sequences" else 1
    return Capacity(
        free,
        request(architecture, layout, block),
        {length: times * (free // max(1, on_a_card(length))) for length in lengths},
        _longest(on_a_card, free, architecture),
    )


def _share(architecture: Architecture, cards: int) -> Architecture:
    """What one of the cards holds of every layer, heads divided."""

    def rows(table: Rows) -> Rows:
        if table.shape.role != "key_value":
            return table
        heads = -(-table.shape.heads // cards)
        return replace(table, shape=table.shape._replace(heads=heads))

    def state(kept: State) -> State:
        if kept.kind != "state":  # tails and Engram's ids and rows have no heads
            return kept
        return replace(kept, channels=-(-kept.channels // cards))

    return replace(
        architecture,
        rows=tuple(rows(table) for table in architecture.rows),
        states=tuple(state(kept) for kept in architecture.states),
    )


def _longest(on_a_card: Callable[[int], int], free: int, architecture: Architecture) -> int | None:
    """The most tokens of which `on_a_card` is at most `free`, by bisection."""
    if all(rows.newest is not None for rows in architecture.rows):
        return None if on_a_card(2**62) <= free else _bisect(on_a_card, free, 2**62)
    beyond = 1
    while on_a_card(beyond) <= free:
        beyond *= 2
    return _bisect(on_a_card, free, beyond)


def _bisect(on_a_card: Callable[[int], int], free: int, beyond: int) -> int:
    fits = 0
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        fits, beyond = (middle, beyond) if on_a_card(middle) <= free else (fits, middle)
    return fits
