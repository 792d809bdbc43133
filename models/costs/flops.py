"""FLOPs of a token and of a prompt, by component, for any architecture.

A multiplication and its addition count 2; `Weighting` says how much of an FP8 operation each
precision counts. PUBLISHED reproduces the ratios that DeepSeek printed; it is RECONSTRUCTED from
them, not documented by DeepSeek.
"""

from __future__ import annotations

from typing import NamedTuple

from models.costs.architecture import ActiveParameters, Architecture
from models.costs.memory import rows_read, rows_read_in_prefill
from models.errors import ModelError


class Weighting(NamedTuple):
    """What a multiplication counts, by precision."""

    fp8: float = 1.0
    fp4: float = 1.0
    bf16: float = 2.0
    fp4_index: float = 0.5


PUBLISHED = Weighting()
UNWEIGHTED = Weighting(1.0, 1.0, 1.0, 1.0)


class Flops(NamedTuple):
    """By component; a layer type's share is its attention's core, its window included."""

    weights: float = 0.0
    indexer: float = 0.0
    sliding: float = 0.0
    csa: float = 0.0
    hca: float = 0.0
    full: float = 0.0
    state: float = 0.0

    @property
    def total(self) -> float:
        return sum(self)


def token_flops(
    architecture: Architecture, length: int, weighting: Weighting = UNWEIGHTED
) -> Flops:
    """FLOPs of one more token when the context, itself included, is `length` tokens.

    Raises:
        ModelError: the architecture's weights are not known.
    """
    active = _active(architecture)
    weights = 2 * (
        weighting.fp8 * active.fp8
        + weighting.fp4 * active.fp4
        + weighting.bf16 * (active.bf16 + active.head)
    )
    parts = {"weights": weights, "state": float(_state_flops(architecture))}
    for rows in architecture.rows:
        queries = (rows.readers or rows.layers) * rows_read(rows, length)
        counted = getattr(weighting, rows.precision) * rows.flops * queries
        parts[rows.part] = parts.get(rows.part, 0.0) + counted
    return Flops(**parts)


def prefill_flops(architecture: Architecture, length: int) -> Flops:
    """FLOPs of reading `length` tokens: each over its own past, the head for the last alone.

    What the mathematics needs; an implementation may compute masked products besides.

    Raises:
        ModelError: the architecture's weights are not known.
    """
    active = _active(architecture)
    weights = 2 * (length * (active.fp8 + active.fp4 + active.bf16) + active.head)
    parts = {"weights": float(weights), "state": float(length * _state_flops(architecture))}
    for rows in architecture.rows:
        flops = rows.flops if rows.prefill_flops is None else rows.prefill_flops
        queries = (rows.readers or rows.layers) * rows_read_in_prefill(rows, length)
        parts[rows.part] = parts.get(rows.part, 0.0) + float(flops * queries)
    return Flops(**parts)


def _active(architecture: Architecture) -> ActiveParameters:
    if architecture.active is None:
        raise ModelError("FLOPs: the weights of this model are not known")
    return architecture.active


def _state_flops(architecture: Architecture) -> int:
    return sum(state.layers * state.flops for state in architecture.states)
