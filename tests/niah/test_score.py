"""Answers that try to pass, and answers that a careless scorer would fail."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystacks.needles import FAMILIES, Fact, TemplateSplit
from niah.score import Case, is_near, judge, slips

GOLD = ("48213",)

NUMBERS = {
    # right
    " 48213.": "exact",
    "48213": "exact",
    " 48213, as it was said": "exact",
    "48,213": "exact",
    "48\u202f213": "exact",
    "The secret code is 48213!": "exact",
    "**48213**": "exact",
    '"48213"': "exact",
    "４８２１３": "exact",  # full-width digits
    "٤٨٢١٣": "exact",  # Arabic-Indic digits
    " 48213.\nThe code of the grey owl is 99120.": "exact",
    " 48213 and he said unto them, Take 12 loaves": "exact",
    "Sure. The text says so. It is 48213.": "exact",
    " 48213. I do not know more.": "exact",
    # gold inside something longer
    "148213": "near_miss",
    "482137": "near_miss",
    "1482137": "invented",
    "9948213": "invented",
    "48213.5": "invented",
    "x48213": "malformed",
    "48213th": "malformed",
    # slips
    "48231": "near_miss",
    "4821": "near_miss",
    "48214": "near_miss",
    # another needle's value, also when it is a slip away
    "58120": "distractor",
    "48212": "distractor",
    "58120. No, 48213.": "distractor",
    # what the haystack holds
    "1611": "copied",
    # nowhere
    "70707": "invented",
    "-48213": "exact",  # a dash before a code is no sign
    # denials
    "not 48213": "denied",
    "It is not 48213.": "denied",
    "It isn't 48213": "denied",
    "never 48213": "denied",
    "48213 is not the code": "denied",
    "I don't know.": "denied",
    "There is no such code.": "denied",
    "The text does not mention it. 48213": "denied",
    "I'm sorry, but I cannot answer that.": "denied",
    # several at once
    "48213, 58120, 99120": "malformed",
    "48213 or 58120": "malformed",
    "48213 58120": "malformed",
    "58120 and 48213": "malformed",
    "48213; 58120; 99120": "malformed",
    "48213. 58120. 99120.": "malformed",
    '"48213", "58120"': "malformed",
    '["48213", "58120"]': "malformed",
    "**48213**, **58120**": "malformed",
    "48213 (or 58120)": "malformed",
    "48213, maybe 58120": "malformed",
    "48213 - 58120": "malformed",
    "• 48213 • 58120": "malformed",
    "It used to be 48213, now 58120": "malformed",
    "48213 or the 58120 that was said before": "malformed",
    "48213. Or perhaps 58120.": "malformed",
    # prose goes on behind the value
    " 48213, payable on completion.": "exact",
    " 48213. 12 And it came to pass": "exact",
    " 48213. The code of the grey owl is 58120.": "exact",
    " 48213, and he did not go": "exact",
    "The 5-digit code is 48213": "exact",
    "(1) 48213": "exact",
    # a longer name is another one
    "48213-99": "malformed",
    "48213_77": "malformed",
    "48213:77": "malformed",
    "#48213-A": "malformed",
    # denials further off, or behind the value
    "not the code 48213": "denied",
    "It is not the number 48213": "denied",
    "not: 48213": "denied",
    "not really 48213": "denied",
    "anything but 48213": "denied",
    "It is no longer 48213": "denied",
    "The code was never set to 48213": "denied",
    "48213 is wrong": "denied",
    "48213 is incorrect": "denied",
    "48213 cannot be the code": "denied",
    "48213? No.": "denied",
    "not 58120 but 48213": "exact",
    "N/A": "denied",
    "none": "denied",
    "nothing": "denied",
    "not available": "denied",
    "There is none.": "denied",
    "I couldn't find it": "denied",
    # nothing
    "": "malformed",
    "   \n": "malformed",
    "forty-eight thousand": "malformed",
    "?!…": "malformed",
}


def number_case(answer: str) -> Case:
    return Case(answer, GOLD, rivals=("58120", "48212"), context=lambda: "printed in 1611, it says")


@pytest.mark.parametrize("answer", NUMBERS)
def test_numbers(answer: str) -> None:
    assert judge(number_case(answer)) == NUMBERS[answer]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (" harbor.", "exact"),
        ("Harbor", "exact"),
        ("the harbor", "exact"),
        ("harbor and lantern", "malformed"),
        ("harbor, lantern", "malformed"),
        ("harbor and the ship", "exact"),
        ("It isn't harbor", "denied"),
        ("harbor that lies in the south", "exact"),
        ("harbour", "near_miss"),
        ("harbors", "near_miss"),
        ("harborside", "invented"),
        ("lantern", "distractor"),
        ("shepherd", "copied"),
        ("zebra", "invented"),
        ("not harbor", "denied"),
        ("I do not know", "denied"),
        ("12345", "malformed"),
        ("", "malformed"),
        ("harbor lantern shepherd", "malformed"),
        ("harbor; lantern", "malformed"),
        ('"harbor", "lantern"', "malformed"),
        ("harbor that the lantern lights", "malformed"),
        ("harbor, jointly and severally.", "exact"),
        ("harbor, who", "exact"),
        ("harbor, and he went", "exact"),
        ("harbor cannot tell red from green", "exact"),
        ("not the harbor", "denied"),
        ("none", "denied"),
    ],
)
def test_words(answer: str, outcome: str) -> None:
    case = Case(
        answer, ("harbor",), "word", rivals=("lantern",), context=lambda: "The shepherd went out"
    )
    assert judge(case) == outcome


UUID = "6f1c2d3e-4b5a-4978-8c6d-0e1f2a3b4c5d"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (f" {UUID}.", "exact"),
        (UUID.upper(), "exact"),
        (UUID[:-1] + "0", "near_miss"),
        (UUID[:8], "malformed"),
        ("11111111-2222-4333-8444-555555555555", "invented"),
        (f"not {UUID}", "denied"),
    ],
)
def test_uuids(answer: str, outcome: str) -> None:
    assert judge(Case(answer, (UUID,), "uuid")) == outcome


@pytest.mark.parametrize(
    ("answer", "in_order", "outcome"),
    [
        ("11, 22 and 33", False, "exact"),
        ("33 11 22", False, "exact"),
        ("33 11 22", True, "near_miss"),
        ("11, 22, 33", True, "exact"),
        ("11, 22", False, "near_miss"),
        ("11, 22, 33, 44", False, "malformed"),
        ("11, 22, 44", False, "distractor"),
        ("11, 11, 22, 33", False, "exact"),
        ("11; 22; 33", False, "exact"),
        ('"11", "22", "33"', False, "exact"),
        ("11, then 22, then 33", True, "exact"),
        ("11 as well as 22 and 33", False, "exact"),
        ("11. 22. 33.", False, "exact"),
        ("• 11\n• 22\n• 33", False, "exact"),
        ("11, 22, 33; 44; 55", False, "malformed"),
        ("11, 22, 33 or maybe 44", False, "malformed"),
        ("11, 22 and 33 of them, but 44 not", False, "malformed"),
    ],
)
def test_several_values(answer: str, in_order: bool, outcome: str) -> None:
    case = Case(answer, ("11", "22", "33"), in_order=in_order, rivals=("44",))
    assert judge(case) == outcome


@pytest.mark.parametrize("answer", [" 482", " 48213", "The code is 48213"])
def test_a_value_that_the_limit_may_have_cut_is_truncated(answer: str) -> None:
    assert judge(Case(answer, GOLD, cut_short=True)) == "truncated"
    assert judge(Case(f"{answer}. And", GOLD, cut_short=True)) != "truncated"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [("2021-03-12.", "exact"), ("2021-03-13", "near_miss"), ("1999-07-01", "invented")],
)
def test_dates(answer: str, outcome: str) -> None:
    assert judge(Case(answer, ("2021-03-12",), "date")) == outcome


def test_the_haystack_is_read_only_when_it_decides() -> None:
    def unread() -> str:
        raise AssertionError("read")

    for answer in ("48213", "48214", "", "no idea", "58120"):
        judge(Case(answer, GOLD, rivals=("58120",), context=unread))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("templates", ["trained", "unseen"])
def test_the_gold_of_every_family_is_exact_and_its_distractors_are_not(
    name: str, templates: TemplateSplit
) -> None:
    for seed in range(20):
        fact, other = (
            FAMILIES[name].make(np.random.default_rng([seed, i]), "eval", templates) for i in (0, 1)
        )
        assert outcome_of(fact, fact.gold) == "exact"
        for wrong in fact.distractors:
            assert outcome_of(fact, (wrong, *fact.gold[1:])) == "distractor"
        added = set(other.gold) - set(fact.gold)
        if other.answer_format == fact.answer_format and added:
            assert outcome_of(fact, (*fact.gold, *added), added) == "malformed"


def outcome_of(fact: Fact, values: Iterable[str], planted: Iterable[str] = ()) -> str:
    """What an answer that lists `values` is worth beside other facts' `planted` values."""
    in_order = fact.answer_mode == "all in order"
    answer = f" {', '.join(values)}."
    rivals = (*fact.distractors, *planted)
    return judge(Case(answer, fact.gold, fact.answer_format, in_order, rivals))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("templates", ["trained", "unseen"])
def test_the_planted_text_itself_is_exact(name: str, templates: TemplateSplit) -> None:
    """What a model writes that goes on as the haystack does, however the sentence ends."""
    told = 0
    for seed in range(100):
        fact = FAMILIES[name].make(np.random.default_rng([7, seed]), "eval", templates)
        if fact.answer_mode != "one" or len(fact.gold_pieces) != 1:
            continue
        piece = fact.pieces[fact.gold_pieces[0]]
        answer = piece[piece.rindex(f" {fact.gold[0]}") :].split("\n")[0]
        case = Case(answer, fact.gold, fact.answer_format, rivals=fact.distractors)
        assert judge(case) == "exact", answer
        cut = Case(answer[:-1], *(case.gold, case.answer_format), cut_short=True)
        assert judge(cut) in ("exact", "truncated")
        told += 1
    assert told or FAMILIES[name].make(np.random.default_rng(0), "eval").answer_mode != "one"


def test_a_copied_value_has_boundaries_too() -> None:
    assert judge(Case("161", GOLD, context=lambda: "in 1611")) == "invented"


def test_a_copied_number_may_be_written_otherwise() -> None:
    assert judge(Case("144,000", GOLD, context=lambda: "there were 144,000 of them")) == "copied"
    assert judge(Case("144000", GOLD, context=lambda: "there were 144,000 of them")) == "copied"
    assert judge(Case("144,000", GOLD, context=lambda: "there were 144000 of them")) == "copied"


numbers = st.integers(10_000, 99_999).map(str)
separators = st.text(" ,;:|/-–•*\"'()[].&+", min_size=1).filter(lambda s: s != "." and s != ",")


@given(st.text() | numbers)
def test_any_text_has_an_outcome_and_only_gold_is_exact(answer: str) -> None:
    for answer_format in ("number", "word", "uuid", "constant"):
        outcome = judge(Case(answer, GOLD, answer_format))
        assert outcome != "error"
        assert outcome != "exact" or "48213" in Case(answer, GOLD).text


@given(st.lists(numbers, min_size=1, max_size=4, unique=True), separators, st.integers(0, 4))
def test_no_list_of_several_numbers_is_exact(others: list[str], joint: str, at: int) -> None:
    listed = [number for number in others if number != GOLD[0]]
    listed.insert(at, GOLD[0])
    outcome = judge(Case(joint.join(listed), GOLD))
    assert (outcome == "exact") == (len(listed) == 1)


digits = st.text("0123456789", min_size=1, max_size=8)


@given(digits, digits)
def test_only_the_whole_number_is_exact(answer: str, gold: str) -> None:
    assert (judge(Case(f" {answer}.", (gold,))) == "exact") == (answer == gold)


@given(digits, digits)
def test_slips_are_a_symmetric_distance(left: str, right: str) -> None:
    assert slips(left, right) == slips(right, left)
    assert (slips(left, right) == 0) == (left == right)
    assert abs(len(left) - len(right)) <= slips(left, right) <= max(len(left), len(right))


def test_swapped_neighbours_are_one_slip() -> None:
    assert slips("48213", "48231") == 1
    assert slips("ab", "ba") == 1
    assert is_near("48231", "48213")
    assert not is_near("84231", "48213")
