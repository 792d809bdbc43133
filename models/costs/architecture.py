"""Describes what a model keeps of a context and multiplies per token, in the terms of any cache.

An architecture is a list of tables of rows (`Rows`), a list of states of constant size (`State`),
and the weights that one token multiplies with (`ActiveParameters`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Role = Literal["key_value", "latent", "index"]
Precision = Literal["fp8", "fp4", "bf16", "fp4_index"]


class Shape(NamedTuple):
    """The channels of one row.

    `key_value`: keys and values of `heads` heads, `plain` channels a head, both together.
    `latent`: one vector that all heads share, `rotary` of its channels apart (MLA, DeepSeek-V4).
    `index`: a key of a lightning indexer.
    """

    role: Role
    plain: int
    rotary: int = 0
    heads: int = 1

    @property
    def channels(self) -> int:
        return self.heads * (self.plain + self.rotary)


@dataclass(frozen=True)
class Rows:
    """Equal tables of rows in `layers` layers: a row stands for `per` tokens.

    Attributes:
        kind: of cache bytes (window, csa, index, hca, full).
        part: of FLOPs (indexer, sliding, csa, hca, full).
        flops: of one query and one row, in one layer; a multiplication and its addition count 2.
        prefill_flops: the same in prefill where that differs (MLA expands its rows there).
        newest: the table keeps the rows of so many newest tokens; None: of all tokens.
        seen: tokens of a window that a query sees, itself included; None: `newest`.
        reads: a query reads at most so many rows; None: all.
        readers: layers that read the tables; None: `layers`, each its own.
        precision: what `flops` are computed in, where a weighting counts by precision.
    """

    kind: str
    part: str
    layers: int
    shape: Shape
    flops: int
    prefill_flops: int | None = None
    per: int = 1
    newest: int | None = None
    seen: int | None = None
    reads: int | None = None
    readers: int | None = None
    precision: Precision = "bf16"


@dataclass(frozen=True)
class State:
    """Memory that does not grow with the context, in `layers` layers.

    Attributes:
        kind: of cache bytes (tail, state, engram).
        channels: held from the first token on.
        pending: channels of each token that does not fill a row of `per` tokens yet.
        element_bytes: of a channel; None: as the layout has it.
        flops: of one token in one layer.
    """

    kind: str
    layers: int
    channels: int
    pending: int = 0
    per: int = 1
    element_bytes: int | None = None
    flops: int = 0

    def held(self, length: int) -> int:
        """Channels in all layers after `length` tokens."""
        return self.layers * (self.channels + self.pending * (length % self.per)) if length else 0

    @property
    def most(self) -> int:
        """The most channels that are ever held."""
        return self.layers * (self.channels + self.pending * (self.per - 1))


class ActiveParameters(NamedTuple):
    """Weights that one token multiplies with, by the precision they are published in."""

    fp8: int = 0
    fp4: int = 0
    bf16: int = 0
    head: int = 0  # bf16 too; prefill needs it for the last token alone


@dataclass(frozen=True)
class Architecture:
    """A model by what it keeps and multiplies.

    Attributes:
        active: None where the weights are not known: then FLOPs are not known.
        layout: the name of the layout in which its cache is published, or kept by default.
        has_precisions: `active` tells published precisions apart, so that a weighting applies.
        reads_known: `Rows.reads` and `Rows.readers` are what a query really reads.
        max_position: tokens that the model is made for; None: not known.
        notes: what the figures leave out.
    """

    rows: tuple[Rows, ...]
    states: tuple[State, ...] = ()
    active: ActiveParameters | None = None
    layout: str = "bf16"
    has_precisions: bool = False
    reads_known: bool = True
    max_position: int | None = None
    notes: tuple[str, ...] = ()
