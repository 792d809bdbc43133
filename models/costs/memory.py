"""Cache bytes of one sequence by kind: held after a prompt, read by a query, per request.

Bytes by kind are a dictionary: window, csa, index, hca, tail, full, state. `total` adds them up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from models.costs.architecture import Architecture, Rows
from models.costs.layouts import PUBLISHED, Layout, find_layout, row_bytes
from models.errors import ModelError


class Request(NamedTuple):
    """Bytes of one sequence of N tokens: `fixed` + N x `slope`, at most.

    It is exact where N is past every window and fills every row; pages add less than one block.
    """

    fixed: int
    slope: float


def total(by_kind: Mapping[str, int]) -> int:
    """Bytes of all kinds together."""
    return sum(by_kind.values())


def cache_bytes(
    architecture: Architecture, length: int, layout: str = PUBLISHED, block: int = 1
) -> dict[str, int]:
    """Bytes that a sequence of `length` tokens holds.

    Args:
        layout: a name of `layouts.LAYOUTS`, or "published" for the architecture's own.
        block: tokens of a page; each table takes whole pages. A window takes the pages that can
            hold it wherever its first token stands in a page.

    Raises:
        ModelError: the layout or the block does not fit the architecture.
    """
    return held(architecture, length, find_layout(architecture, layout), block)


def held(architecture: Architecture, length: int, layout: Layout, block: int = 1) -> dict[str, int]:
    """As `cache_bytes`, for a layout that fits."""
    check_block(architecture, block)
    found: dict[str, int] = {}
    for rows in architecture.rows:
        size = rows.layers * rows_held(rows, length, block) * row_bytes(layout, rows.shape)
        found[rows.kind] = found.get(rows.kind, 0) + size
    for state in architecture.states:
        size = state.held(length) * (state.element_bytes or layout.element_bytes)
        found[state.kind] = found.get(state.kind, 0) + size
    return found


def request(architecture: Architecture, layout: str = PUBLISHED, block: int = 1) -> Request:
    """What a request costs at any length: a fixed part and bytes a token. Raises as `cache_bytes`.

    The fixed part is full windows and the largest states.
    """
    found = find_layout(architecture, layout)
    check_block(architecture, block)
    fixed, slope = 0, 0.0
    for rows in architecture.rows:
        size = rows.layers * row_bytes(found, rows.shape)
        if rows.newest is None:
            slope += size / rows.per
        else:
            fixed += size * window_rows(rows.newest, block)
    for state in architecture.states:
        fixed += state.most * (state.element_bytes or found.element_bytes)
    return Request(fixed, slope)


def decode_reads(
    architecture: Architecture, length: int, layout: str = PUBLISHED
) -> dict[str, int]:
    """Cache bytes that one query at a context of `length` tokens reads. Raises as `cache_bytes`.

    Tails are left out: no query attends to them.
    """
    found = find_layout(architecture, layout)
    read: dict[str, int] = {}
    for rows in architecture.rows:
        size = (rows.readers or rows.layers) * rows_read(rows, length)
        read[rows.kind] = read.get(rows.kind, 0) + size * row_bytes(found, rows.shape)
    for state in architecture.states:
        if state.kind == "state":
            size = state.held(length) * (state.element_bytes or found.element_bytes)
            read[state.kind] = read.get(state.kind, 0) + size
    return read


def check_lengths(lengths: Iterable[int]) -> list[int]:
    """The lengths. Raises ModelError for one below 1."""
    checked = list(lengths)
    for length in checked:
        if length < 1:
            raise ModelError(f"length: got {length}, expected at least 1 token")
    return checked


def check_block(architecture: Architecture, block: int) -> None:
    """Raises ModelError unless pages of `block` tokens hold whole rows."""
    if block < 1:
        raise ModelError(f"block: got {block}, expected at least 1 token")
    for rows in architecture.rows:
        if block > 1 and block % rows.per:
            raise ModelError(
                f"block: got {block}, expected a multiple of {rows.per}: "
                f"a row of this model stands for {rows.per} tokens"
            )


def rows_held(rows: Rows, length: int, block: int = 1) -> int:
    """Rows of one layer after `length` tokens."""
    tokens = length if block == 1 else block * -(-length // block)
    if rows.newest is not None:
        tokens = min(tokens, window_rows(rows.newest, block))
    return tokens // rows.per


def window_rows(newest: int, block: int) -> int:
    """The most rows of a window in pages: its first token may be the last of a page."""
    return newest if block == 1 else block * (1 + -(-(newest - 1) // block))


def rows_read(rows: Rows, length: int) -> int:
    """Rows of one layer that a query at a context of `length` tokens, itself included, reads."""
    return min(min(length, window(rows, length)) // rows.per, limit(rows, length))


def rows_read_in_prefill(rows: Rows, length: int) -> int:
    """The sum of `rows_read` over contexts of 1 to `length` tokens."""
    most = min(limit(rows, length), window(rows, length) // rows.per)
    growing = min(length, rows.per * most)  # contexts whose rows are fewer than `most`, or just so
    blocks, rest = divmod(growing, rows.per)
    return rows.per * blocks * (blocks - 1) // 2 + blocks * (rest + 1) + most * (length - growing)


def window(rows: Rows, length: int) -> int:
    """Tokens that a query sees at most."""
    if rows.newest is None:
        return length
    return rows.newest if rows.seen is None else rows.seen


def limit(rows: Rows, length: int) -> int:
    """Rows that a query reads at most."""
    return length if rows.reads is None else rows.reads
