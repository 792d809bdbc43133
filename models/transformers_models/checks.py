"""Whether a model's answers depend on how a prompt is split into calls, tried on a short text.

Models that keep their state where no cache reaches it (RWKV) or attend to later tokens (BERT) would
forget or mix up the text between calls without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from models.protocols import TokenIds

LENGTH = 96
PIECES = (41, 1, 1, 13, 40)  # a long piece, single tokens, and pieces of no round size
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}
"""Relative differences of logits that rounding explains, in most positions."""


class Scorer(Protocol):
    """What the check needs of a session."""

    def score(self, ids: TokenIds) -> Tensor: ...
    def fork(self) -> Scorer: ...


def split_fault(
    begin: Callable[[], Scorer], vocab_size: int, limit: int | None, dtype: torch.dtype
) -> str | None:
    """What is wrong with sessions of a model, in words that follow its name; None if nothing is.

    A text of random tokens is read whole, and in pieces with a fork in between that reads
    something else. Where most positions' logits differ by more than rounding, it is a fault.
    """
    length = LENGTH if limit is None else min(LENGTH, limit)
    ids = torch.randint(vocab_size, (length,), generator=torch.Generator().manual_seed(0)).numpy()
    try:
        whole = begin().score(ids)
        session, parts, start = begin(), [], 0
        for size in PIECES:
            piece = ids[start : start + size]
            if len(piece):
                session.fork().score(ids[: min(3, len(piece))])
                parts.append(session.score(piece))
                start += size
    except Exception as error:  # whatever a model's own code raises
        reason = str(error).strip().partition("\n")[0]
        return f"cannot read a short text in pieces ({type(error).__name__}: {reason})"
    difference = relative_difference(torch.cat(parts)[PIECES[0] :], whole[PIECES[0] :])
    if not difference <= TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16]):  # NaN, too
        return (
            f"gives other answers when a text is read in pieces (logits differ by "
            f"{difference:.0%}): it does not keep the text in the cache that it is given, "
            "or tokens see later ones"
        )
    return None


def relative_difference(parts: Tensor, whole: Tensor) -> float:
    """Three quarters of the positions [S, V] differ by at most this share of their logits' norm.

    The last quarter is left to near ties of experts, which rounding decides.
    """
    parts, whole = parts.double(), whole.double()
    whole, parts = (part - part.mean(-1, keepdim=True) for part in (whole, parts))
    size = whole.norm(dim=-1).clamp_min(torch.finfo(torch.float64).tiny)
    return float(((parts - whole).norm(dim=-1) / size).quantile(0.75)) if len(parts) else 0.0
