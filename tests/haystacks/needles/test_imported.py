"""RULER's and MRCR's files: made up here in their form, with their needles and questions."""

import json
from pathlib import Path

import pytest

from haystacks.needles.base import Fact, FamilyError
from haystacks.needles.own_file import FileFamily
from haystacks.needles.registry import find_family

NEEDLE = "One of the special magic {kind} for {key} is: {value}."


def ruler(kind: str, needles: list[tuple[str, str]], asked: str) -> str:
    told = " ".join(f"Some text. {NEEDLE.format(kind=kind, key=k, value=v)}" for k, v in needles)
    return f"Some special magic {kind} are hidden.\n{told} More text.\n{asked}"


def facts(folder: Path, file_format: str, *records: object) -> tuple[Fact, ...]:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    family = find_family(f"file:{path}?format={file_format}")
    assert isinstance(family, FileFamily)
    return family.facts


def test_a_single_needle_of_ruler(tmp_path: Path) -> None:
    asked = "What is the special magic number for dry-lake mentioned in the provided text?"
    text = ruler("numbers", [("wet-moor", "1111111"), ("dry-lake", "7654321")], asked)
    record = {"index": 0, "input": text, "outputs": ["7654321"], "length": 4096}
    (fact,) = facts(tmp_path, "ruler", record)
    assert fact.pieces == (f" {NEEDLE.format(kind='numbers', key='dry-lake', value='7654321')}",)
    assert fact.ask == f" {asked}"
    assert (
        fact.statement == " The special magic number for dry-lake mentioned in the provided text is"
    )
    assert (fact.gold, fact.answer_format, fact.answer_mode) == (("7654321",), "number", "one")
    assert fact.distractors == ("1111111",)
    assert {"dry-lake", "wet-moor"} <= fact.claims


def test_several_values_of_ruler_and_a_haystack_of_needles(tmp_path: Path) -> None:
    uuids = [f"9f492aa8-ae21-41b7-8c11-0123456789{i:02d}" for i in range(40)]
    needles = [("key", uuid) if i in (7, 30) else (f"k{i}", uuid) for i, uuid in enumerate(uuids)]
    asked = "What are all the special magic uuids for key mentioned in the provided text?"
    answered = f"{asked} The special magic uuids for key mentioned in the provided text are"
    text = ruler("uuids", needles, answered)
    (fact,) = facts(tmp_path, "ruler", {"input": text, "outputs": [uuids[30], uuids[7]]})
    assert fact.gold == (uuids[30], uuids[7])
    assert fact.answer_mode == "all in any order"
    assert [uuids[7] in fact.pieces[0], uuids[30] in fact.pieces[1]] == [True, True]
    assert fact.statement.endswith(" are")
    assert len(fact.distractor_pieces) == 8


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"outputs": ["1"]}, "input: is missing"),
        ({"input": "VAR A = 1. Find all variables.", "outputs": ["A"]}, "only niah tasks are read"),
        (
            {
                "input": "What is the special magic number for a mentioned in the provided text?",
                "outputs": ["5"],
            },
            "outputs: no needle of the input has '5'",
        ),
    ],
)
def test_what_is_not_ruler_s_is_refused(tmp_path: Path, record: object, told: str) -> None:
    with pytest.raises(FamilyError, match=f"line 1: .*{told}"):
        facts(tmp_path, "ruler", record)


def mrcr(**fields: object) -> dict[str, object]:
    turns = [
        ("write a poem about tapirs", "Tapirs roam.\n\nThey do."),
        ("write a riddle about rain", "It falls."),
        ("write a poem about tapirs", "O tapir!"),
    ]
    messages = [
        message
        for ask, reply in turns
        for message in (
            {"role": "user", "content": ask},
            {"role": "assistant", "content": reply},
        )
    ]
    last = "Prepend aYooSG8CQg to the 1st (1 indexed) poem about tapirs. Nothing else."
    messages.append({"role": "user", "content": last})
    return {
        "prompt": json.dumps(messages),
        "answer": "aYooSG8CQgTapirs roam.\n\nThey do.",
        "random_string_to_prepend": "aYooSG8CQg",
        "n_needles": 2,
        **fields,
    }


def test_the_repeated_request_of_mrcr_is_the_needle(tmp_path: Path) -> None:
    (fact,) = facts(tmp_path, "mrcr", mrcr())
    assert fact.pieces == (
        "\nUser: write a poem about tapirs\nAssistant: Tapirs roam.\n\nThey do.\n",
        "\nUser: write a poem about tapirs\nAssistant: O tapir!\n",
    )
    assert fact.ask == "\nUser: Repeat the 1st (1 indexed) poem about tapirs. Nothing else."
    assert fact.statement == "\nAssistant:"
    assert fact.gold == ("Tapirs roam.\n\nThey do.",)
    assert fact.distractors == ("O tapir!",)
    assert fact.gold_pieces == (0,)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"answer": "aYooSG8CQgNo such."}, "answer: is no reply"),
        ({"prompt": "no JSON"}, "prompt: is not JSON"),
        ({"prompt": [{"role": "user"}]}, "prompt: a message should have a role and a content"),
        ({"random_string_to_prepend": 3}, "random_string_to_prepend: is 3"),
    ],
)
def test_what_is_not_mrcr_s_is_refused(
    tmp_path: Path, fields: dict[str, object], told: str
) -> None:
    with pytest.raises(FamilyError, match=f"line 1: {told}"):
        facts(tmp_path, "mrcr", mrcr(**fields))
