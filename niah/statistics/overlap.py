"""How much of the text of a run's streams is the same text.

Streams begin at random places of a corpus. Where a corpus is short for them they read each other's
text, and are less independent than the intervals suppose.
"""

from __future__ import annotations

import numpy as np

from niah.statistics.clusters import Ints

TOLD = 0.2
"""From this share on a reader is told."""


def shared_share(starts: Ints, ends: Ints) -> float:
    """The share of a stream's tokens that another stream reads too, on average over streams.

    Args:
        starts, ends: [streams], places in the corpus; each end is behind its start.
    """
    edges = np.unique(np.concatenate([starts, ends]))
    first, last = np.searchsorted(edges, starts), np.searchsorted(edges, ends)
    begun, ended = (np.bincount(at, minlength=len(edges)) for at in (first, last))
    several = np.cumsum(begun - ended)[:-1] >= 2
    before = np.concatenate([[0], np.cumsum(np.diff(edges) * several)])
    return float(np.mean((before[last] - before[first]) / (ends - starts)))


def overlap_text(corpus: str, starts: Ints, ends: Ints) -> str:
    """One sentence where streams share much of their text; else empty."""
    share = shared_share(starts, ends)
    if share < TOLD:
        return ""
    return (
        f"Streams of {corpus} share text: on average {100 * share:.0f}% of a stream is read by "
        "another one too. Where a loss hangs on the text itself, intervals are too narrow."
    )
