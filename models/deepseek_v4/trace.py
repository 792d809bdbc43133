"""Did the indexer select what an answer needed? Ranks of the entries that hold one token.

A missed needle was lost by selection if no CSA layer took an entry with the token that was
wanted, and by compression if one did.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.protocols import Selection


@dataclass
class Watch:
    """Set on a CSA layer's cache while the query of interest passes."""

    layer: int
    token: int
    k: int
    seen: Selection | None = None

    def record(self, scores: Tensor, ratio: int) -> None:
        """scores [1, 1, n] of the entries visible to the one query; `ratio` tokens an entry.

        An entry covers its own `ratio` tokens and those before them (section 2.3.1), so a token
        is in two. Of equal scores the earlier entry ranks first, as for `select`.
        """
        row = scores.flatten()
        order = torch.sort(row, descending=True, stable=True).indices
        own = self.token // ratio
        (places,) = ((order == own) | (order == own + 1)).nonzero(as_tuple=True)
        if len(places):
            rank = int(places[0])
            self.seen = Selection(self.layer, rank, len(row), rank < self.k)
