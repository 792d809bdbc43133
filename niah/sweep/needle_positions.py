"""Computes the token positions of a fact's pieces for a depth and a phase.

Other needles of the context are not considered here; `stream_packing` does that.
"""

from collections.abc import Sequence


def aim(
    depth: float, cut: int, sizes: Sequence[int], spread: float, modulus: int, residue: int
) -> tuple[int, ...]:
    """Starts of pieces of `sizes` tokens in a context of `cut`, all of `residue` mod `modulus`.

    The first stands as near to `depth * cut` as those behind it allow. They follow in order,
    evenly over `spread` of the context or over what is left of it; pieces that do not fit at
    all get starts that overlap or leave the context.
    """
    latest = latest_starts(cut, sizes, modulus, residue)
    first = nearest(round(depth * cut), 0, latest[0], modulus, residue)
    starts = [first]
    width = min(max(spread * cut, sum(sizes)), cut - first) - sizes[-1]
    for i in range(1, len(sizes)):
        wanted = first + round(width * i / (len(sizes) - 1))
        starts.append(nearest(wanted, starts[-1] + sizes[i - 1], latest[i], modulus, residue))
    return tuple(starts)


def latest_starts(cut: int, sizes: Sequence[int], modulus: int, residue: int) -> list[int]:
    """The last start of each piece that leaves room for those behind it."""
    latest: list[int] = []
    end = cut
    for size in reversed(sizes):
        end -= size
        end -= (end - residue) % modulus
        latest.append(end)
    return latest[::-1]


def nearest(wanted: int, first: int, last: int, modulus: int, residue: int) -> int:
    """The start of `residue` mod `modulus` within [first, last] that is nearest to `wanted`.

    `last` has the residue; it is the answer where the range is empty, too.
    """
    below = wanted - (wanted - residue) % modulus
    start = below if wanted - below <= modulus / 2 else below + modulus
    if start < first:
        start = first + (residue - first) % modulus
    return min(start, last)
