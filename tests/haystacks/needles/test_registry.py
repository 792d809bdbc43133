"""What every family promises, and what each family promises beyond that."""

import hashlib
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haystacks.needles import registry
from haystacks.needles.base import Fact
from haystacks.needles.counting import FrequentWords, by_count
from haystacks.needles.latent import associations, person_names
from haystacks.needles.registry import (
    FAMILIES,
    FORMS,
    Family,
    FamilyError,
    TemplateSplit,
    ValueSplit,
    available_families,
    find_family,
)
from haystacks.needles.single import SingleNumber
from haystacks.needles.templates import TRAINED, UNSEEN
from haystacks.needles.values import number, uuid4, value_split, word
from haystacks.needles.words import nouns
from haystacks.tokenizer import FastTokenizer

SEEDS = st.integers(0, 2**32)
SPLITS: tuple[ValueSplit, ...] = ("train", "eval")
POOLS: tuple[TemplateSplit, ...] = ("trained", "unseen")
DIGIT_VALUE = re.compile(r"\d{5}|\d{4}-\d{2}-\d{2}|[0-9a-f]{8}-[0-9a-f-]{27}|[A-Z]{5}")

# Of the facts drawn with seed 7: rows of finished runs pair by their texts.
DRAWN = {
    "single_number": "c17abc4287864db4",
    "single_word": "ab336295b56309d6",
    "single_uuid": "485b55a81212e98f",
    "multi_key": "a5c5712715c2b59e",
    "multi_value": "50240220433022f6",
    "multi_query": "6a046741a3f36458",
    "variable_tracking": "589c36c7806c8780",
    "variable_value": "acf73bc5a7c34054",
    "uuid_chain": "95f19048ba99f8ec",
    "common_words": "87814cb98840e6af",
    "frequent_words": "5b7a987d8f466b33",
    "latent_association": "1b66572f07403def",
    "nth_ask": "c8898b9262407ac5",
    "contract_clause": "36ec5b82a6dc58cf",
    "code_declaration": "06fe0f54834c2a63",
    "agent_log_fact": "3f419d6fd5522f75",
}

families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
kinds = pytest.mark.parametrize(("split", "pool"), [(s, p) for s in SPLITS for p in POOLS])


def facts(family: Family, split: ValueSplit, pool: TemplateSplit, n: int = 60) -> list[Fact]:
    rng = np.random.default_rng(7)
    return [family.make(rng, split, pool) for _ in range(n)]


@families
@kinds
def test_pieces_hold_the_gold_and_the_question_does_not(
    family: Family, split: ValueSplit, pool: TemplateSplit
) -> None:
    for fact in facts(family, split, pool):
        planted = "".join(fact.pieces)
        assert all(gold in planted for gold in fact.gold)
        assert not any(
            re.search(rf"\b{re.escape(gold)}\b", fact.question, re.IGNORECASE) for gold in fact.gold
        )
        assert not any(g in piece for g in fact.gold for piece in fact.distractor_pieces)
        assert set(fact.gold).isdisjoint(fact.distractors)
        assert fact.gold_pieces


@families
@kinds
def test_pieces_and_questions_can_be_put_into_text_as_they_are(
    family: Family, split: ValueSplit, pool: TemplateSplit
) -> None:
    for fact in facts(family, split, pool):
        for piece in fact.pieces + fact.distractor_pieces:
            assert re.match(r"[ \n]\S", piece)
            assert piece[-1] in ".\n"
        for part in (fact.ask, fact.statement):
            assert re.match(r"[ \n]\S", part)
            assert not part[-1].isspace()
        assert fact.ask[-1] in "?." or fact.family in ("nth_ask", "agent_log_fact")
        assert fact.question == fact.ask + fact.statement
        everything = "".join((*fact.pieces, *fact.distractor_pieces, fact.question))
        assert not re.search(r"\{[a-z_]+\}", everything)
        assert all(" " not in value for value in fact.values)


@families
@kinds
def test_the_same_seed_gives_the_same_fact(
    family: Family, split: ValueSplit, pool: TemplateSplit
) -> None:
    assert facts(family, split, pool, 5) == facts(family, split, pool, 5)


@families
def test_the_facts_of_a_seed_stay_what_they_are(family: Family) -> None:
    digest = hashlib.sha256()
    for split in SPLITS:
        for pool in POOLS:
            for f in facts(family, split, pool):
                parts = (f.question, f.pieces, f.gold, f.distractors, f.distractor_pieces)
                digest.update(repr((*parts, f.template)).encode())
    assert digest.hexdigest()[:16] == DRAWN[family.name]


@pytest.mark.parametrize(
    "name", ["single_number", "single_word", "multi_key", "contract_clause", "code_declaration"]
)
def test_the_statement_is_the_planted_sentence_up_to_the_value(name: str) -> None:
    for fact in facts(find_family(name), "eval", "trained"):
        stated = re.sub(r"\A\s", "", fact.statement)
        assert f"{stated} {fact.gold[0]}" in fact.pieces[0]


@families
@kinds
def test_many_facts_share_no_key_and_no_value(
    family: Family, split: ValueSplit, pool: TemplateSplit
) -> None:
    made = family.make_many(np.random.default_rng(3), 20, split, pool)
    claims = Counter(claim for fact in made for claim in fact.claims)
    assert len(made) == 20
    assert max(claims.values()) == 1
    assert all(fact.template.startswith(f"{pool}/") for fact in made)
    taken = made[0].claims
    others = family.make_many(np.random.default_rng(3), 8, split, pool, taken=taken)
    assert all(taken.isdisjoint(fact.claims) for fact in others)


@families
def test_values_and_keys_of_the_splits_never_meet(family: Family) -> None:
    claims = {
        split: {c for pool in POOLS for f in facts(family, split, pool, 300) for c in f.claims}
        for split in SPLITS
    }
    assert claims["train"].isdisjoint(claims["eval"])
    for split in SPLITS:
        hashed = [claim for claim in claims[split] if DIGIT_VALUE.fullmatch(claim)]
        assert all(value_split(claim) == split for claim in hashed)


@families
def test_templates_of_the_pools_never_meet(family: Family) -> None:
    def shapes(pool: TemplateSplit) -> set[str]:
        made = facts(family, "eval", pool, 120)
        return {re.sub(r"\S*\d\S*", "#", f.question.replace(f.key, "KEY")) for f in made}

    assert shapes("trained").isdisjoint(shapes("unseen"))


@families
def test_too_many_facts_are_refused_in_bounded_time(family: Family) -> None:
    class Narrow(type(family)):  # type: ignore[misc]
        """Draws from one seed only."""

        def make(
            self, rng: np.random.Generator, split: ValueSplit, templates: TemplateSplit = "trained"
        ) -> Fact:
            return super().make(np.random.default_rng(0), split, templates)

    with pytest.raises(FamilyError, match=f"{family.name}: 3 distinct facts asked, 1 found"):
        Narrow().make_many(np.random.default_rng(0), 3, "eval")


def test_registry_names_are_the_families_own() -> None:
    assert {name: family.name for name, family in FAMILIES.items()} == {n: n for n in FAMILIES}
    assert set(available_families()) == {*FAMILIES, *FORMS}
    with pytest.raises(FamilyError, match="'needle' is not one of single_number, "):
        find_family("needle")


def test_the_first_template_reads_as_promised(tokenizer: FastTokenizer) -> None:
    piece = TRAINED[0].piece("amber falcon", "code", "48213")
    question = TRAINED[0].question("amber falcon", "code")
    assert piece == " The secret code for amber falcon is 48213."
    assert question == (
        " What is the secret code for amber falcon? The secret code for amber falcon is"
    )
    answered = tokenizer.encode(question) + tokenizer.encode(" 48213.")
    assert answered == tokenizer.encode(f"{question} 48213.")


@pytest.mark.parametrize("name", ["single_number", "single_word", "single_uuid", "multi_key"])
def test_the_question_ends_with_the_statement_up_to_the_value(name: str) -> None:
    for pool in POOLS:
        for fact in facts(FAMILIES[name], "eval", pool):
            statement = fact.pieces[0].removesuffix(f" {fact.gold[0]}.")
            assert fact.question.endswith(statement)
            assert fact.question.count(fact.key) == 2


def test_there_are_enough_templates() -> None:
    assert len(TRAINED) >= 8
    assert len(UNSEEN) >= 4
    assert len({t.statement for t in TRAINED + UNSEEN}) == len(TRAINED + UNSEEN)
    assert all("{key}" in part for t in TRAINED + UNSEEN for part in t)


@given(SEEDS)
def test_numbers_have_five_digits_of_their_split(seed: int) -> None:
    for split in SPLITS:
        value = number(np.random.default_rng(seed), split)
        assert 10_000 <= int(value) <= 99_999
        assert value_split(value) == split


@pytest.mark.parametrize("split", SPLITS)
def test_no_digit_betrays_the_split(split: ValueSplit) -> None:
    rng = np.random.default_rng(11)
    values = [number(rng, split) for _ in range(20_000)]
    for place in range(5):
        counts = Counter(value[place] for value in values)
        expected = 20_000 / (9 if place == 0 else 10)
        assert all(abs(count - expected) < 0.1 * expected for count in counts.values())
        assert len(counts) == (9 if place == 0 else 10)


@given(SEEDS)
def test_uuids_are_version_4(seed: int) -> None:
    value = uuid4(np.random.default_rng(seed), "eval")
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", value
    )


def test_multi_key_distractors_share_one_word_with_the_key() -> None:
    for fact in facts(FAMILIES["multi_key"], "eval", "trained"):
        words = set(fact.key.split())
        assert len(fact.distractor_pieces) == len(fact.distractor_keys) == 8
        for key, piece, value in zip(
            fact.distractor_keys, fact.distractor_pieces, fact.distractors, strict=True
        ):
            assert len(words & set(key.split())) == 1
            assert piece == fact.pieces[0].replace(fact.key, key).replace(fact.gold[0], value)


def test_multi_value_and_multi_query_ask_for_all_values() -> None:
    for fact in facts(FAMILIES["multi_value"], "eval", "trained"):
        assert len(fact.pieces) == len(set(fact.gold)) == 4
        assert fact.answer_mode == "all in any order"
        assert all(fact.key in piece for piece in fact.pieces)
    for fact in facts(FAMILIES["multi_query"], "eval", "trained"):
        assert fact.answer_mode == "all in order"
        asked = (fact.key, *fact.distractor_keys)
        places = [fact.question.index(key) for key in asked]
        assert places == sorted(places)
        for key, gold in zip(asked, fact.gold, strict=True):
            assert [key in piece for piece in fact.pieces] == [gold in p for p in fact.pieces]


@pytest.mark.parametrize("name", ["variable_tracking", "variable_value"])
def test_chains_of_variables_resolve(name: str) -> None:
    for fact in facts(FAMILIES[name], "eval", "trained"):
        held: dict[str, str] = {}
        for piece in fact.pieces + fact.distractor_pieces:
            variable, source = re.fullmatch(r" VAR (\w+) = (\w+)\.", piece).groups()
            held[variable] = held.get(source, source)
        if name == "variable_value":
            assert held[fact.key] == fact.gold[0]
        else:
            assert {v for v, value in held.items() if value == fact.key} == set(fact.gold)
        assert len(held) == 10


def test_uuid_chains_lead_to_the_gold() -> None:
    for fact in facts(FAMILIES["uuid_chain"], "eval", "trained"):
        links = [re.findall(r"[0-9a-f-]{36}", piece) for piece in fact.pieces]
        follow = dict(links[1:])
        at = links[0][0]
        for _ in range(3):
            at = follow[at]
        assert (at,) == fact.gold
        assert links[0][0] in fact.question


@pytest.mark.parametrize("name", ["common_words", "frequent_words"])
def test_counted_words_are_strictly_the_most_frequent(name: str) -> None:
    for fact in facts(FAMILIES[name], "eval", "trained"):
        lists = [piece.rstrip(".").split(": ")[1].split(", ") for piece in fact.pieces]
        counts = Counter(word for words in lists for word in words)
        ranked = counts.most_common()
        assert {word for word, _ in ranked[:3]} == set(fact.gold)
        assert ranked[2][1] > ranked[3][1]


def test_frequent_words_fall_with_their_rank() -> None:
    assert FrequentWords().counts()[:4] == [16, 8, 5, 4]
    assert by_count([["b", "a"], ["b", "c"]]) == ["b", "a", "c"]


def test_latent_facts_share_no_word_with_their_question() -> None:
    common = {"a", "an", "and", "at", "be", "by", "for", "from", "has", "have", "his", "her"}
    common |= {"in", "is", "it", "of", "on", "one", "out", "the", "to", "up", "was"}
    for split in SPLITS:
        for pair in associations(split):
            cue, implied = (set(re.findall(r"[a-z]+", text.lower())) for text in pair)
            assert not (cue & implied) - common, pair
            stems = {word[:5] for word in cue - common if len(word) > 4}
            assert stems.isdisjoint({word[:5] for word in implied - common if len(word) > 4}), pair
    assert set(associations("train")).isdisjoint(associations("eval"))
    assert set(person_names("train")).isdisjoint(person_names("eval"))


def test_the_nth_reply_is_the_gold() -> None:
    order = ("first", "second", "third", "fourth")
    asked = set()
    for fact in facts(FAMILIES["nth_ask"], "eval", "trained"):
        (nth,) = {word for word in order if word in fact.question.split()}
        assert fact.gold_pieces == (order.index(nth),)
        assert len({piece.split("\n")[1] for piece in fact.pieces}) == 1
        asked.add(nth)
    assert asked == set(order)


def test_a_code_declaration_is_valid_python() -> None:
    for pool in POOLS:
        for fact in facts(FAMILIES["code_declaration"], "eval", pool):
            compile("settings = {}" + fact.pieces[0], "piece", "exec")


@pytest.mark.parametrize("name", ["contract_clause", "code_declaration", "agent_log_fact"])
def test_a_document_fact_has_a_twin_with_a_similar_key(name: str) -> None:
    for fact in facts(FAMILIES[name], "eval", "trained"):
        assert len(set(fact.key.split()) & set(fact.distractor_keys[0].split())) == 1
        assert fact.distractors[0] in fact.distractor_pieces[0]
        statement = fact.question.split("? " if name == "contract_clause" else "\n")[-1]
        assert f"{statement} {fact.gold[0]}" in fact.pieces[0]


@pytest.mark.parametrize("split", SPLITS)
def test_no_value_is_a_word_that_introduces_values(split: ValueSplit) -> None:
    rng = np.random.default_rng(2)
    drawn = {word(rng, split) for _ in range(30_000)}
    assert drawn.isdisjoint({"answer", "code", "value", "word"})
    assert len(drawn) > 0.99 * (len(nouns(split)) - 6)


def install(folder: Path, source: str) -> None:
    """A package of one's own, as pip leaves it."""
    (folder / "own_needles.py").write_text(source)
    (folder / "own_needles-1.dist-info").mkdir()
    (folder / "own_needles-1.dist-info" / "METADATA").write_text("Name: own_needles\nVersion: 1\n")
    entry = "[niah.needles]\nlocker = own_needles:LOCKER\n"
    (folder / "own_needles-1.dist-info" / "entry_points.txt").write_text(entry)


@pytest.mark.parametrize(
    ("value", "told"),
    [("SingleNumber()", None), ("7", "is a int; it should be"), ("1 / 0", "cannot be loaded")],
)
def test_a_family_of_another_package_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, told: str | None
) -> None:
    install(tmp_path, f"from haystacks.needles.single import SingleNumber\nLOCKER = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_needles", raising=False)
    registry._installed.cache_clear()
    try:
        if told is None:
            assert isinstance(find_family("locker"), SingleNumber)
            assert "locker" in available_families()
        else:
            with pytest.raises(FamilyError, match=told):
                find_family("locker")
    finally:
        registry._installed.cache_clear()
        sys.modules.pop("own_needles", None)


def test_a_value_within_a_word_is_not_held() -> None:
    fact = find_family("nth_ask").make(np.random.default_rng(0), "eval")
    part = replace(fact, gold=("pass",), pieces=(" The password is old.", " It is a pass."))
    assert part.gold_pieces == (1,)
