"""Did the indexer select what an answer needed? Ranks of the entries that hold one token.

A missed needle was lost by selection if no layer that selects took an entry with the token that
was wanted, and by compression if one did.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.protocols import Selection


@dataclass
class Watch:
    """Set on the cache of a layer that selects while the query of interest passes."""

    layer: int
    token: int
    k: int
    seen: Selection | None = None

    def record(self, scores: Tensor, first: int, last: int) -> None:
        """scores [1, 1, n] of what is visible to the one query; first .. last hold the token.

        Of equal scores the earlier entry ranks first, as for `select`.
        """
        row = scores.flatten()
        order = torch.sort(row, descending=True, stable=True).indices
        (places,) = ((order >= first) & (order <= last)).nonzero(as_tuple=True)
        if len(places):
            rank = int(places[0])
            self.seen = Selection(self.layer, rank, len(row), rank < self.k)
