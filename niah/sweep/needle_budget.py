"""Bounds the needles' share of every prompt that forks from one stream.

Before each cut the facts are at most a share of the tokens; a single fact is always allowed.
"""

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from math import floor, inf


@dataclass
class Budget:
    """The facts of a stream and the cuts where its prompts end.

    `facts` are (first start, tokens), in order. `slack[i]` is how many tokens another fact before
    `cuts[i]` may have: any number where it would be the only one. `least[i]` is the least slack
    of the cuts from i on.
    """

    max_share: float
    facts: list[tuple[int, int]] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    slack: list[float] = field(default_factory=list)
    least: list[float] = field(default_factory=list)

    def is_spent(self, cut: int, tokens: int) -> bool:
        """Whether a fact of `tokens` is too much wherever it starts before `cut`."""
        if tokens > self._least_from(bisect_left(self.cuts, cut)):
            return True
        before = self._tokens_before(cut)
        return bool(before) and sum(before) + tokens > self._limit(cut)

    def allows_fact(self, start: int, tokens: int) -> bool:
        """Whether a fact of `tokens` may begin at `start`, as far as the cuts behind it say."""
        return tokens <= self._least_from(bisect_right(self.cuts, start))

    def allows_cut(self, cut: int) -> bool:
        """Whether a prompt may end at `cut`."""
        before = self._tokens_before(cut)
        return len(before) <= 1 or sum(before) <= self._limit(cut)

    def add(self, cut: int, start: int | None, tokens: int) -> None:
        at = bisect_left(self.cuts, cut)
        if at == len(self.cuts) or self.cuts[at] != cut:
            before = self._tokens_before(cut)
            self.cuts.insert(at, cut)
            self.slack.insert(at, self._limit(cut) - sum(before) if before else inf)
        if start is not None:
            insort(self.facts, (start, tokens))
            for i in range(bisect_right(self.cuts, start), len(self.cuts)):
                held = self._limit(self.cuts[i]) if self.slack[i] == inf else self.slack[i]
                self.slack[i] = held - tokens
        self._renew_least()

    def _limit(self, cut: int) -> int:
        return floor(self.max_share * cut)

    def _tokens_before(self, cut: int) -> list[int]:
        return [tokens for _, tokens in self.facts[: bisect_left(self.facts, (cut,))]]

    def _least_from(self, index: int) -> float:
        return self.least[index] if index < len(self.least) else inf

    def _renew_least(self) -> None:
        self.least = [inf] * len(self.slack)
        least = inf
        for i in reversed(range(len(self.slack))):
            least = min(least, self.slack[i])
            self.least[i] = least
