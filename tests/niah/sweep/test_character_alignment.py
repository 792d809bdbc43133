"""Texts whose characters take several tokens: no prompt, needle or fork cuts one."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haystacks.corpora.registry import Corpus
from haystacks.needles.registry import FAMILIES
from haystacks.tokenizer import BUNDLED_NAME, load_tokenizer, tokenises_back
from niah.errors import PlanError
from niah.sweep.planner import Materials, make_plan
from niah.sweep.prompts import build_context
from niah.sweep.trials import Plan
from tests.niah.fakes import sweep_of, tiny_materials
from tests.niah.strategies import sweeps

few = settings(max_examples=12, deadline=None)
TOKENIZER = load_tokenizer(BUNDLED_NAME)
CHINESE = "子曰：“学而时习之，不亦说乎？有朋自远方来，不亦乐乎？”"
EMOJI = "so 🙂 it 🙃 was, naïvely, 👨‍👩‍👧 and 🇨🇭 "


@cache
def materials(alphabet: str, num_characters: int = 10_000) -> Materials:
    """A text of random characters, none of whose stretches comes again."""
    characters = np.random.default_rng(0).choice(list(alphabet), num_characters)
    ids = np.array(TOKENIZER.encode("".join(characters)), dtype=np.uint16)
    starts = TOKENIZER.starts_character
    corpus = Corpus(
        "tiny", "0" * 16, TOKENIZER.fingerprint, len(ids), ids, "none", "made up", starts
    )
    return Materials(TOKENIZER, {"tiny": corpus}, FAMILIES)


def check(plan: Plan, found: Materials) -> None:
    corpus = found.corpora["tiny"]
    for stream in plan.streams:
        context = build_context(stream, corpus, plan.sweep.layout)
        for trial in stream.trials:
            prompt = context.prompt(trial)
            assert len(prompt) == trial.length
            places = [trial.fork_at, trial.cut, *trial.starts]
            places += [s + len(i) for s, i in zip(trial.starts, trial.piece_ids, strict=True)]
            whole = TOKENIZER.decode(prompt)
            assert "\ufffd" not in whole
            for place in places:
                assert TOKENIZER.decode(prompt[:place]) + TOKENIZER.decode(prompt[place:]) == whole
            pieces = trial.fact.pieces + trial.fact.distractor_pieces
            assert [whole.count(piece) for piece in pieces] == len(pieces) * [trial.control is None]


@few
@given(sweeps, st.sampled_from([CHINESE, EMOJI]))
def test_no_place_of_a_plan_cuts_a_character(fields: dict[str, object], alphabet: str) -> None:
    found = materials(alphabet)
    check(make_plan(sweep_of(**fields), found), found)


@pytest.mark.parametrize("layout", ["stream", "isolated"])
def test_phases_stay_and_lengths_grow_by_a_few_tokens(layout: str) -> None:
    phase = {"modulus": 4}
    sweep = sweep_of(layout=layout, length_phase=phase, needle_phase=phase, depths=[0, 0.5, 1])
    aligned, plain = (
        [trial for _, trial in make_plan(sweep, found).trials()]
        for found in (materials(CHINESE), tiny_materials(20_000))
    )
    assert len(aligned) == len(plain)
    lengths = {t.requested_length + (r - t.requested_length) % 4 for t in plain for r in range(4)}
    assert {t.length for t in plain} == lengths
    assert {t.length % 4 for t in aligned} == {t.starts[0] % 4 for t in aligned} == {0, 1, 2, 3}
    assert all(0 <= t.length - t.requested_length < 4 + 5 * 4 for t in aligned)
    assert any(t.length not in lengths for t in aligned)


def test_a_text_of_whole_characters_is_left_alone() -> None:
    found = tiny_materials(20_000)
    told = replace(found.corpora["tiny"], starts_character=TOKENIZER.starts_character)
    sweep = sweep_of()
    assert make_plan(sweep, found) == make_plan(sweep, replace(found, corpora={"tiny": told}))


def test_a_phase_at_which_no_character_begins_is_refused_in_one_line() -> None:
    found = materials("龘", 1000)  # three tokens each
    sweep = sweep_of(needle_phase={"modulus": 3, "residues": [1]})
    with pytest.raises(PlanError, match="tiny has characters of several tokens") as raised:
        make_plan(sweep, found)
    assert "\n" not in str(raised.value)


def test_a_prompt_of_chinese_tokenises_back() -> None:
    found = materials(CHINESE)
    plan = make_plan(sweep_of(), found)
    back = [
        tokenises_back(TOKENIZER, build_context(stream, found.corpora["tiny"], "stream").prompt(t))
        for stream in plan.streams
        for t in stream.trials
    ]
    assert all(back)
