"""Owns the stream layout: which questions share a stream, and at which tokens their needles start.

Works on integers alone; knows nothing of texts, models or what a needle says.

A question of length L forks its stream at the cut L - (question tokens). At every cut of a stream

- the needles before it are at most `max_share` of its tokens, a single fact excepted;
- no needle straddles it, so that no prompt ends in half a needle.

A needle whose wanted start is taken slides to the nearest free one of the same phase.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MIN_SLIDE = 64  # tokens
SLIDE_SHARE = 1 / 100  # of the context: far below the step of any depth grid


@dataclass(frozen=True)
class Item:
    """A question to be placed: its prompt's length, the cut where its context ends and it begins,
    and the sizes and wanted starts of what is planted for it.

    The first `num_ordered` pieces keep their order, and their residue modulo `modulus` when they
    slide; the others may go anywhere in the context.
    """

    length: int
    cut: int
    sizes: tuple[int, ...]
    wanted: tuple[int, ...]
    num_ordered: int
    modulus: int = 1

    @property
    def tokens(self) -> int:
        return sum(self.sizes)


@dataclass
class Draft:
    """A stream being filled: its items (by index) with their starts, its cuts, its spans."""

    placed: dict[int, tuple[int, ...]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)
    facts: list[tuple[int, int]] = field(default_factory=list)  # (first start, tokens)

    def starts_for(self, item: Item, max_share: float) -> tuple[int, ...] | None:
        """Where `item` fits, or None; changes nothing."""
        if any(start < item.cut < end for start, end in self.spans):
            return None
        starts = self._free_starts(item)
        if starts is None or not self._share_holds(item, starts, max_share):
            return None
        return starts

    def add(self, index: int, item: Item, starts: tuple[int, ...]) -> None:
        self.placed[index] = starts
        insort(self.cuts, item.cut)
        for start, size in zip(starts, item.sizes, strict=True):
            insort(self.spans, (start, start + size))
        if starts:
            self.facts.append((min(starts), item.tokens))

    def _free_starts(self, item: Item) -> tuple[int, ...] | None:
        """Starts that leave later pieces room to reach their phase; failing that, any that fit."""
        roomy = self._starts_with_slack(item, item.modulus - 1)
        return self._starts_with_slack(item, 0) if roomy is None and item.modulus > 1 else roomy

    def _starts_with_slack(self, item: Item, slack: int) -> tuple[int, ...] | None:
        starts: list[int] = []
        first = 0
        remaining = sum(item.sizes[: item.num_ordered])
        for i, (wanted, size) in enumerate(zip(item.wanted, item.sizes, strict=True)):
            if i < item.num_ordered:
                # The pieces still to come must fit behind this one.
                last = item.cut - remaining - slack * (item.num_ordered - i - 1)
                slides = slid(wanted, first, last, item.modulus, max_slide(item))
            else:
                slides = slid(wanted, 0, item.cut - size, 1, item.cut)
            taken = [(s, s + item.sizes[j]) for j, s in enumerate(starts)]
            start = next((s for s in slides if self._is_free(s, s + size, taken)), None)
            if start is None:
                return None
            starts.append(start)
            first = start + size
            remaining -= size
        return tuple(starts)

    def _is_free(self, start: int, end: int, taken: Sequence[tuple[int, int]]) -> bool:
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
    """Tokens that a needle of `item` may move from where it was wanted."""
    return max(MIN_SLIDE, int(item.cut * SLIDE_SHARE), item.modulus)


def slid(wanted: int, first: int, last: int, modulus: int, limit: int) -> Iterator[int]:
    """Starts within [first, last] of `wanted`'s residue, nearest first, at most `limit` away.

    A wanted start outside the range counts from its nearest allowed neighbour.
    """
    if wanted > last:
        wanted -= -(-(wanted - last) // modulus) * modulus
    if wanted < first:
        wanted += -(-(first - wanted) // modulus) * modulus
    for step in range(0, limit + 1, modulus):
        for start in (wanted + step, wanted - step) if step else (wanted,):
            if first <= start <= last:
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
