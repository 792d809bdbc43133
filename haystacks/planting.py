"""Splices needles into a haystack at exact token indices, token ids in and out.

Nothing is re-tokenised, moved to a full stop or added. `align` moves indices beforehand, so that
none of them lies inside a character.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class PlantError(ValueError):
    """Needles that overlap, leave the context, or leave too little haystack; numbers are named."""


class Span(NamedTuple):
    """Token indices [start, end) of a needle in the planted context."""

    start: int
    end: int


class Insertion(NamedTuple):
    """A needle's token ids and the index of its first token in the result."""

    start: int
    ids: Sequence[int] | np.ndarray[Any, Any]


class Planted(NamedTuple):
    """`ids`: [length] int32; `spans`: where each insertion is, in the order they were given."""

    ids: np.ndarray[Any, np.dtype[np.int32]]
    spans: tuple[Span, ...]


def plant(
    haystack_ids: np.ndarray[Any, Any], length: int, insertions: Iterable[Insertion] = ()
) -> Planted:
    """A context of exactly `length` tokens: the needles, and haystack tokens everywhere else.

    `haystack_ids` [>= length - needle tokens] fills the gaps from its first token on, in order,
    none skipped. Raises PlantError for an empty needle, needles that overlap or leave the
    context, or too short a haystack.
    """
    needles = [Insertion(start, np.asarray(ids, dtype=np.int32)) for start, ids in insertions]
    spans = tuple(Span(start, start + len(ids)) for start, ids in needles)
    _check(spans, length)
    num_haystack = length - sum(end - start for start, end in spans)
    if num_haystack > len(haystack_ids):
        raise PlantError(
            f"a context of {length} tokens needs {num_haystack} of the haystack, "
            f"which has {len(haystack_ids)}"
        )
    return Planted(_splice(haystack_ids, length, needles), spans)


class Stop(NamedTuple):
    """An index at which the text is interrupted: a needle of `size` tokens, or a context's end (0).

    It may move by multiples of `modulus` tokens only.
    """

    at: int
    size: int = 0
    modulus: int = 1


def align(stops: Sequence[Stop], boundaries: NDArray[np.bool_]) -> list[int]:
    """Where each of `stops` is met without cutting a character of the haystack.

    `boundaries` [haystack tokens + 1]: whether a character begins at that token of the haystack;
    needles are complete in themselves. A stop moves forward to the next such place, and those
    behind it as far as they must: their order stays, and so does each residue. Where every token
    begins a character nothing moves. Raises PlantError where the haystack ends before that.
    """
    moved = [stop.at for stop in stops]
    if boundaries.all():
        return moved
    planted = end = 0
    # A context that ends where a needle begins does not hold it: its end comes first.
    for index in sorted(range(len(stops)), key=lambda i: (stops[i].at, stops[i].size > 0)):
        stop = stops[index]
        at = stop.at - (stop.at - end) // stop.modulus * stop.modulus if stop.at < end else stop.at
        found = boundaries[at - planted :: stop.modulus]
        if not found.any():
            raise PlantError(
                f"no character of the text begins at a token from {at} on, in steps of "
                f"{stop.modulus}"
            )
        moved[index] = at + int(found.argmax()) * stop.modulus
        planted += stop.size
        end = moved[index] + stop.size
    return moved


def _check(spans: Sequence[Span], length: int) -> None:
    if length < 0:
        raise PlantError(f"length {length} must be >= 0")
    previous = Span(0, 0)
    for span in sorted(spans):
        if span.end == span.start:
            raise PlantError(f"the needle at {span.start} is empty")
        if span.start < 0 or span.end > length:
            raise PlantError(f"a needle at {span.start} to {span.end} leaves 0 to {length}")
        if span.start < previous.end:
            raise PlantError(
                f"needles at {previous.start} to {previous.end} and "
                f"{span.start} to {span.end} overlap"
            )
        previous = span


def _splice(
    haystack_ids: np.ndarray[Any, Any], length: int, needles: Sequence[Insertion]
) -> np.ndarray[Any, np.dtype[np.int32]]:
    ids = np.empty(length, dtype=np.int32)
    at = taken = 0
    for start, needle in sorted(needles, key=lambda needle: needle.start):
        gap = start - at
        ids[at:start] = haystack_ids[taken : taken + gap]
        ids[start : start + len(needle)] = needle
        at, taken = start + len(needle), taken + gap
    ids[at:] = haystack_ids[taken : taken + length - at]
    return ids
