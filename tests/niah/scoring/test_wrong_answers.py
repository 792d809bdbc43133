"""No answer that a careful reader refuses is exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niah.scoring.answer_values import Case
from niah.scoring.outcomes import judge
from tests.niah.scoring.right_answers import FORMATS, TEMPLATES, asked
from tests.niah.scoring.wrong_answers import wrong_answers


@pytest.mark.parametrize("name", FORMATS)
def test_no_wrong_answer_is_exact(name: str) -> None:
    judged = [(kind, case) for kind, case in wrong_answers(name, 1)]
    assert len(judged) > 1500
    passed = [(kind, case.answer) for kind, case in judged if judge(case) == "exact"]
    assert not passed


@given(
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from(TEMPLATES),
    st.integers(0, 1000),
    st.integers(1001, 2000),
)
def test_another_value_in_the_place_of_the_right_one_is_not_exact(
    name: str, template: str, seed: int, other: int
) -> None:
    question, wrong = asked(name, seed), asked(name, other).gold
    if wrong.casefold() != question.gold.casefold():
        assert judge(question.case(question.answer(template, wrong, wrong))) != "exact"


numbers = st.integers(10_000, 99_999).map(str)


@given(numbers, st.text("0123456789", min_size=1, max_size=6), st.booleans())
def test_a_number_inside_a_longer_one_is_not_exact(gold: str, more: str, before: bool) -> None:
    longer = more + gold if before else gold + more
    for template in ("{}", "The code is {}.", "**{}**", "Answer:{}", "答案是{}。", "\\boxed{{{}}}"):
        assert judge(Case(template.format(longer), (gold,))) != "exact"
