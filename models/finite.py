"""Raises an error where a model computes NaN or infinity: its answers would read as forgetting."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from models.errors import NonFiniteError


def require_finite(values: Tensor, before: int) -> None:
    """Check states or logits [S, X] of the S tokens that follow `before` others.

    Raises:
        NonFiniteError: it names the earliest token whose values are not finite. Where many tokens
            are computed at once, NaN may reach those before its own: a masked product is one too.
    """
    if math.isfinite(float(values.sum())):  # one pass, as NaN and infinity stay in a sum
        return
    wrong = (~values.isfinite()).any(-1).nonzero()
    if len(wrong):  # else finite values had an infinite sum
        raise NonFiniteError(before + int(wrong[0]) + 1)


def require_finite_entries(entries: Tensor, before: int, ratio: int) -> None:
    """Check entries [n, C] of `ratio` tokens each, which follow `before` others.

    Raises:
        NonFiniteError: it names the token that closes the earliest entry that is not finite.
    """
    try:
        require_finite(entries, before)
    except NonFiniteError as error:
        raise NonFiniteError(error.token * ratio) from None


def require_finite_index(parts: Iterable[Tensor], before: int) -> None:
    """Check what an indexer makes of S tokens, each [1, S, ...], that follow `before` others.

    No output depends on it but by what is selected: NaN there would never be seen in logits.
    Raises as `require_finite`.
    """
    for part in parts:
        require_finite(part[0].flatten(1), before)
