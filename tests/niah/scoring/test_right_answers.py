"""Right answers of models that talk are exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niah.scoring.answer_values import Case
from niah.scoring.outcomes import judge
from tests.niah.scoring.right_answers import FORMATS, right_answers, several_answers

# Two templates of 350 offer a word under a label, or in a language, that no list has.
MOST_FALSE_FAILS = {"word": 0.01, "phrase": 0.01, "identifier": 0.01}


@pytest.mark.parametrize("name", FORMATS)
def test_right_answers_are_exact(name: str) -> None:
    judged = [(answer, judge(asked.case(answer))) for asked, _, answer in right_answers(name, 1)]
    failed = [pair for pair in judged if pair[1] != "exact"]
    assert len(failed) / len(judged) <= MOST_FALSE_FAILS.get(name, 0), failed


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "sum"])
def test_lists_of_right_values_are_exact(name: str) -> None:
    failed = [case.answer for case, _ in several_answers(name, 2) if judge(case) != "exact"]
    assert not failed


KEY_QUESTION = " What is the secret {} for amber falcon? The secret {} for amber falcon is"


@pytest.mark.parametrize(
    "answer",
    [
        "Answer:48213",
        "Code:48213",
        "1. 48213",
        "48213 [1]",
        "答案是48213。",
        "It is not 58120. It is 48213.",
        "Not surprisingly, the code is 48213",
        "In paragraph 12 the code is given as 48213",
        "The code has 5 digits: 48213",
        "\n\n48213",
        "\n \n 48213",
        "```\n48213\n```",
        "\\boxed{48213}",
        "\\boxed{48{,}213}",
    ],
)
def test_numbers_that_were_refused(answer: str) -> None:
    question = KEY_QUESTION.format("code", "code")
    assert judge(Case(answer, ("48213",), rivals=("58120",), question=question)) == "exact"


@pytest.mark.parametrize(
    "answer",
    [
        "Certainly! The word is harbor.",
        "Based on the text, the word is harbor.",
        "\\boxed{harbor}",
        "\n\nharbor",
        "```\nharbor\n```",
        "答案是harbor。",
        "It is not lantern. It is harbor.",
    ],
)
@pytest.mark.parametrize("gold", ["harbor", "Porto Vecchio"])
def test_words_that_were_refused(answer: str, gold: str) -> None:
    question = KEY_QUESTION.format("word", "word")
    case = Case(
        answer.replace("harbor", gold), (gold,), "word", rivals=("lantern",), question=question
    )
    assert judge(case) == "exact"


def test_a_sum_may_have_cents_that_are_none_and_a_code_may_not() -> None:
    asked = " How much is the Retention Sum? The Retention Sum is EUR"
    for answer in ("EUR 48,213.00", "48.213,00 EUR", "€48,213", "EUR48213", "48.213 EUR"):
        assert judge(Case(answer, ("48213",), question=asked)) == "exact", answer
    for answer in ("EUR 48,213.50", "EUR 48,213,000", "EUR 48.213,50"):
        assert judge(Case(answer, ("48213",), question=asked)) != "exact", answer
    assert judge(Case("48213.00", ("48213",), question=" Which code?")) != "exact"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("Porto Vecchio", "exact"),
        ("porto vecchio", "exact"),
        ("Porto\nVecchio", "exact"),
        ("PORTO VECCHIO.", "exact"),
        ("Porto Vechio", "malformed"),
        ("Porto", "invented"),
        ("Vecchio Porto", "malformed"),
        ("Porto Vecchio and Lake Geneva", "malformed"),
        ("Lake Geneva", "distractor"),
        ("Porto Vecchio Tower", "malformed"),
        ("not Porto Vecchio", "denied"),
    ],
)
def test_names_of_several_words(answer: str, outcome: str) -> None:
    case = Case(answer, ("Porto Vecchio",), "word", rivals=("Lake Geneva",))
    assert judge(case) == outcome


words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=9)


@given(st.lists(words, min_size=1, max_size=4, unique=True), st.sampled_from([" ", "  ", "\n"]))
def test_any_name_of_several_words_is_a_value(parts: list[str], joint: str) -> None:
    gold = " ".join(parts)
    for answer in (joint.join(parts), f" {gold}.", f"**{gold.upper()}**", f"It is {gold.title()}."):
        assert judge(Case(answer, (gold,), "word")) == "exact"


def test_chinese_values_stand_between_chinese_words() -> None:
    question = " 密码是什么？密码是"
    outcomes = {
        "港口": "exact",
        "密码是港口。": "exact",
        "答案是“港口”。": "exact",
        "不是港口": "denied",
        "灯笼": "invented",
        "港口城": "malformed",
        "答案是灯笼。": "invented",
        "港口和灯笼": "malformed",
    }
    for answer, outcome in outcomes.items():
        assert judge(Case(answer, ("港口",), "word", question=question)) == outcome
