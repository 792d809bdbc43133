"""Packs questions into streams: which share one, and at which tokens their needles start.

Works on integers and opaque claims. A question of length L forks its stream at the cut
L - (question tokens). In a stream

- no two questions have a claim in common: one would answer the other;
- the needles before any cut are at most `max_share` of its tokens, a single fact excepted;
- no needle straddles a cut, so that no prompt ends in half a needle.

A needle whose wanted start is taken slides to the nearest free start of the same phase. The slide
is bounded, so that the needle keeps its depth; beyond the bound it goes to another stream.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from niah.sweep.free_starts import Obstacles, Span, free_start
from niah.sweep.needle_budget import Budget

MIN_SLIDE = 64  # tokens
SLIDE_SHARE = 1 / 100  # of the context: far below the step of any depth grid


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
    """A stream being filled: its items (by index) with their starts, and what they take up.

    `spans` are the planted pieces and `cuts` the items' cuts, each in order.
    """

    budget: Budget
    placed: dict[int, tuple[int, ...]] = field(default_factory=dict)
    claims: set[str] = field(default_factory=set)
    spans: list[Span] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)

    def starts_for(self, item: Item) -> tuple[int, ...] | None:
        """Where `item` fits, or None; changes nothing."""
        if not self._budget_holds(item):
            return None
        if not self.claims.isdisjoint(item.claims) or self._straddles(item.cut):
            return None
        starts = self._free_starts(item)
        if starts and not self.budget.allows_fact(min(starts), item.tokens):
            return None
        return starts

    def add(self, index: int, item: Item, starts: tuple[int, ...]) -> None:
        self.placed[index] = starts
        self.claims |= item.claims
        insort(self.cuts, item.cut)
        for start, size in zip(starts, item.sizes, strict=True):
            insort(self.spans, (start, start + size))
        self.budget.add(item.cut, min(starts, default=None), item.tokens)

    def _budget_holds(self, item: Item) -> bool:
        """Whether the needles keep to their share with `item`, as far as its cut says."""
        if not item.sizes:
            return self.budget.allows_cut(item.cut)
        return not self.budget.is_spent(item.cut, item.tokens)

    def _straddles(self, cut: int) -> bool:
        """Whether a planted piece would be cut in two."""
        before = bisect_left(self.spans, (cut,))
        return before > 0 and self.spans[before - 1][1] > cut

    def _free_starts(self, item: Item) -> tuple[int, ...] | None:
        # Alone, an item stands as near as its pieces allow: no other stream would have it nearer.
        slide = max_slide(item) if self.placed else item.cut
        starts: list[int] = []
        taken: list[Span] = []
        for group in item.groups(slide):
            found = self._group_starts(group, item.cut, taken)
            if found is None:
                return None
            starts += found
            for start, size in zip(found, group.sizes, strict=True):
                insort(taken, (start, start + size))
        return tuple(starts)

    def _group_starts(self, group: Group, cut: int, taken: Sequence[Span]) -> list[int] | None:
        """Where a group fits beside what its own item has `taken` already."""
        obstacles = Obstacles((self.spans, taken), self.cuts)
        latest = latest_free(group, cut, obstacles)
        if latest is None:
            return None
        starts: list[int] = []
        first = 0
        for size, want, last in zip(group.sizes, group.wanted, latest, strict=True):
            start = free_start(obstacles, size, want, first, last, group.modulus, group.slide)
            if start is None:
                return None
            starts.append(start)
            first = start + size
        return starts


def latest_free(group: Group, cut: int, obstacles: Obstacles) -> list[int] | None:
    """The last start of each piece that leaves room for those behind it."""
    latest: list[int] = []
    end = cut
    for size, want in zip(reversed(group.sizes), reversed(group.wanted), strict=True):
        last = end - size
        wanted = last - (last - want) % group.modulus
        start = free_start(obstacles, size, wanted, 0, last, group.modulus, cut)
        if start is None:
            return None
        latest.append(start)
        end = start
    return latest[::-1]


def max_slide(item: Item) -> int:
    """Tokens that a needle of `item` may move from where it was wanted, to share a stream.

    The modulus does not widen it: residues that collide at one depth would come to stand at
    different depths, and a sweep over the phase would show the depth.
    """
    return max(MIN_SLIDE, int(item.cut * SLIDE_SHARE))


def pack(items: Sequence[Item], max_share: float) -> list[dict[int, tuple[int, ...]]]:
    """Spread `items` over as few and as short streams as first-fit finds, longest first.

    Of one length the earliest cut comes first: a needle slides out of the way of a cut that is
    there already, but a cut cannot move for a needle.

    Returns, for each stream, its items' indices with the starts of their pieces.
    Raises: ValueError where an item does not even fit alone.
    """
    drafts: list[Draft] = []
    for index in sorted(range(len(items)), key=lambda i: (-items[i].length, items[i].cut)):
        item = items[index]
        draft, starts = first_fit(drafts, item) or alone(item, max_share)
        draft.add(index, item, starts)
        if len(draft.placed) == 1:
            drafts.append(draft)
    return [draft.placed for draft in drafts]


def first_fit(drafts: Sequence[Draft], item: Item) -> tuple[Draft, tuple[int, ...]] | None:
    """The first stream that takes `item`, with the starts of its pieces."""
    for draft in drafts:
        starts = draft.starts_for(item)
        if starts is not None:
            return draft, starts
    return None


def alone(item: Item, max_share: float) -> tuple[Draft, tuple[int, ...]]:
    """A new stream for `item`, with the starts of its pieces."""
    draft = Draft(Budget(max_share))
    starts = draft.starts_for(item)
    if starts is None:
        raise ValueError(f"{item.tokens} needle tokens in a context of {item.cut}")
    return draft, starts
