"""Answers that try to pass, and answers that a careless scorer would fail."""

import re
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystacks.needles.registry import FAMILIES, Fact, TemplateSplit
from models.protocols import Finish, Reply, Usage
from niah.execution.ask import Asker, Reading
from niah.scoring.answer_values import Case
from niah.scoring.outcomes import contained_share, contains, is_near, judge, slips
from niah.sweep.planner import make_plan
from niah.sweep.prompts import build_context
from tests.niah.fakes import RecallModel, sweep_of, tiny_materials

GOLD = ("48213",)
numbers = st.integers(10_000, 99_999).map(str)

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
    "٤٨٬٢١٣": "exact",  # and their thousands separator
    "48 213": "exact",
    "48\u2009213": "exact",
    "48 213.": "exact",
    "48\u200b213": "exact",  # zero-width space
    "\u200e48213\u200f": "exact",  # marks of direction
    "48 214": "near_miss",
    "48 213 120": "malformed",
    "12 48 213": "malformed",
    "48 21": "malformed",
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
    "48231": "reordered",
    "31284": "reordered",
    "48233": "near_miss",
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
    # keys and values of the haystack, where nothing was planted
    "amber falcon 48213 red fox 99120 gray owl 77123": "malformed",
    "amber falcon=48213, red fox=99120": "malformed",
    "amber falcon: 48213; red fox: 99120": "malformed",
    '{"amber falcon": 48213, "red fox": 99120}': "malformed",
    "The code of the amber falcon is 48213 and the code of the red fox is 99120": "malformed",
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
    "48213 is the wrong code": "denied",
    "48213 (wrong)": "denied",
    "48213, which is wrong": "denied",
    "48213 was never the code": "denied",
    "48213 has never been the code": "denied",
    "48213 does not open it": "denied",
    "48213, that's wrong": "denied",
    "48213 never was the code": "denied",
    "48213 would not be the right one": "denied",
    "48213 is clearly wrong": "denied",
    "The wrong code is 48213": "denied",
    "Another code rather than 48213": "denied",
    "any other than 48213": "denied",
    "something instead of 48213": "denied",
    "I do not think it is 48213": "denied",
    "neither 58120 nor 48213": "denied",
    "not 58120, 48213": "denied",
    "48213 and 58120 are wrong": "denied",
    "58120 rather than 48213": "denied",
    # denials of something else
    "not 58120 but 48213": "exact",
    "It is not 58120, it is 48213": "exact",
    "48213, not 58120": "exact",
    "48213 rather than 58120": "exact",
    "58120 is wrong, it is 48213": "exact",
    "Not a problem: 48213": "exact",
    "Not at all! 48213": "exact",
    "none other than 48213": "exact",
    "nothing but 48213": "exact",
    "48213, which is not far": "exact",
    "48213 was never seen again": "exact",
    "48213 must not be told": "exact",
    " 48213. It is not good that the man should be alone": "exact",
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
        ("rabhor", "reordered"),
        ("rabhour", "invented"),
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
        ("harbor and lantern, I do not know", "malformed"),  # what follows the right word is prose
        ("harbor, jointly and severally.", "exact"),
        ("harbor, who", "exact"),
        ("harbor, and he went", "exact"),
        ("harbor cannot tell red from green", "exact"),
        ("not the harbor", "denied"),
        ("none", "denied"),
        ("It is called harbor", "exact"),
        ("The answer is harbor.", "exact"),
        ("According to the text, that would be harbor", "exact"),
        ("har\u00adbor", "exact"),  # soft hyphen
        ("It is called lantern", "distractor"),
        ("It is called zebra", "invented"),
        ("harbor (wrong)", "denied"),
        ("rather than harbor", "denied"),
        ("harbor, not lantern", "exact"),
        ("amber falcon=harbor, red fox=zebra", "malformed"),
        ('{"amber falcon": "harbor", "red fox": "zebra"}', "malformed"),
        ("The word of the amber falcon's owner is harbor", "exact"),
    ],
)
def test_words(answer: str, outcome: str) -> None:
    case = Case(
        answer,
        ("harbor",),
        "word",
        rivals=("lantern",),
        context=lambda: "The shepherd went out",
        question=" Which word has the owner of amber falcon? The word of amber falcon's owner is",
    )
    assert judge(case) == outcome


UUID = "6f1c2d3e-4b5a-4978-8c6d-0e1f2a3b4c5d"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (f" {UUID}.", "exact"),
        (UUID.upper(), "exact"),
        (UUID.replace("-", ""), "exact"),
        (UUID.replace("-", "").upper(), "exact"),
        (UUID.replace("-", "\u2010"), "exact"),  # hyphens of other kinds
        (UUID.replace("-", "\u2011"), "exact"),
        (UUID.replace("-", "\u2013"), "exact"),
        (f"{UUID.replace('-', '')}0", "malformed"),
        (f"{UUID}, then 11111111-2222-4333-8444-555555555555", "malformed"),
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
        ("11, 22, not 33", False, "denied"),
        ("11, 22 but not 33", False, "denied"),
        ("11 and 22 rather than 33", False, "denied"),
        ("11 is wrong, 22, 33", False, "denied"),
        ("11, 22 and 33 are wrong", False, "denied"),
        ("11, 22 and 33, but not 44", False, "exact"),
        ("11 for the fox, 22 for the owl and 33 for the crow", True, "exact"),
        ("11 for the fox, 22 for the owl, 33 for the crow, 55 for the elk", True, "malformed"),
    ],
)
def test_several_values(answer: str, in_order: bool, outcome: str) -> None:
    case = Case(answer, ("11", "22", "33"), in_order=in_order, rivals=("44",))
    assert judge(case) == outcome


@pytest.mark.parametrize("answer", [" 482", " 48213", "The code is 48213", "The code of amb"])
def test_a_value_that_the_limit_may_have_cut_is_truncated(answer: str) -> None:
    question = " What is the code of amber falcon? The code of amber falcon is"
    assert judge(Case(answer, GOLD, cut_short=True, question=question)) == "truncated"
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


def a_fact(name: str, templates: TemplateSplit, *seed: int) -> Fact:
    return FAMILIES[name].make(np.random.default_rng(seed), "eval", templates)


def statement(fact: Fact) -> str:
    """The last part of the question, which the value is to follow."""
    return re.split(r"[?.]\s+(?:Assistant: )?", fact.question.strip(), maxsplit=1)[1]


def case_of(fact: Fact, answer: str) -> Case:
    in_order = fact.answer_mode == "all in order"
    return Case(
        answer,
        fact.gold,
        fact.answer_format,
        in_order,
        rivals=fact.distractors,
        question=fact.question,
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("templates", ["trained", "unseen"])
def test_the_question_s_own_words_around_a_value_change_nothing(
    name: str, templates: TemplateSplit
) -> None:
    for seed in range(30):
        fact, other = (a_fact(name, templates, 11, seed, i) for i in (0, 1))
        for lead in (statement(fact), fact.question, f"Sure. {statement(fact)}"):
            right = case_of(fact, f" {lead} {', '.join(fact.gold)}.")
            assert judge(right) == "exact", right.answer
            wrongs = [(wrong, *fact.gold[1:]) for wrong in fact.distractors]
            if other.answer_format == fact.answer_format and set(other.gold) != set(fact.gold):
                wrongs.append(other.gold)
            for values in wrongs:
                wrong = case_of(fact, f" {lead} {', '.join(values)}.")
                assert judge(wrong) not in ("exact", "malformed"), wrong.answer
        assert judge(case_of(fact, f" {statement(fact)}.")) != "exact"
        assert judge(case_of(fact, f" {statement(fact)} not {fact.gold[0]}.")) == "denied"


def test_a_key_is_no_denial() -> None:
    question = " What is the code for wrong fox? The code for wrong fox is"
    for lead in ("The code for wrong fox is", "wrong fox:", "For wrong fox, the code is"):
        assert judge(Case(f"{lead} 48213", GOLD, question=question)) == "exact"
    assert (
        judge(Case("The code for wrong fox is wrong: 48213", GOLD, question=question)) == "denied"
    )


def test_what_the_question_says_is_an_answer_where_nothing_else_is_named() -> None:
    start = "11111111-2222-4333-8444-555555555555"
    question = f" Which record follows {start}? After {start} comes the record"
    for answer, outcome in {
        start: "distractor",
        f"After {start} comes the record {UUID}": "exact",
        f"After {start} comes the record {start}": "distractor",
        f"not {start}": "denied",
    }.items():
        assert judge(Case(answer, (UUID,), "uuid", rivals=(start,), question=question)) == outcome


def judged_in_a_run(answer: Callable[[Fact], str], finish: Finish, family: str) -> object:
    """The outcome that a run gives to an answer to its first question."""
    materials = tiny_materials()
    sweep = sweep_of(families=family, decoding={"max_new_tokens": 64})
    (stream, *_) = make_plan(sweep, materials).streams
    trial = stream.trials[0]
    asker = Asker(sweep, sweep.arms[0], RecallModel(), materials.tokenizer, lambda _: None)
    context = build_context(stream, materials.corpora["tiny"], sweep.layout)
    reply = Reply(answer(trial.fact), finish=finish)
    reading = Reading(reply, 0, 0.0, 0.0, Usage())
    return asker.judged(trial, context, reading)["outcome"]


def test_a_run_s_answers_are_judged_beside_their_question() -> None:
    told = judged_in_a_run(
        lambda fact: f" {statement(fact)} {fact.gold[0]}.", "stop", "single_word"
    )
    assert told == "exact"


@pytest.mark.parametrize(("finish", "outcome"), [("length", "truncated"), ("eos", "exact")])
def test_a_run_s_answer_is_cut_short_if_it_ended_by_its_length(
    finish: Finish, outcome: str
) -> None:
    assert judged_in_a_run(lambda fact: f" {fact.gold[0]}", finish, "single_number") == outcome


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("Certainly! Based on the text, the code for amber", "truncated"),
        ("The code of", "truncated"),
        ("And he went unto the land", "malformed"),
        ("I do not know", "denied"),
        ("The code of amber falcon is 48213. The", "exact"),
        ("48213, which is", "exact"),
    ],
)
def test_an_answer_that_was_cut_on_the_way_to_a_value_is_truncated(
    answer: str, outcome: str
) -> None:
    question = " What is the code of amber falcon? The code of amber falcon is"
    assert judge(Case(answer, GOLD, cut_short=True, question=question)) == outcome
    assert judge(Case(answer, GOLD, question=question)) != "truncated"


@pytest.mark.parametrize(
    ("answer", "gold", "share"),
    [
        ("The code is 48213.", ("48213",), 1),
        ("not 48213 but 58120", ("48213",), 1),
        ("148213", ("48213",), 1),
        ("HARBOR", ("harbor",), 1),
        ("48,213", ("48213",), 0),
        ("11 and 22", ("11", "22", "33", "44"), 0.5),
        ("", ("48213",), 0),
    ],
)
def test_contains_is_rulers_rule(answer: str, gold: tuple[str, ...], share: float) -> None:
    case = Case(answer, gold)
    assert contained_share(case) == share
    assert contains(case) == (share == 1)


@given(st.text() | numbers, numbers)
def test_contains_looks_for_the_gold_value_as_it_is_written(answer: str, gold: str) -> None:
    assert contains(Case(f"{answer}{gold}{answer}", (gold,)))
    assert contains(Case(answer, (gold,))) == (gold in answer)


def test_a_copied_value_has_boundaries_too() -> None:
    assert judge(Case("161", GOLD, context=lambda: "in 1611")) == "invented"


def test_a_copied_number_may_be_written_otherwise() -> None:
    assert judge(Case("144,000", GOLD, context=lambda: "there were 144,000 of them")) == "copied"
    assert judge(Case("144000", GOLD, context=lambda: "there were 144,000 of them")) == "copied"
    assert judge(Case("144,000", GOLD, context=lambda: "there were 144000 of them")) == "copied"


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


prose = st.text("abcdefghij ,=:;'()\"", min_size=1).filter(lambda s: s.strip(" ,=:;'()\""))


@given(prose, numbers)
def test_no_dump_of_keys_is_exact(key: str, other: str) -> None:
    outcome = judge(Case(f"falcon 48213 {key} {other}", GOLD))
    assert (outcome == "exact") == (other == GOLD[0])


INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u202a"


@given(st.lists(st.tuples(st.integers(0, len(UUID)), st.sampled_from(INVISIBLE))))
def test_invisible_characters_change_nothing(inserted: list[tuple[int, str]]) -> None:
    for gold, answer_format in ((GOLD[0], "number"), (UUID, "uuid"), ("harbor", "word")):
        answer = gold
        for at, char in inserted:
            answer = answer[:at] + char + answer[at:]
        assert judge(Case(answer, (gold,), answer_format)) == "exact"


@given(st.integers(1000, 10**9), st.sampled_from(" ,_'’٬\u00a0\u2009\u202f"))
def test_thousands_may_be_set_apart(number: int, separator: str) -> None:
    answer = f"{number:,}".replace(",", separator)
    assert judge(Case(answer, (str(number),))) == "exact"
    assert judge(Case(answer, (str(number + 1),))) != "exact"


def test_two_short_numbers_are_not_one_long_one() -> None:
    assert judge(Case("48 213", ("48", "213"))) == "exact"
    assert judge(Case("48 213", ("48", "213", "48213"))) == "near_miss"


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
