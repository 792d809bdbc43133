"""Owns the stream layout: which questions share a stream, and at which tokens their needles start.

Works on integers and opaque claims; knows nothing of texts, models or what a needle says.

A question of length L forks its stream at the cut L - (question tokens). In a stream

- no two questions have a claim in common: one would answer the other;
- the needles before any cut are at most `max_share` of its tokens, a single fact excepted;
- no needle straddles a cut, so that no prompt ends in half a needle.

A needle whose wanted start is taken slides to the nearest free one of the same phase, but not so
far that it would stand at another depth: rather it goes to another stream.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MIN_SLIDE = 64  # tokens
SLIDE_SHARE = 1 / 100  # of the context: far below the step of any depth grid

Span = tuple[int, int]  # tokens [start, end)


class Group(NamedTuple):
    """Pieces that keep their order, and their wanted starts' residues modulo `modulus`."""

    sizes: tuple[int, ...]
    wanted: tuple[int, ...]
    modulus: int
    slide: int  # tokens from its wanted start, at most


@dataclass(frozen=True)
class Item:
    """A question to be placed: its prompt's length, the cut where its context ends and it begins,
    and the sizes and wanted starts of what is planted for it.

    The first `num_ordered` pieces keep their order, and their residue modulo `modulus` when they
    slide. The others may go anywhere in the context, in order among themselves if
    `rest_in_order`.
    """

    length: int
    cut: int
    sizes: tuple[int, ...]
    wanted: tuple[int, ...]
    num_ordered: int
    modulus: int = 1
    rest_in_order: bool = False
    claims: frozenset[str] = frozenset()

    @property
    def tokens(self) -> int:
        return sum(self.sizes)

    def groups(self, slide: int) -> list[Group]:
        """The pieces in the order in which they are placed; `slide` bounds the first group."""
        ordered = Group(
            self.sizes[: self.num_ordered], self.wanted[: self.num_ordered], self.modulus, slide
        )
        rest = self.sizes[self.num_ordered :], self.wanted[self.num_ordered :]
        if self.rest_in_order:
            return [ordered, Group(*rest, 1, self.cut)]
        singles = zip(*rest, strict=True)
        return [ordered, *(Group((size,), (want,), 1, self.cut) for size, want in singles)]


@dataclass
class Draft:
    """A stream being filled: its items (by index) with their starts, its cuts, spans, claims."""

    placed: dict[int, tuple[int, ...]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    facts: list[tuple[int, int]] = field(default_factory=list)  # (first start, tokens)
    claims: set[str] = field(default_factory=set)

    def starts_for(self, item: Item, max_share: float) -> tuple[int, ...] | None:
        """Where `item` fits, or None; changes nothing."""
        if not self.claims.isdisjoint(item.claims):
            return None
        if any(start < item.cut < end for start, end in self.spans):
            return None
        starts = self._free_starts(item)
        if starts is None or not self._share_holds(item, starts, max_share):
            return None
        return starts

    def add(self, index: int, item: Item, starts: tuple[int, ...]) -> None:
        self.placed[index] = starts
        self.claims |= item.claims
        insort(self.cuts, item.cut)
        for start, size in zip(starts, item.sizes, strict=True):
            insort(self.spans, (start, start + size))
        if starts:
            self.facts.append((min(starts), item.tokens))

    def _free_starts(self, item: Item) -> tuple[int, ...] | None:
        # Alone, an item stands as near as its pieces allow: no other stream would have it nearer.
        slide = max_slide(item) if self.placed else item.cut
        taken: list[Span] = []
        for group in item.groups(slide):
            spans = self._group_spans(group, item.cut, taken)
            if spans is None:
                return None
            taken += spans
        return tuple(start for start, _ in taken)

    def _group_spans(self, group: Group, cut: int, taken: Sequence[Span]) -> list[Span] | None:
        """Where a group fits beside what is `taken` already by its own item."""
        latest = self._latest(group, cut, taken)
        if latest is None:
            return None
        spans: list[Span] = []
        first = 0
        for size, want, last in zip(group.sizes, group.wanted, latest, strict=True):
            slides = slid(want, first, last, group.modulus, group.slide)
            start = next((s for s in slides if self._is_free(s, s + size, taken)), None)
            if start is None:
                return None
            spans.append((start, start + size))
            first = start + size
        return spans

    def _latest(self, group: Group, cut: int, taken: Sequence[Span]) -> list[int] | None:
        """The last start of each piece that leaves room for those behind it."""
        latest: list[int] = []
        end = cut
        for size, want in zip(reversed(group.sizes), reversed(group.wanted), strict=True):
            last = end - size
            slides = slid(last - (last - want) % group.modulus, 0, last, group.modulus, cut)
            start = next((s for s in slides if self._is_free(s, s + size, taken)), None)
            if start is None:
                return None
            latest.append(start)
            end = start
        return latest[::-1]

    def _is_free(self, start: int, end: int, taken: Sequence[Span]) -> bool:
        if any(start < other_end and other < end for other, other_end in taken):
            return False
        after = bisect_left(self.spans, (start, start))
        if after < len(self.spans) and self.spans[after][0] < end:
            return False
        if after and self.spans[after - 1][1] > start:
            return False
        cut = bisect_right(self.cuts, start)
        return cut == len(self.cuts) or self.cuts[cut] >= end

    def _share_holds(self, item: Item, starts: Sequence[int], max_share: float) -> bool:
        facts = [*self.facts, (min(starts), item.tokens)] if starts else self.facts
        return all(share_holds(facts, cut, max_share) for cut in {*self.cuts, item.cut})


def share_holds(facts: Sequence[tuple[int, int]], cut: int, max_share: float) -> bool:
    """Whether the facts that begin before `cut` are one at most, or few enough tokens."""
    before = [tokens for start, tokens in facts if start < cut]
    return len(before) <= 1 or sum(before) <= max_share * cut


def max_slide(item: Item) -> int:
    """Tokens that a needle of `item` may move from where it was wanted, to share a stream.

    The modulus does not widen it: residues that collide at one depth would come to stand at
    different depths, and a sweep over the phase would show the depth.
    """
    return max(MIN_SLIDE, int(item.cut * SLIDE_SHARE))


def slid(wanted: int, first: int, last: int, modulus: int, limit: int) -> Iterator[int]:
    """Starts within [first, last] of `wanted`'s residue, nearest first, at most `limit` away."""
    low, high = max(first, wanted - limit), min(last, wanted + limit)
    # A wanted start outside the range is counted from its nearest neighbour inside.
    nearest = wanted
    if wanted > high:
        nearest -= -(-(wanted - high) // modulus) * modulus
    if wanted < low:
        nearest += -(-(low - wanted) // modulus) * modulus
    for step in range(0, high - low + 1, modulus):
        for start in (nearest + step, nearest - step) if step else (nearest,):
            if low <= start <= high:
                yield start


def pack(items: Sequence[Item], max_share: float) -> list[dict[int, tuple[int, ...]]]:
    """Spread `items` over as few and as short streams as first-fit finds, longest first.

    Of one length the earliest cut comes first: a needle slides out of the way of a cut that is
    there already, but a cut cannot move for a needle.

    Returns, for each stream, its items' indices with the starts of their pieces.
    Raises: ValueError where an item does not even fit alone.
    """
    drafts: list[Draft] = []
    for index in sorted(range(len(items)), key=lambda i: (-items[i].length, items[i].cut)):
        draft, starts = _first_fit(drafts, items[index], max_share)
        if starts is None:
            draft = Draft()
            drafts.append(draft)
            starts = draft.starts_for(items[index], max_share)
            if starts is None:
                need = items[index].tokens
                raise ValueError(f"{need} needle tokens in a context of {items[index].cut}")
        draft.add(index, items[index], starts)
    return [draft.placed for draft in drafts]


def _first_fit(
    drafts: Sequence[Draft], item: Item, max_share: float
) -> tuple[Draft, tuple[int, ...] | None]:
    for draft in drafts:
        starts = draft.starts_for(item, max_share)
        if starts is not None:
            return draft, starts
    return Draft(), None
