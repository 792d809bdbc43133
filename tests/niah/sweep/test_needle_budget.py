"""The needles' share holds before every cut, by the definition counted anew."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from niah.sweep.needle_budget import Budget

FACTS = st.one_of(
    st.tuples(st.integers(100, 400), st.none(), st.just(0)),
    st.integers(100, 400).flatmap(
        lambda cut: st.tuples(st.just(cut), st.integers(0, cut - 1), st.integers(1, 40))
    ),
)


def holds(facts: list[tuple[int, int]], cuts: set[int], max_share: float) -> bool:
    """At most one fact before each cut, or few enough tokens."""
    before = [[tokens for start, tokens in facts if start < cut] for cut in cuts]
    sums = zip(before, cuts, strict=True)
    return all(len(some) <= 1 or sum(some) <= max_share * cut for some, cut in sums)


@given(st.lists(FACTS, max_size=12), st.floats(0.01, 0.6))
def test_a_budget_allows_what_keeps_to_the_share(
    asked: list[tuple[int, int | None, int]], max_share: float
) -> None:
    budget = Budget(max_share)
    facts: list[tuple[int, int]] = []
    cuts: set[int] = set()
    for cut, start, tokens in asked:
        more = facts if start is None else [*facts, (start, tokens)]
        expected = holds(more, cuts | {cut}, max_share)
        if start is None:
            allowed = budget.allows_cut(cut)
        else:
            allowed = not budget.is_spent(cut, tokens) and budget.allows_fact(start, tokens)
        assert allowed == expected
        if allowed:
            facts, cuts = more, cuts | {cut}
            budget.add(cut, start, tokens)
    assert budget.cuts == sorted(cuts)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_single_fact_is_always_allowed(cut: int, tokens: int) -> None:
    budget = Budget(0.01)
    assert not budget.is_spent(cut, tokens)
    budget.add(cut, 0, tokens)
    assert budget.least[0] < inf
