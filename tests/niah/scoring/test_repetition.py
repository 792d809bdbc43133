"""Loops are found, and judged by what they repeat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niah.scoring.answer_values import Case
from niah.scoring.outcomes import judge
from niah.scoring.repetition import first_round, loops


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("58120 58120 58120", True),
        ("58120, 58120, 58120, 58", True),
        ("The code is 58120. The code is 58120. The code is 58120. The co", True),
        ("!!!!!!!!!!!!!!!!!!!!!!!!", True),
        ("582058205820582058205820", True),
        ("the the the", True),
        ("33333", False),
        ("58120 58120", False),
        ("58120 48213 58120", False),
        ("very very very good", False),
        ("", False),
    ],
)
def test_loops(text: str, expected: bool) -> None:
    assert loops(text) == expected


units = st.lists(st.text("abcdefgh", min_size=2, max_size=6), min_size=1, max_size=5, unique=True)


@given(units, st.integers(3, 6), st.integers(0, 20))
def test_a_phrase_said_three_times_is_a_loop_wherever_it_is_cut(
    unit: list[str], times: int, cut: int
) -> None:
    phrase = " ".join(unit)
    text = " ".join([phrase] * times) + f" {phrase}"[:cut]
    assert loops(text)
    assert first_round(text) == phrase


@given(st.lists(st.text("abcdefgh0123 ", min_size=1), unique=True, max_size=6))
def test_a_text_that_does_not_repeat_is_left_as_it_is(parts: list[str]) -> None:
    text = " ".join(parts)
    assert loops(text) or first_round(text) in (text, text[: len(first_round(text))])


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("58120 58120 58120", "repetition"),
        ("The fox is red. The fox is red. The fox is red.", "repetition"),
        ("48213 58120 48213 58120 48213 58120", "repetition"),
        ("48213 48213 48213 482", "exact"),
        ("The code is 48213. The code is 48213. The code is 48213. The", "exact"),
        ("48213 48213 48213 58120", "malformed"),
        ("not 48213 not 48213 not 48213", "denied"),
        ("482134821348213482134821348213", "repetition"),
        ("33333", "invented"),
    ],
)
@pytest.mark.parametrize("cut_short", [False, True])
def test_a_loop_is_right_where_what_it_repeats_is(
    answer: str, outcome: str, cut_short: bool
) -> None:
    case = Case(answer, ("48213",), rivals=("58120",), cut_short=cut_short)
    ends_in_a_value = answer.endswith(("58120", "33333")) and outcome in ("malformed", "invented")
    expected = "truncated" if cut_short and ends_in_a_value else outcome
    assert judge(case) == expected
