"""Rows for display or JSON: cache bytes and FLOPs of architectures by length.

Builds no model. What a session really holds is read off its tensors (`Usage.cache_bytes`);
a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from models.costs.architecture import Architecture
from models.costs.flops import PUBLISHED as PUBLISHED_WEIGHTING
from models.costs.flops import Flops, prefill_flops, token_flops
from models.costs.layouts import PUBLISHED
from models.costs.memory import cache_bytes, check_lengths, decode_reads, request, total

LENGTHS = (4096, 32768, 131072, 262144, 524288, 10**6, 2**20)


def table(
    architectures: Mapping[str, Architecture],
    lengths: Iterable[int] = LENGTHS,
    layout: str = PUBLISHED,
    block: int = 1,
) -> list[dict[str, Any]]:
    """A row for each length and architecture; the first architecture is the measure of the others.

    Keys: model, length (tokens), cache_bytes (by kind), rows_bytes (without tails and states),
    share (rows_bytes of the first's), decode_reads (bytes by kind), token_flops and prefill_flops
    (by component, all precisions alike), weighted_flops (of one token, FP8-equivalent) and
    weighted_share (of the first's). None: not known.

    Raises:
        ModelError: a length below 1, or a layout or block that does not fit.
    """
    first = next(iter(architectures))
    rows: list[dict[str, Any]] = []
    for length in check_lengths(lengths):
        found = {
            name: _row(name, architecture, length, layout, block)
            for name, architecture in architectures.items()
        }
        for row in found.values():
            row["share"] = _ratio(row["rows_bytes"], found[first]["rows_bytes"])
            row["weighted_share"] = _ratio(row["weighted_flops"], found[first]["weighted_flops"])
            rows.append(row)
    return rows


def _row(
    name: str, architecture: Architecture, length: int, layout: str, block: int
) -> dict[str, Any]:
    held = cache_bytes(architecture, length, layout, block)
    states = {state.kind for state in architecture.states}
    weighted = prefill = token = None
    if architecture.active is not None:
        token = _with_total(token_flops(architecture, length))
        prefill = _with_total(prefill_flops(architecture, length))
        if architecture.has_precisions:
            weighted = token_flops(architecture, length, PUBLISHED_WEIGHTING).total
    return {
        "model": name,
        "length": length,
        "cache_bytes": held,
        "rows_bytes": total({k: v for k, v in held.items() if k not in states}),
        "decode_reads": decode_reads(architecture, length, layout)
        if architecture.reads_known
        else None,
        "token_flops": token,
        "prefill_flops": prefill,
        "weighted_flops": weighted,
    }


def requests(
    architectures: Mapping[str, Architecture], layout: str = PUBLISHED, block: int = 1
) -> list[dict[str, Any]]:
    """A row for each architecture: model, layout, fixed (bytes), slope (bytes a token), notes."""
    return [
        {
            "model": name,
            "layout": architecture.layout if layout == PUBLISHED else layout,
            **request(architecture, layout, block)._asdict(),
            "max_position": architecture.max_position,
            "notes": architecture.notes,
        }
        for name, architecture in architectures.items()
    ]


def _ratio(value: float | None, measure: float | None) -> float | None:
    return None if value is None or not measure else value / measure


def _with_total(flops: Flops) -> dict[str, float]:
    return {**flops._asdict(), "total": flops.total}
