"""Finds free token positions between planted pieces and the cuts where prompts end.

Jumps from one obstacle to the next, so that the time grows with the obstacles, not the tokens.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[int, int]  # tokens [start, end)


@dataclass(frozen=True)
class Obstacles:
    """What a piece must not overlap (`spans`: disjoint, in order, in each of the lists) and the
    tokens at which it must not be cut (`cuts`, in order)."""

    spans: Sequence[Sequence[Span]]
    cuts: Sequence[int]

    def hit(self, start: int, end: int) -> Span | None:
        """An obstacle in the way of a piece of tokens [start, end), or None."""
        for spans in self.spans:
            before_end = bisect_left(spans, (end,))
            if before_end and spans[before_end - 1][1] > start:
                return spans[before_end - 1]
        cut = bisect_right(self.cuts, start)
        if cut < len(self.cuts) and self.cuts[cut] < end:
            return self.cuts[cut], self.cuts[cut]
        return None


def free_start(
    obstacles: Obstacles, size: int, wanted: int, first: int, last: int, modulus: int, limit: int
) -> int | None:
    """The free start of a piece of `size` tokens within [first, last], nearest to `wanted`.

    It has `wanted`'s residue and is at most `limit` tokens away. Of two as near the later is
    taken. A `wanted` start outside the range is counted from its nearest neighbour inside. None
    where no such start is free.
    """
    low, high = max(first, wanted - limit), min(last, wanted + limit)
    nearest = wanted
    if wanted > high:
        nearest -= -(-(wanted - high) // modulus) * modulus
    if wanted < low:
        nearest += -(-(low - wanted) // modulus) * modulus
    if not low <= nearest <= high:
        return None
    above = first_free(obstacles, size, nearest, high, modulus)
    if above == nearest:
        return nearest
    below = last_free(obstacles, size, nearest - modulus, low, modulus)
    if above is None or below is None:
        return below if above is None else above
    return above if above - nearest <= nearest - below else below


def first_free(obstacles: Obstacles, size: int, start: int, last: int, modulus: int) -> int | None:
    """The first free start of `start`'s residue from `start` to `last`."""
    while start <= last:
        hit = obstacles.hit(start, start + size)
        if hit is None:
            return start
        start += -(-(hit[1] - start) // modulus) * modulus
    return None


def last_free(obstacles: Obstacles, size: int, start: int, first: int, modulus: int) -> int | None:
    """The last free start of `start`'s residue from `start` down to `first`."""
    while start >= first:
        hit = obstacles.hit(start, start + size)
        if hit is None:
            return start
        start -= -(-(start + size - hit[0]) // modulus) * modulus
    return None
