"""Raises an error where a model computes NaN or infinity: its answers would read as forgetting."""

from __future__ import annotations

import math

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
