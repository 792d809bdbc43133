"""Needles of a user's file: what a line becomes, and the one line that says what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystacks.needles.base import Fact, FamilyError, holds
from haystacks.needles.own_file import FileFamily
from haystacks.needles.registry import find_family

RECORD = {
    "fact": "Nothing else is open. The rebate agreed with Halden is 17 per cent.",
    "question": "Which rebate was agreed with Halden?",
    "answer": "17",
}


def written(folder: Path, *records: object) -> str:
    path = folder / "needles.jsonl"
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"file:{path}"


def only(folder: Path, record: dict[str, object]) -> Fact:
    family = find_family(written(folder, record))
    assert isinstance(family, FileFamily)
    (fact,) = family.facts
    return fact


def test_a_line_is_a_fact(tmp_path: Path) -> None:
    record = RECORD | {
        "distractors": [
            "The rebate agreed with Selm is under review.",
            {"fact": "The rebate agreed with Torv is 23 per cent.", "answer": "23"},
        ]
    }
    fact = only(tmp_path, record)
    assert fact.pieces == (f" {RECORD['fact']}",)
    assert fact.ask == " Which rebate was agreed with Halden?"
    assert fact.statement == " The rebate agreed with Halden is"
    assert (fact.gold, fact.answer_format, fact.answer_mode) == (("17",), "number", "one")
    assert fact.distractor_pieces == (
        " The rebate agreed with Selm is under review.",
        " The rebate agreed with Torv is 23 per cent.",
    )
    assert fact.distractors == ("23",)
    assert fact.template == "line/1"
    assert {"17", "23", record["question"]} <= fact.claims


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("48213", "number"),
        ("1,234.50", "number"),
        ("harbor", "word"),
        ("2024-05-06", "date"),
        ("9f492aa8-ae21-41b7-8c11-0123456789ab", "uuid"),
        ("v1.22.3", "version"),
        ("Porto Vecchio", "text"),
        ("北京", "text"),
        (["12", "34"], "number"),
        (["12", "harbor"], "text"),
    ],
)
def test_the_format_is_seen_in_the_answer(
    tmp_path: Path, answer: str | list[str], expected: str
) -> None:
    said = answer if isinstance(answer, str) else " and ".join(answer)
    fact = only(tmp_path, {"fact": f"It is {said}.", "question": "What is it?", "answer": answer})
    assert fact.answer_format == expected
    assert fact.gold == ((answer,) if isinstance(answer, str) else tuple(answer))
    told = {"fact": f"It is {said}.", "question": "What is it?", "answer": answer, "format": "text"}
    assert only(tmp_path, told).answer_format == "text"


@pytest.mark.parametrize(
    ("fact", "answer", "statement"),
    [
        ("The code is 48213.", "48213", " The code is"),
        ("A line.\nLIMIT = 48213", "48213", " LIMIT ="),
        ("天气很好。暗号是48213。", "48213", " 暗号是"),
        ("48213 is the code.", "48213", " The answer is"),
        ("Mara lives beside the opera.", "Vienna", " The answer is"),
    ],
)
def test_the_statement_is_the_sentence_up_to_the_answer(
    tmp_path: Path, fact: str, answer: str, statement: str
) -> None:
    record = {"fact": fact, "question": "Say it?", "answer": answer}
    assert only(tmp_path, record).statement == statement


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("{", "line 2: is not JSON (Expecting property name"),
        ("[1]", "line 2: is not a JSON object"),
        ('{"fact": "a", "fact": "b"}', "line 2: fact: stands twice"),
        ({"fact": "a", "question": "b?"}, "line 2: answer: is missing"),
        (RECORD | {"question": ["b?"]}, 'line 2: question: is ["b?"]; it should be text'),
        (RECORD | {"fact": " "}, 'line 2: fact: is " "; it should be text'),
        (RECORD | {"answer": 17}, "line 2: answer: is 17; it should be text"),
        (RECORD | {"answer": None}, "line 2: answer: is null; it should be text"),
        (RECORD | {"answer": []}, "line 2: answer: is an empty list"),
        (RECORD | {"answer": ["Ab", "ab"]}, "line 2: answer: holds a value twice"),
        (RECORD | {"anwser": "17"}, "line 2: anwser: no such field; there is fact, question,"),
        (RECORD | {"format": "int"}, 'line 2: format: is "int"; there is number, word,'),
        (
            RECORD | {"fact": "It is -40.", "answer": "-40", "format": "number"},
            "line 2: format: is number, but the answer '-40' has more than digits",
        ),
        (
            json.dumps(RECORD | {"question": "Which \ud800?"}),
            r'line 2: question: is "Which \ud800?"; half a character is no text',
        ),
        (RECORD | {"question": "Is it 17?"}, "line 2: question: holds the answer '17'"),
        (RECORD | {"distractors": "x"}, 'line 2: distractors: is "x"; it should be a list'),
        (RECORD | {"distractors": [3]}, "line 2: distractors: is 3; it should be text"),
        (RECORD | {"distractors": ["17 too."]}, "line 2: distractors: '17 too.' holds the answer"),
        (
            RECORD | {"distractors": [{"fact": "It is 4.", "answer": "5"}]},
            "line 2: distractors: 'It is 4.' does not hold its answer '5'",
        ),
        (
            RECORD | {"distractors": [{"fact": "It is 4.", "value": "4"}]},
            "line 2: distractors: value: no such field",
        ),
        (RECORD | {"question": "first question?"}, "line 2: question: is that of line 1 already"),
    ],
)
def test_a_wrong_line_is_named_with_its_field(tmp_path: Path, record: object, told: str) -> None:
    first = {"fact": "A fact: 1.", "question": "First question?", "answer": "1"}
    with pytest.raises(FamilyError) as raised:
        find_family(written(tmp_path, first, record))
    assert told in str(raised.value)
    assert "needles.jsonl" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FamilyError, match=r"none\.jsonl cannot be read \(No such file"):
        find_family(f"file:{tmp_path}/none.jsonl")
    with pytest.raises(FamilyError, match="holds no needle"):
        find_family(written(tmp_path, "", " "))
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(FamilyError, match="is not UTF-8 text"):
        find_family(f"file:{tmp_path}/bytes")
    with pytest.raises(FamilyError, match="format 'csv' is not one of needles, ruler, mrcr"):
        find_family(f"{written(tmp_path, RECORD)}?format=csv")


def test_facts_are_drawn_without_meeting_in_a_key_or_a_value(tmp_path: Path) -> None:
    answers = ["Harbor", "harbor", "mill", "quay", "Mill"]
    records = [
        {"fact": f"Word {i} is {answer}.", "question": f"Word {i}?", "answer": answer}
        for i, answer in enumerate(answers)
    ]
    family = find_family(written(tmp_path, *records))
    for seed in range(10):
        drawn = family.make_many(np.random.default_rng(seed), 3, "eval")
        assert len({fact.gold[0].casefold() for fact in drawn}) == 3
    with pytest.raises(FamilyError, match="4 distinct facts asked, 3 found"):
        family.make_many(np.random.default_rng(0), 4, "eval")
    with pytest.raises(FamilyError, match="no facts for split train"):
        family.make(np.random.default_rng(0), "train")


def test_the_same_file_elsewhere_gives_the_same_facts(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = (find_family(written(f, RECORD)) for f in (tmp_path, tmp_path / "other"))
    assert isinstance(one, FileFamily)
    assert isinstance(other, FileFamily)
    assert (one.facts, one.fingerprint) == (other.facts, other.fingerprint)
    assert one.name != other.name


@given(st.sampled_from(["48213", "Porto Vecchio", "北京"]), st.sampled_from(["", " ", "是", "x9"]))
def test_a_value_is_held_but_not_as_a_part_of_another(value: str, beside: str) -> None:
    part = beside == "x9" and value.isascii()
    assert holds(f"{beside}{value.upper()}{beside}", value) == (not part)
